"""How two numbers go together, for many pairs at once."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from captum_blackbox.errors import ArtifactError, InputError
from captum_blackbox.statistics.running import Statistic, check_names

_NAMES = ("count", "mean", "scatter")


class PairMoments(NamedTuple):
    """Variances and covariance over all samples, divided by their number.

    Attributes:
        first: Variance of the first number.
        second: Variance of the second.
        both: Their covariance.
    """

    first: Tensor
    second: Tensor
    both: Tensor

    @property
    def correlation(self) -> Tensor:
        """Pearson's coefficient, in ``[-1, 1]``; NaN where a number does not vary."""
        return self.both / (self.first.sqrt() * self.second.sqrt())


class Correlation(Statistic):
    """Variances and covariance of pairs of numbers, in float64 and centred batch by batch.

    Args:
        shape: Of one sample of either number.
        device: Where the sums are kept; 40 bytes for each pair.

    Example:
        >>> statistic = Correlation((1,))
        >>> x = torch.tensor([[1.0], [2.0], [4.0]])
        >>> statistic.update(x, 1 - 3 * x)
        >>> round(statistic.compute().correlation.item(), 9)
        -1.0
    """

    def __init__(self, shape: tuple[int, ...], *, device: torch.device | str | None = None) -> None:
        self._count = torch.zeros((), dtype=torch.float64, device=device)
        self._mean = torch.zeros(2, *shape, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(3, *shape, dtype=torch.float64, device=device)

    @property
    def samples(self) -> int:
        """How many samples were seen."""
        return int(self._count)

    def empty(self) -> "Correlation":
        """Return a statistic of the same shape that has seen nothing."""
        return Correlation(tuple(self._mean.shape[1:]), device=self._mean.device)

    def update(self, first: Tensor, second: Tensor) -> None:
        """Take in samples of both numbers, ``(n, *shape)``."""
        if len(first) == 0:
            return
        first, second = first.double(), second.double()
        mean = torch.stack([first.mean(0), second.mean(0)])
        first, second = first - mean[0], second - mean[1]
        self._scatter += torch.stack(
            [first.square().sum(0), second.square().sum(0), (first * second).sum(0)]
        )
        self._move(self._count.new_tensor(len(first)), mean)

    def merge(self, other: "Correlation") -> None:
        """Take in what ``other``, of the same shape, has seen."""
        if other.samples:
            seen = other.state()
            self._scatter += seen["scatter"]
            self._move(seen["count"], seen["mean"])

    def state(self) -> dict[str, Tensor]:
        """Return all sums."""
        return {name: getattr(self, f"_{name}") for name in _NAMES}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state`.

        Raises:
            ArtifactError: It is the state of a statistic of another shape.
        """
        check_names(state, _NAMES)
        if state["mean"].shape != self._mean.shape:
            raise ArtifactError(
                f"this state belongs to a statistic of another shape: "
                f"{tuple(state['mean'].shape[1:])} in it, {tuple(self._mean.shape[1:])} here"
            )
        for name, own in self.state().items():
            own.copy_(state[name])

    def compute(self) -> PairMoments:
        """Return the moments.

        Raises:
            InputError: Nothing was seen.
        """
        if self._count == 0:
            raise InputError("no sample was seen, so there is no correlation")
        return PairMoments(*(self._scatter / self._count))

    def _move(self, count: Tensor, mean: Tensor) -> None:
        """Take ``count`` samples with these means into count and mean, and into the scatter."""
        total = self._count + count
        first, second = step = mean - self._mean
        products = torch.stack([first.square(), second.square(), first * second])
        self._scatter += products * (self._count * count / total)
        self._mean += step * (count / total)
        self._count += count
