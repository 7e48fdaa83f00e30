"""The largest values of each unit: exact high quantiles of a stream of known length."""

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from captum_blackbox.errors import ArtifactError, InputError
from captum_blackbox.statistics.above import places_above
from captum_blackbox.statistics.running import Statistic, check_names

Interpolation: TypeAlias = Literal["linear", "higher"]
"""Between two of the sorted values, as in NumPy: a mixture of both, or the larger one."""

_MOST_SORTED = 1 << 22  # values at a time


class TopFraction(Statistic):
    """The largest values of each unit, from which quantiles close to 1 follow exactly.

    Of a stream of ``n`` values only the top ``1 - level`` are needed for the quantile at
    ``level``; a value that is not above :attr:`bound` can be forgotten at once. Memory: twice the
    capacity, for each unit.

    Args:
        capacity: How many values to keep for each unit; see :meth:`capacity_for`.
        dtype: Of the values.

    Raises:
        InputError: The capacity is below 1.

    Example:
        >>> values = torch.rand(1000, 3)  # of 3 units
        >>> top = TopFraction(TopFraction.capacity_for(1000, level=0.99))
        >>> for batch in values.split(100):
        ...     top.update(batch[:, :, None])
        >>> expected = values.double().quantile(0.99, dim=0)
        >>> torch.allclose(top.quantile(0.99), expected)
        True
    """

    def __init__(self, capacity: int, dtype: torch.dtype = torch.float32) -> None:
        if capacity < 1:
            raise InputError(f"the capacity is at least 1, got {capacity}")
        self.capacity, self.dtype = capacity, dtype
        self.count = 0
        self._kept = torch.empty(0, 0, dtype=dtype)  # (units, up to twice the capacity)
        self._filled = torch.empty(0, dtype=torch.int64)  # (units,): so many from the left
        self._bound = torch.empty(0, dtype=dtype)

    @staticmethod
    def capacity_for(count: int, level: float) -> int:
        """Return how many of the largest of ``count`` values the quantile at ``level`` needs.

        Example:
            >>> TopFraction.capacity_for(1000, level=0.99)  # positions 989 and 990 of 0 ... 999
            11
        """
        return count - math.floor(_position(count, level))

    @property
    def bound(self) -> Tensor:
        """Of each unit, ``(units,)``: no final quantile at the level can be below; -inf at first.

        It holds for the level that the capacity was made for.
        """
        return self._bound

    def tight_bound(self) -> Tensor:
        """Return the highest :attr:`bound` that follows from what was seen, ``(units,)``."""
        self._compact()
        return self._bound

    def empty(self) -> "TopFraction":
        """Return one of the same capacity that has seen nothing."""
        return TopFraction(self.capacity, self.dtype)

    def update(self, values: Tensor) -> None:
        """Take in values ``(N, units, P)``: ``N * P`` of each unit.

        Raises:
            InputError: A value is not a finite number; the unit is named.
        """
        units = values.shape[1]
        values = values.to(self.dtype)
        _check_finite(values)
        if self._kept.numel() == 0:
            self._start(values.new_empty(units, 0))
        elif self._kept.device != values.device:  # after a state was loaded
            self._kept = self._kept.to(values.device)
            self._filled = self._filled.to(values.device)
            self._bound = self._bound.to(values.device)
        if self._bound.isinf().any():
            self._take_all(values)
        else:
            self._take_above_bound(values)
        self.count += values.shape[0] * values.shape[2]
        if self._bound.isinf().any() and self.count >= self.capacity:
            self._compact()

    def _start(self, kept: Tensor) -> None:
        """Begin with values that are kept, ``(units, n)``, of which there are enough or all."""
        units, columns = kept.shape
        # Beside what is kept there is always room for as much again.
        self._kept = kept.new_full((units, 2 * self.capacity), -math.inf)
        self._kept[:, :columns] = kept
        self._filled = torch.full((units,), columns, device=kept.device)
        is_full = columns >= self.capacity
        self._bound = kept.amin(1) if is_full else kept.new_full((units,), -math.inf)

    def _take_all(self, values: Tensor) -> None:
        each = values.transpose(0, 1).flatten(1)
        self._take(each if each.shape[1] <= self.capacity else each.topk(self.capacity).values)

    def _take(self, each: Tensor) -> None:
        """Append as many values of each unit, ``(units, n)``."""
        if int(self._filled.max()) + each.shape[1] > self._kept.shape[1]:
            self._compact()
        places = self._filled[:, None] + torch.arange(each.shape[1], device=each.device)
        self._kept.scatter_(1, places, each)
        self._filled += each.shape[1]

    def _take_above_bound(self, values: Tensor) -> None:
        units = values.shape[1]
        row, place = places_above(values, self._bound)
        unit = row % units
        found = torch.bincount(unit, minlength=units)
        most = int(found.max())
        if most > self.capacity:
            self._take_all(values)
            return
        if int((self._filled + found).max()) > self._kept.shape[1]:
            self._compact()
        order = unit.argsort()
        unit, above = unit[order], (row * values.shape[2] + place)[order]
        within = torch.arange(len(unit), device=unit.device) - (found.cumsum(0) - found)[unit]
        self._kept[unit, self._filled[unit] + within] = values.flatten().index_select(0, above)
        self._filled += found

    def _compact(self) -> None:
        """Forget all but the largest; where there are enough of them, the bound rises."""
        most = int(self._filled.max())
        columns = min(most, self.capacity)
        place = torch.arange(most, device=self._kept.device)
        few = max(1, _MOST_SORTED // max(most, 1))  # in place: nothing as large is made beside
        for kept, filled in zip(self._kept.split(few), self._filled.split(few), strict=True):
            values = kept[:, :most].masked_fill_(place >= filled[:, None], -math.inf)
            kept[:, :columns] = values.topk(columns).values
        self._filled.fill_(columns)
        if columns == self.capacity:
            self._bound = self._kept[:, columns - 1].clone()

    def quantile(self, level: float, interpolation: Interpolation = "linear") -> Tensor:
        """Return the quantile at ``level`` in [0, 1] of each unit, ``(units,)`` float64.

        Args:
            level: At least the one that the capacity was made for.
            interpolation: Between the two values beside the quantile's position, as in
                ``numpy.quantile``. With ``"higher"``, at most ``1 - level`` of the values are
                larger.

        Raises:
            InputError: Nothing was seen, or the level needs more values than are kept.
        """
        if self.count == 0:
            raise InputError("nothing was seen yet, so there is no quantile")
        needed = self.capacity_for(self.count, level)
        if needed > min(self.capacity, self.count):
            raise InputError(
                f"the quantile at {level} of {self.count} values needs the {needed} largest; the "
                f"capacity is {self.capacity}"
            )
        self._compact()
        position = _position(self.count, level)
        below, share = math.floor(position), position - math.floor(position)
        low, high = (self._kept[:, rank].double() for rank in (needed - 1, max(needed - 2, 0)))
        if interpolation == "higher":
            return low if position == below else high
        return low + (high - low) * share

    def merge(self, other: "TopFraction") -> None:
        """Take in what ``other``, of the same capacity, has seen."""
        if other.count == 0:
            return
        theirs = other.state()["largest"]
        if self.count == 0:
            self._start(theirs.clone())
        else:
            self._take(theirs.to(self._kept))
            self._compact()
        self.count += other.count

    def state(self) -> dict[str, Tensor]:
        """Return the largest values of each unit and how many were seen."""
        if self._kept.numel():
            self._compact()
        kept = self._kept[:, : min(self.count, self.capacity)]
        return {"largest": kept, "count": torch.tensor([self.count, self.capacity])}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state`.

        Raises:
            ArtifactError: It belongs to another capacity.
        """
        check_names(state, ["largest", "count"])
        count, capacity = state["count"].tolist()
        if capacity != self.capacity:
            raise ArtifactError(
                f"this state keeps {capacity} values of each unit, expected {self.capacity}"
            )
        self.count = count
        if count:
            self._start(state["largest"].clone())
        else:
            self._kept, self._bound = self._kept.new_empty(0, 0), self._bound.new_empty(0)


def _position(count: int, level: float) -> float:
    """Return where a quantile lies among sorted values, counted from 0."""
    position = (count - 1) * level
    # 0.07 * 100 is 7, also where it is 7.000000000000001.
    return float(round(position)) if abs(position - round(position)) < 1e-9 else position


def _check_finite(values: Tensor) -> None:
    # A sum of numbers is a number, short of overflow: one quick look, and a close one in doubt.
    if not bool(values.sum().isfinite()):
        wrong = (~values.isfinite()).any(2).any(0).nonzero().flatten().tolist()
        if wrong:
            raise InputError(
                f"unit {wrong[0]} has values that are not finite ({len(wrong)} of "
                f"{values.shape[1]} units have); look for NaN in the images and the weights"
            )
