"""Means over images, and how far to trust them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over images.

    Attributes:
        mean: Over the images that have a value; NaN if none has.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        images: How many have a value.
    """

    mean: float
    low: float
    high: float
    images: int


def estimate(values: Tensor, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Return the mean of the values that are numbers and its 95 % percentile bootstrap interval.

    The images are drawn with replacement. With few images, say fewer than 10, such an interval is
    too narrow.

    Args:
        values: One for each image, ``(N,)``; NaN where there is none.
        resamples: How often the images are drawn.
        seed: Of the draws.

    References:
        Efron, Tibshirani, "An introduction to the bootstrap", 1993, ch. 13.

    Example:
        >>> estimate(torch.tensor([1.0, 1.0, torch.nan]))
        Estimate(mean=1.0, low=1.0, high=1.0, images=2)
    """
    known = values[values.isfinite()].double()
    if len(known) == 0:
        return Estimate(torch.nan, torch.nan, torch.nan, 0)
    low, high = mean_interval(known, resamples=resamples, seed=seed)
    return Estimate(float(known.mean()), low, high, len(known))


def mean_interval(
    values: Tensor, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of ``values``, ``(N,)``.

    Example:
        >>> mean_interval(torch.tensor([2.0, 2.0]))
        (2.0, 2.0)
    """
    known = values.detach().double().cpu().numpy()
    draws = np.random.default_rng(seed).integers(len(known), size=(resamples, len(known)))
    low, high = np.quantile(known[draws].mean(1), (0.025, 0.975))
    return float(low), float(high)
