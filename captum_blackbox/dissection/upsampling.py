"""From the cells of a map to the pixels of an image, one axis after the other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError


@dataclass(frozen=True, eq=False)
class Axis:
    """How cells along one axis of a map become pixels, each a mean of at most two neighbours.

    Attributes:
        cells: How many there are.
        interval: How many cells have their anchor at or before a pixel, ``(pixels,)`` int64 in
            ``0..cells`` and never decreasing; pixel ``p`` depends on cells ``interval[p] - 1`` and
            ``interval[p]`` alone.
        weights: Of these two cells, ``(pixels, 2)`` float64; 0 for a cell that does not exist.

    Example:
        >>> resized_axis(2, 4).matrix()
        tensor([[1.0000, 0.0000],
                [0.7500, 0.2500],
                [0.2500, 0.7500],
                [0.0000, 1.0000]], dtype=torch.float64)
    """

    cells: int
    interval: Tensor
    weights: Tensor

    @property
    def pixels(self) -> int:
        """How many pixels there are."""
        return len(self.interval)

    def matrix(self) -> Tensor:
        """Return the weight of every cell in every pixel, ``(pixels, cells)`` float64."""
        padded = self.weights.new_zeros(self.pixels, self.cells + 2)  # a column for either end
        padded.scatter_(1, torch.stack([self.interval, self.interval + 1], 1), self.weights)
        return padded[:, 1:-1]


def anchored_axis(anchors: Tensor, pixels: int) -> Axis:
    """Interpolate linearly between the anchors of cells, and hold the outermost value outside.

    This is how Network Dissection puts a cell at the centre of its receptive field
    (``upsample="receptive_field"``): Bau, Zhou et al., "Network dissection", CVPR 2017, sec. 2.3.

    Args:
        anchors: Where each cell lies, in pixels, ascending; pixel ``p`` lies at ``p``.
        pixels: How many there are.

    Raises:
        InputError: The anchors do not ascend, or there are none.

    Example:
        >>> anchored_axis(torch.tensor([1, 3]), 5).matrix()[:, 1]
        tensor([0.0000, 0.0000, 0.5000, 1.0000, 1.0000], dtype=torch.float64)
    """
    anchors = _checked(anchors, pixels)
    far = anchors.new_tensor([torch.inf])
    interval, share = _between(torch.cat([-far, anchors, far]), pixels)
    # Between a cell and infinity all weight is the cell's.
    share = torch.where(interval == 0, 1.0, torch.where(interval == len(anchors), 0.0, share))
    return Axis(len(anchors), interval, torch.stack([1 - share, share], 1))


def resized_axis(cells: int, pixels: int) -> Axis:
    """Stretch a map over the pixels as images are resized (``upsample="resize"``).

    Bilinear with the centres of cells at half-pixels, as
    ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``; also where the map is
    larger than the image, without smoothing it before (no antialiasing).

    Args:
        cells: How many there are.
        pixels: How many there are.

    Raises:
        InputError: There are no cells or no pixels.
    """
    _check_sizes(cells, pixels)
    # Where a pixel lies among the cells, in units of 1 / (2 pixels): integers do not round.
    place = (2 * torch.arange(pixels) + 1) * cells - pixels
    place = place.clamp(0, 2 * pixels * (cells - 1))
    interval = place // (2 * pixels) + 1
    share = (place % (2 * pixels)).double() / (2 * pixels)
    return Axis(cells, interval, torch.stack([1 - share, share], 1))


def zero_grid_axis(anchors: Tensor, pixels: int) -> Axis:
    """Interpolate linearly between anchors as if there were cells of value 0 around the map.

    The value fades to 0 within one cell outside the outermost anchors and is 0 beyond, as in
    ``davidbau/dissect`` (``upsample="grid_zeros"``), which samples a grid with zero padding. We
    depart from it where it errs: it places its grid by the centres of the corner cells and samples
    it by their edges with a recent torch, which stretches the map. Of a single cell, which has no
    neighbour to take the distance from, the distance is the length of the axis.

    Args:
        anchors: Where each cell lies, in pixels, ascending.
        pixels: How many there are.

    Raises:
        InputError: The anchors do not ascend, or there are none.

    Example:
        >>> zero_grid_axis(torch.tensor([2, 4]), 7).matrix().sum(1)
        tensor([0.0000, 0.5000, 1.0000, 1.0000, 1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    anchors = _checked(anchors, pixels)
    steps = anchors.diff() if len(anchors) > 1 else anchors.new_tensor([pixels])
    ends = anchors[:1] - steps[:1], anchors[-1:] + steps[-1:]
    interval, share = _between(torch.cat([ends[0], anchors, ends[1]]), pixels)
    weights = torch.stack([1 - share, share], 1).clamp(min=0)
    weights[interval == 0, 0] = 0
    weights[interval == len(anchors), 1] = 0
    return Axis(len(anchors), interval, weights)


def upsampled(maps: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Return maps ``(…, h, w)`` at the pixels ``(…, H, W)`` of two axes.

    Two matrix products, on the device and in the dtype of the maps (float32 for narrower ones).

    Raises:
        ShapeError: The maps have other numbers of cells than the axes.

    Example:
        >>> upsampled(torch.tensor([[0.0, 4.0]]), resized_axis(1, 1), resized_axis(2, 4))
        tensor([[0., 1., 3., 4.]])
    """
    if maps.shape[-2:] != (rows.cells, columns.cells):
        raise ShapeError(
            f"expected maps of {rows.cells} × {columns.cells} cells, got shape {tuple(maps.shape)}"
        )
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return rows.matrix().to(maps) @ (maps @ columns.matrix().to(maps).T)


def _between(anchors: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Return between which two anchors pixels lie, the outermost apart, and how far along."""
    places = torch.arange(pixels, dtype=anchors.dtype)
    interval = torch.searchsorted(anchors[1:-1].contiguous(), places, right=True)
    before, behind = anchors[interval], anchors[interval + 1]
    return interval, (places - before) / (behind - before)


def _checked(anchors: Tensor, pixels: int) -> Tensor:
    _check_sizes(len(anchors), pixels)
    anchors = anchors.double().cpu()
    if not bool((anchors.diff() > 0).all()):
        raise InputError(f"the anchors of cells must ascend, got {anchors.tolist()}")
    return anchors


def _check_sizes(cells: int, pixels: int) -> None:
    if cells < 1 or pixels < 1:
        raise InputError(f"a map needs cells and pixels, got {cells} cells and {pixels} pixels")
