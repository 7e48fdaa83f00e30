"""Which method is better: ranks, means with intervals, paired differences."""

import torch
from torch import Tensor

from captum_blackbox.report.comparison import Difference, paired_difference
from captum_blackbox.statistics.bootstrap import Estimate, estimate

__all__ = ["Estimate", "average_ranks", "estimate", "overall_ranks", "paired"]


def paired(first: Tensor, second: Tensor) -> Difference | None:
    """Return first minus second over the images where both are numbers; ``None`` if none is."""
    both = first.isfinite() & second.isfinite()
    return paired_difference(first[both], second[both]) if bool(both.any()) else None


def average_ranks(values: Tensor, higher_is_better: bool) -> Tensor:
    """Return each method's rank, averaged over the images; 1 is the best, equals share theirs.

    Methods without any value are not ranked, and only images count where all others have one: else
    a method could win by failing where it is hard.

    Args:
        values: ``(methods, images)``, NaN where there is none.
        higher_is_better: The direction.

    Returns:
        ``(methods,)``, NaN for methods that are not ranked, or all NaN if no image counts.

    Example:
        >>> average_ranks(torch.tensor([[3.0, 1.0], [2.0, 1.0], [1.0, 0.0]]), True)
        tensor([1.2500, 1.7500, 3.0000], dtype=torch.float64)
    """
    known = values.isfinite()
    ranked = known.any(1)
    found = torch.full((len(values),), torch.nan, dtype=torch.float64)
    counted = values[ranked][:, known[ranked].all(0)] if bool(ranked.any()) else values[:0, :0]
    if counted.numel() > 0:
        sign = 1 if higher_is_better else -1
        own, other = sign * counted[:, None], sign * counted[None]
        behind = (other > own).sum(1).double() + ((other == own).sum(1).double() - 1) / 2
        found[ranked] = 1 + behind.mean(1)
    return found


def overall_ranks(ranks: Tensor) -> Tensor:
    """Return each method's mean over the metrics, ``(methods,)``.

    Only metrics count that rank every method which is ranked at all, so that all means are over the
    same metrics; NaN if there is none.

    Args:
        ranks: ``(methods, metrics)``.

    Example:
        >>> nan = torch.nan
        >>> overall_ranks(torch.tensor([[1.0, 1.0], [2.0, nan], [nan, nan]]))
        tensor([1., 2., nan])
    """
    known = ranks.isfinite()
    ranked = known.any(1)
    found = torch.full((len(ranks),), torch.nan, dtype=ranks.dtype)
    if bool(ranked.any()):
        complete = known[ranked].all(0)
        found[ranked] = ranks[ranked][:, complete].mean(1)
    return found
