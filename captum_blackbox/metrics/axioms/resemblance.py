"""How much two maps have in common, whatever their size and sign."""

import warnings

import torch
from torch import Tensor

from captum_blackbox.errors import ExplanationWarning
from captum_blackbox.metrics.axioms.explaining import NotApplicableError
from captum_blackbox.metrics.similarity import rank_correlation


def resemblance(a: Tensor, b: Tensor) -> Tensor:
    """Return the absolute rank correlation of all values of two maps, ``(N,)`` in [0, 1].

    A map that is the same everywhere resembles another such map (1), and nothing else (0).

    Example:
        >>> import torch
        >>> a = torch.tensor([[[1.0, -2.0, 3.0]]])
        >>> resemblance(a, -5 * a)
        tensor([1.], dtype=torch.float64)
    """
    if a.shape != b.shape:
        raise NotApplicableError(
            f"the maps to compare have shapes {tuple(a.shape)} and {tuple(b.shape)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExplanationWarning)
        values = [each.flatten(1)[:, None] for each in (a, b)]
        found = rank_correlation(*values, channels="sum").abs()
    flat = [(each == each[..., :1]).all(2)[:, 0] for each in values]
    return torch.where(flat[0] & flat[1], 1.0, found)
