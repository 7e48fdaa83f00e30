"""The cells of feature maps that are above a bound: all that thresholded maps depend on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_blackbox.statistics import places_above


@dataclass(frozen=True)
class ActiveCells:
    """Cells of a batch of maps, each with its neighbours.

    An upsampled pixel is a mixture of the four cells around it, so it can be above a bound only if
    one of them is. Memory: 48 bytes a cell in float32.

    Attributes:
        images: Position in the batch of each cell's image, ``(n,)`` int32, ascending.
        units: ``(n,)`` int32.
        places: Row times width plus column, ``(n,)`` int32.
        values: The cell amid its neighbours, ``(n, 3, 3)``; beyond the edge of the map stands the
            nearest cell.
    """

    images: Tensor
    units: Tensor
    places: Tensor
    values: Tensor

    @staticmethod
    def above(bound: Tensor, maps: Tensor) -> "ActiveCells":
        """Return the cells of ``maps`` ``(N, units, h, w)`` above the bound of their unit.

        Example:
            >>> maps = torch.tensor([[[[0.0, 1.0, 2.0, 5.0]]]])
            >>> cells = ActiveCells.above(torch.tensor([2.0]), maps)
            >>> cells.places, cells.values[0, 1]
            (tensor([3], dtype=torch.int32), tensor([2., 5., 5.]))
        """
        units, height, width = maps.shape[1:]
        before, place = places_above(maps.flatten(2), bound)
        around = torch.arange(-1, 2, device=maps.device)
        rows = (place.div(width, rounding_mode="floor")[:, None] + around).clamp_(0, height - 1)
        columns = (place.remainder(width)[:, None] + around).clamp_(0, width - 1)
        starts = before[:, None] * (height * width) + rows * width
        values = maps.flatten()[starts[:, :, None] + columns[:, None, :]]
        return ActiveCells((before // units).int(), (before % units).int(), place.int(), values)

    @staticmethod
    def joined(parts: Sequence["ActiveCells"]) -> "ActiveCells":
        """Return the cells of all ``parts``."""
        columns = zip(*(part.tensors() for part in parts), strict=True)
        return ActiveCells(*(torch.cat(column) for column in columns))

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.images)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the attributes in order."""
        return self.images, self.units, self.places, self.values

    def chosen(self, which: Tensor) -> "ActiveCells":
        """Return some of the cells, by a mask or by positions."""
        return ActiveCells(*(each[which] for each in self.tensors()))

    def still_above(self, bound: Tensor) -> "ActiveCells":
        """Return those of the cells that are above another bound, ``(units,)``."""
        return self.chosen(self.values[:, 1, 1] > bound[self.units.long()])

    def to(self, device: torch.device | str) -> "ActiveCells":
        """Return the same cells on a device."""
        return ActiveCells(*(each.to(device) for each in self.tensors()))
