"""How much of a sum's variance each of its two summands brings, in one pass over the data."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from captum_blackbox.errors import InputError
from captum_blackbox.statistics.running import Statistic, check_names

_PART_BYTES = 16 * 2**20  # of a summand that are taken in at a time; five times as much is held
_NAMES = ("count", "shift", "sums", "products")


class SummandShares(Statistic):
    """The share of each of two summands in the variance of their sum, per channel.

    For ``y = x_1 + x_2`` the pattern of summand ``i`` is ``cov[x_i, y] / var[y]``: the linear
    estimator of a unit whose weight is 1. The two shares add up to 1. Axis 1 holds the channels,
    everything else is a sample. Sums are kept in float64, relative to the means of the first batch.

    Example:
        >>> shares = SummandShares()
        >>> first = torch.tensor([[1.0], [-1.0]])
        >>> shares.update(first, 3 * first)
        >>> shares.compute()
        tensor([[0.2500],
                [0.7500]], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self._state = {name: torch.zeros(0, dtype=torch.float64) for name in _NAMES}

    def empty(self) -> "SummandShares":
        """Return one that has seen nothing."""
        return SummandShares()

    def update(self, first: Tensor, second: Tensor) -> None:
        """Take in two summands ``(n, channels, …)`` of one shape.

        Raises:
            InputError: Some value is NaN or infinite.
        """
        if first.numel() == 0:
            return
        parts = max(1, _PART_BYTES // (4 * first[0].numel()))
        for one, two in zip(first.split(parts), second.split(parts), strict=True):
            self._take_in(_by_channel(one), _by_channel(two))

    def _take_in(self, one: Tensor, two: Tensor) -> None:
        if self._seen:
            shift = self._state["shift"]
        else:
            shift = torch.stack([each.mean((0, 2), dtype=torch.float64) for each in (one, two)])
        # What is left is small, so that sums in the dtype of the data are exact enough.
        one, two = (each - by[:, None].to(each) for each, by in zip((one, two), shift, strict=True))
        all_sums, all_products = (
            torch.stack([each.sum((0, 2)).double() for each in group])
            for group in ((one, two), (one * one, one * two, two * two))
        )
        if not bool(all_products.isfinite().all()):
            raise InputError("a summand has a value that is NaN or infinite")
        if not self._seen:
            self._start(shift)
        self._state["count"] += one.shape[0] * one.shape[2]
        self._state["sums"] += all_sums
        self._state["products"] += all_products

    def merge(self, other: "SummandShares") -> None:
        """Take in what ``other`` has seen."""
        theirs = other.state()
        if theirs["shift"].numel() == 0:
            return
        if not self._seen:
            self._start(theirs["shift"])
        theirs = {name: each.to(self._state["shift"]) for name, each in theirs.items()}
        # Their sums, relative to our shift.
        moved, count, sums = theirs["shift"] - self._state["shift"], theirs["count"], theirs["sums"]
        products = torch.stack(
            [
                theirs["products"][k]
                + moved[i] * sums[j]
                + moved[j] * sums[i]
                + count * moved[i] * moved[j]
                for k, (i, j) in enumerate([(0, 0), (0, 1), (1, 1)])
            ]
        )
        self._state["count"] += count
        self._state["sums"] += sums + count * moved
        self._state["products"] += products

    def state(self) -> dict[str, Tensor]:
        """Return all that was gathered."""
        return dict(self._state)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state`."""
        check_names(state, _NAMES)
        self._state = {name: each.clone() for name, each in state.items()}

    def compute(self) -> Float[Tensor, "2 channels"]:
        """Return the shares; one half each where the sum never varies.

        Raises:
            InputError: There was no batch.
        """
        if not self._seen:
            raise InputError("no sum was seen, so its summands have no shares")
        count, sums = self._state["count"], self._state["sums"]
        first, both, second = self._state["products"]
        first = first - sums[0] * sums[0] / count
        both = both - sums[0] * sums[1] / count
        second = second - sums[1] * sums[1] / count
        variance = first + 2 * both + second
        # Below the rounding of its parts, a variance is none.
        none = variance <= 1e-12 * (first + second)
        share = torch.where(none, 0.5, (first + both) / torch.where(none, 1.0, variance))
        return torch.stack([share, 1 - share])

    @property
    def _seen(self) -> bool:
        return self._state["shift"].numel() > 0

    def _start(self, shift: Tensor) -> None:
        self._state = {
            "count": shift.new_zeros(1),
            "shift": shift.clone(),
            "sums": torch.zeros_like(shift),
            "products": shift.new_zeros(3, shift.shape[1]),
        }


def _by_channel(summand: Tensor) -> Tensor:
    """Return ``(n, channels, positions)``, in float32 or wider."""
    kind = torch.promote_types(summand.dtype, torch.float32)
    return summand.detach().to(kind).reshape(*summand.shape[:2], -1)
