"""Signal quality as the paper defines it, for tests to compare with."""

import numpy as np


def naive_rho(x, w, on, positive, negative=None, held_out=None):
    """Line by line from Eq. 1: explicit residuals, v by least squares with an intercept."""
    negative = positive if negative is None else negative

    def residual(x, on):
        y = x @ w
        signal = np.where(on[:, None], np.outer(y, positive), np.outer(y, negative))
        return y, x - signal

    y, distractor = residual(x, on)
    centred = distractor - distractor.mean(0)
    v = np.linalg.lstsq(centred, y - y.mean(), rcond=1e-10)[0]
    y, distractor = residual(*(held_out or (x, on)))
    return 1 - np.corrcoef(y, distractor @ v)[0, 1]
