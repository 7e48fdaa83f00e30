"""The pixels where upsampled feature maps are above a threshold, without upsampling the rest."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from captum_blackbox.dissection.active_cells import ActiveCells
from captum_blackbox.dissection.upsampling import Axis

_MOST_ELEMENTS = 1 << 18  # interpolated at a time: what a processor's cache holds


class LitPixels(NamedTuple):
    """Pixels that are above the threshold of a unit.

    Attributes:
        images: Position of the image in the batch, ``(n,)`` int64.
        units: ``(n,)`` int64.
        pixels: Row times width plus column, ``(n,)`` int64.
    """

    images: Tensor
    units: Tensor
    pixels: Tensor


def lit_pixels(
    cells: ActiveCells, thresholds: Tensor, rows: Axis, columns: Axis
) -> Iterator[LitPixels]:
    """Yield the pixels where upsampled maps are above the threshold of their unit, each once.

    Only patches, the pixels between four cells, that have a corner above the threshold are
    interpolated. With thresholds below 0 and weights that sum to less than 1, pixels far from any
    cell would be above them as well; such are not found.

    Args:
        cells: At least those above their threshold.
        thresholds: ``(units,)``, of the maps' dtype.
        rows: How rows of cells become rows of pixels.
        columns: The same for columns.

    Example:
        >>> from captum_blackbox.dissection.upsampling import anchored_axis
        >>> maps = torch.tensor([[[[0.0, 4.0]]]])
        >>> cells = ActiveCells.above(torch.tensor([1.5]), maps)
        >>> rows, columns = (anchored_axis(torch.arange(n) * 4, 4 * n - 3) for n in (1, 2))
        >>> [lit.pixels.tolist() for lit in lit_pixels(cells, torch.tensor([1.5]), rows, columns)]
        [[4], [2, 3]]
    """
    cells = cells.still_above(thresholds)
    limit = thresholds[cells.units.long()]
    owner, patch_row, patch_column, corners = _patches(cells, limit, rows.cells, columns.cells)
    down, across = _Intervals(rows, cells.values), _Intervals(columns, cells.values)
    limit = limit[owner, None, None]
    images, units = cells.images.long()[owner], cells.units.long()[owner]
    first = down.starts[patch_row] * columns.pixels + across.starts[patch_column]
    heights, widths = down.lengths[patch_row], across.lengths[patch_column]
    for height, width in product(down.distinct(), across.distinct()):
        group = ((heights == height) & (widths == width)).nonzero()[:, 0]
        inner = torch.arange(height, device=first.device)[:, None] * columns.pixels
        inner = (inner + torch.arange(width, device=first.device)).flatten()
        for some in group.split(max(1, _MOST_ELEMENTS // (height * width))):
            values = _interpolated(
                corners.index_select(0, some),
                down.weights.index_select(0, patch_row[some])[:, :height],
                across.weights.index_select(0, patch_column[some])[:, :width],
            )
            above = values > limit.index_select(0, some)
            local, place = above.flatten(1).nonzero().unbind(1)
            patch = some.index_select(0, local)
            yield LitPixels(
                images.index_select(0, patch),
                units.index_select(0, patch),
                first.index_select(0, patch) + inner.index_select(0, place),
            )


def _interpolated(corners: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Mix ``(n, 2, 2)`` corners by ``(n, height, 2)`` and ``(n, width, 2)`` weights."""
    left = down[..., 0] * corners[:, 0, 0, None] + down[..., 1] * corners[:, 1, 0, None]
    right = down[..., 0] * corners[:, 0, 1, None] + down[..., 1] * corners[:, 1, 1, None]
    mixed = left[:, :, None] * across[:, None, :, 0]
    return mixed.addcmul_(right[:, :, None], across[:, None, :, 1])


def _patches(
    cells: ActiveCells, limit: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return each patch with a corner above the limit once: owner, row, column and its corners.

    The patch in row ``r`` lies between the rows ``r - 1`` and ``r`` of cells. It belongs to the
    first of its corners, in reading order, that is above the limit.
    """
    row, column = cells.places.long() // width, cells.places.long() % width
    around = torch.arange(-1, 2, device=row.device)
    rows, columns = row[:, None] + around, column[:, None] + around
    exists = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    above = (cells.values > limit[:, None, None]) & exists
    found = []
    for corner in range(4):  # which one of the four the cell itself is
        from_row, from_column = 1 - corner // 2, 1 - corner % 2
        window = (slice(None), slice(from_row, from_row + 2), slice(from_column, from_column + 2))
        owner = (~above[window].flatten(1)[:, :corner].any(1)).nonzero()[:, 0]
        found.append(
            (
                owner,
                row[owner] + from_row,
                column[owner] + from_column,
                cells.values[window][owner],
            )
        )
    owners, patch_rows, patch_columns, corners = zip(*found, strict=True)
    return torch.cat(owners), torch.cat(patch_rows), torch.cat(patch_columns), torch.cat(corners)


class _Intervals:
    """The pixels between neighbouring cells along an axis, as tables."""

    def __init__(self, axis: Axis, like: Tensor) -> None:
        numbers = torch.arange(axis.cells + 1)
        self.starts = torch.searchsorted(axis.interval, numbers)
        self.lengths = torch.searchsorted(axis.interval, numbers, right=True) - self.starts
        longest = max(int(self.lengths.max()), 1)
        pixels = (self.starts[:, None] + torch.arange(longest)).clamp_(max=axis.pixels - 1)
        self.weights = axis.weights[pixels].to(like)  # beyond an interval's length: never read
        self.starts, self.lengths = self.starts.to(like.device), self.lengths.to(like.device)

    def distinct(self) -> list[int]:
        """Return the different lengths of intervals that have a pixel."""
        return [length for length in self.lengths.unique().tolist() if length > 0]
