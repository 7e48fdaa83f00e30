"""The images to which each unit answers most."""

from collections.abc import Mapping

import torch
from torch import Tensor

from captum_blackbox.statistics.running import Statistic, check_names


class TopImages(Statistic):
    """The numbers of the images with the largest values of each unit; ties go to smaller numbers.

    Args:
        images: How many to keep for each unit.
        dtype: Of the values.

    Example:
        >>> top = TopImages(2)
        >>> top.update(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]))
        >>> top.update(torch.tensor([[2.0]]), torch.tensor([2]))
        >>> top.compute()
        (tensor([[1, 2]]), tensor([[3., 2.]]))
    """

    def __init__(self, images: int, dtype: torch.dtype = torch.float32) -> None:
        self.images, self.dtype = images, dtype
        self._numbers = torch.empty(0, 0, dtype=torch.int64)  # (units, up to `images`)
        self._values = torch.empty(0, 0, dtype=dtype)

    def empty(self) -> "TopImages":
        """Return one of the same settings that has seen nothing."""
        return TopImages(self.images, self.dtype)

    def update(self, values: Tensor, numbers: Tensor) -> None:
        """Take in values ``(N, units)`` of images with these numbers, ``(N,)``."""
        each = numbers.to(values.device).expand(values.shape[1], -1)
        self._take(each, values.T.to(self.dtype))

    def _take(self, numbers: Tensor, values: Tensor) -> None:
        if self._numbers.numel():
            numbers = torch.cat([self._numbers.to(numbers.device), numbers], 1)
            values = torch.cat([self._values.to(values), values], 1)
        by_number = numbers.argsort(1)
        numbers, values = numbers.gather(1, by_number), values.gather(1, by_number)
        by_value = values.sort(dim=1, descending=True, stable=True).indices[:, : self.images]
        self._numbers, self._values = numbers.gather(1, by_value), values.gather(1, by_value)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the numbers and their values, both ``(units, n)``, largest value first."""
        return self._numbers, self._values

    def merge(self, other: "TopImages") -> None:
        """Take in what ``other`` has seen."""
        numbers, values = other.compute()
        if numbers.numel():
            self._take(numbers, values)

    def state(self) -> dict[str, Tensor]:
        """Return numbers and values."""
        return {"numbers": self._numbers, "values": self._values}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state`."""
        check_names(state, ["numbers", "values"])
        self._numbers, self._values = state["numbers"].clone(), state["values"].clone()
