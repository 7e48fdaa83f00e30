"""How much one method differs from another on the same images."""

from dataclasses import dataclass

from torch import Tensor

from captum_blackbox.errors import ShapeError
from captum_blackbox.statistics.bootstrap import mean_interval

FEW_IMAGES = 10  # below this an interval over images is too narrow for a verdict


@dataclass(frozen=True)
class Difference:
    """A mean difference between two methods, paired by image.

    Attributes:
        mean: Mean over the images of the first minus the second.
        low: Lower end of the 95 % bootstrap interval.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(
    first: Tensor, second: Tensor, *, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Return the mean of ``first - second`` and its 95 % percentile bootstrap interval.

    The images are drawn with replacement, both methods together, so that what an image does to both
    of them cancels out. With few images, say fewer than 10, such an interval is too narrow.

    Args:
        first: One value per image, ``(N,)``.
        second: The same images under the other method, ``(N,)``.
        resamples: How often the images are drawn.
        seed: Of the draws.

    Raises:
        ShapeError: The shapes differ or there is no image.

    References:
        Efron, Tibshirani, "An introduction to the bootstrap", 1993, ch. 13.

    Example:
        >>> import torch
        >>> paired_difference(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.5]))
        Difference(mean=0.5, low=0.5, high=0.5)
    """
    if first.dim() != 1 or first.shape != second.shape or len(first) == 0:
        raise ShapeError(
            "expected one value per image for both methods, got shapes "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    differences = first.double() - second.double()
    low, high = mean_interval(differences, resamples=resamples, seed=seed)
    return Difference(float(differences.mean()), low, high)
