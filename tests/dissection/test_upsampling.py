"""Cells to pixels, beside SciPy's spline, torch's interpolation and torch's grid sampling."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RectBivariateSpline
from torch.nn.functional import grid_sample, interpolate
from torch.testing import assert_close

from captum_blackbox.dissection.upsampling import (
    anchored_axis,
    resized_axis,
    upsampled,
    zero_grid_axis,
)
from captum_blackbox.errors import InputError, ShapeError

ANCHORS = st.lists(st.integers(-60, 160), min_size=1, max_size=9, unique=True).map(
    lambda each: torch.tensor(sorted(each), dtype=torch.float64) / 4
)
PIXELS = st.integers(1, 30)
KINDS = {
    "receptive_field": anchored_axis,
    "grid_zeros": zero_grid_axis,
    "resize": lambda anchors, pixels: resized_axis(len(anchors), pixels),
}


def naive_value(cells, anchors, place, zeros):
    """Interpolate at one place by looking for the cells on either side."""
    anchors = anchors.tolist()
    steps = np.diff(anchors) if len(anchors) > 1 else None
    if place < anchors[0]:
        return cells[0] * (max(0, 1 - (anchors[0] - place) / steps[0]) if zeros else 1)
    if place >= anchors[-1]:
        return cells[-1] * (max(0, 1 - (place - anchors[-1]) / steps[-1]) if zeros else 1)
    k = max(i for i, anchor in enumerate(anchors) if anchor <= place)
    share = (place - anchors[k]) / steps[k]
    return (1 - share) * cells[k] + share * cells[k + 1]


@pytest.mark.parametrize("zeros", [False, True])
@given(ANCHORS, PIXELS)
def test_pixels_are_means_of_the_cells_on_either_side(zeros, anchors, pixels):
    if zeros and len(anchors) == 1:
        return
    cells = torch.randn(len(anchors), dtype=torch.float64)
    axis = (zero_grid_axis if zeros else anchored_axis)(anchors, pixels)
    expected = [naive_value(cells.tolist(), anchors, place, zeros) for place in range(pixels)]
    assert_close(axis.matrix() @ cells, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
@given(ANCHORS, PIXELS)
def test_a_pixel_depends_on_the_two_cells_of_its_interval_alone(kind, anchors, pixels):
    axis = KINDS[kind](anchors, pixels)
    matrix = axis.matrix()
    assert (axis.pixels, axis.cells) == matrix.shape == (pixels, len(anchors))
    assert axis.interval.dtype == torch.int64 and axis.weights.dtype == torch.float64
    assert (axis.interval.diff() >= 0).all()
    assert axis.interval.min() >= 0 and axis.interval.max() <= axis.cells
    for pixel, interval in enumerate(axis.interval.tolist()):
        own = [cell for cell in (interval - 1, interval) if 0 <= cell < axis.cells]
        assert matrix[pixel].count_nonzero() == matrix[pixel, own].count_nonzero()
        for side, cell in enumerate((interval - 1, interval)):
            exists = 0 <= cell < axis.cells
            assert axis.weights[pixel, side] == (matrix[pixel, cell] if exists else 0)
    assert (matrix >= 0).all()
    if kind == "grid_zeros":
        assert (matrix.sum(1) <= 1 + 1e-12).all()
    else:
        assert_close(matrix.sum(1), torch.ones(pixels, dtype=torch.float64))


def test_the_receptive_field_is_scipys_linear_spline():
    rows, columns = 8.0 + 8 * torch.arange(13), torch.tensor([-3.0, 2.5, 11.0, 40.0])
    maps = torch.randn(2, 3, 13, 4, dtype=torch.float64)
    found = upsampled(maps, anchored_axis(rows, 113), anchored_axis(columns, 50))
    for i in range(2):
        for k in range(3):
            spline = RectBivariateSpline(rows, columns, maps[i, k], kx=1, ky=1)
            expected = spline(np.arange(113), np.arange(50))
            assert_close(found[i, k], torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(7, 9), (8, 20), (113, 112), (1, 1), (3, 5), (2, 40)])
@pytest.mark.parametrize("cells", [(1, 1), (7, 5), (13, 8)])
def test_resizing_is_torchs_bilinear_interpolation(size, cells):
    maps = torch.randn(2, 3, *cells, dtype=torch.float64)
    found = upsampled(maps, *map(resized_axis, cells, size))
    assert_close(found, interpolate(maps, size, mode="bilinear", align_corners=False))


def test_the_zero_grid_is_torchs_grid_sampling():
    cells, scale, offset, size = (5, 4), (7.0, 3.0), (9.0, -2.0), (50, 31)
    maps = torch.randn(2, 3, *cells, dtype=torch.float64)
    axes, grid = [], []
    for count, step, start, pixels in zip(cells, scale, offset, size, strict=True):
        axes.append(zero_grid_axis(start + step * torch.arange(count), pixels))
        # In units of cells, then from -1 at the first to 1 at the last.
        place = (torch.arange(pixels, dtype=torch.float64) - start) / step
        grid.append(2 * place / (count - 1) - 1)
    grid = torch.stack(torch.meshgrid(*grid, indexing="ij")[::-1], -1).expand(2, -1, -1, -1)
    expected = grid_sample(maps, grid, padding_mode="zeros", align_corners=True)
    assert_close(upsampled(maps, *axes), expected)
    assert (expected == 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_cells_that_are_pixels_stay_as_they_are(kind):
    assert_close(KINDS[kind](torch.arange(6), 6).matrix(), torch.eye(6, dtype=torch.float64))


def test_a_single_cell_fills_the_image_or_fades_over_its_length():
    for kind in ("receptive_field", "resize"):
        assert KINDS[kind](torch.tensor([2]), 4).matrix().tolist() == [[1.0]] * 4
    assert zero_grid_axis(torch.tensor([1]), 4).matrix().tolist() == [[0.75], [1.0], [0.75], [0.5]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_maps_keep_their_device_and_a_dtype_that_is_wide_enough(dtype, device):
    maps = torch.randn(2, 3, 4, 4).to(device, dtype)
    found = upsampled(maps, resized_axis(4, 9), anchored_axis(torch.arange(4), 7))
    assert found.shape == (2, 3, 9, 7) and found.device == maps.device
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = upsampled(maps.cpu().double(), resized_axis(4, 9), anchored_axis(torch.arange(4), 7))
    assert_close(found.cpu().double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis", [anchored_axis, zero_grid_axis])
def test_anchors_that_do_not_ascend_are_refused(axis):
    for anchors in ([1.0, 1.0], [2.0, 1.0], [0.0, float("nan")]):
        with pytest.raises(InputError, match="^the anchors of cells must ascend, got "):
            axis(torch.tensor(anchors), 3)


def test_nothing_to_interpolate_is_refused():
    for make in (
        lambda: anchored_axis(torch.zeros(0), 3),
        lambda: zero_grid_axis(torch.zeros(0), 3),
        lambda: resized_axis(0, 3),
    ):
        with pytest.raises(
            InputError, match="^a map needs cells and pixels, got 0 cells and 3 pixels$"
        ):
            make()
    with pytest.raises(InputError, match="got 3 cells and 0 pixels$"):
        resized_axis(3, 0)


def test_maps_of_another_size_are_refused():
    with pytest.raises(ShapeError, match=r"^expected maps of 2 × 3 cells, got shape \(1, 3, 2\)$"):
        upsampled(torch.zeros(1, 3, 2), resized_axis(2, 4), resized_axis(3, 4))
