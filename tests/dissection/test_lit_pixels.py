"""Lit pixels, found among the active cells alone, beside maps that are upsampled whole."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_blackbox.dissection import lit_pixels as module
from captum_blackbox.dissection.active_cells import ActiveCells
from captum_blackbox.dissection.cell_store import CellStore
from captum_blackbox.dissection.lit_pixels import lit_pixels
from captum_blackbox.dissection.upsampling import (
    anchored_axis,
    resized_axis,
    upsampled,
    zero_grid_axis,
)

MODES = ("receptive_field", "resize", "grid_zeros")


def axis(mode, cells, pixels, first=0, step=1):
    if mode == "resize":
        return resized_axis(cells, pixels)
    make = anchored_axis if mode == "receptive_field" else zero_grid_axis
    return make(first + step * torch.arange(cells), pixels)


def lit_mask(maps, thresholds, rows, columns, cells=None):
    """Gather lit pixels into ``(N, units, H, W)``, and count how often each was found."""
    cells = ActiveCells.above(thresholds, maps) if cells is None else cells
    found = torch.zeros(*maps.shape[:2], rows.pixels * columns.pixels, dtype=torch.int64)
    for lit in lit_pixels(cells, thresholds, rows, columns):
        assert {each.dtype for each in lit} == {torch.int64}
        found.index_put_(tuple(lit), torch.tensor(1), accumulate=True)
    return found.view(*maps.shape[:2], rows.pixels, columns.pixels)


def assert_like_dense(maps, thresholds, rows, columns, cells=None):
    expected = upsampled(maps, rows, columns) > thresholds[:, None, None]
    found = lit_mask(maps, thresholds, rows, columns, cells)
    assert int(found.max()) <= 1
    assert torch.equal(found.bool(), expected)
    return expected


def random_maps(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SIZES = st.tuples(st.integers(1, 5), st.integers(1, 13), st.integers(-9, 9), st.integers(1, 5))


@pytest.mark.parametrize("mode", MODES)
@given(SIZES, SIZES, st.integers(0, 10**6), st.sampled_from([-3.0, -0.5, 0.0, 0.4, 1.5, 9.0]))
def test_they_are_those_of_upsampled_maps(mode, rows, columns, seed, threshold):
    """Also of one cell, of odd sizes, with anchors outside the image or closer than pixels."""
    threshold = max(threshold, 0.0) if mode == "grid_zeros" else threshold
    maps = random_maps(seed, 2, 3, rows[0], columns[0])
    thresholds = threshold + torch.tensor([0.0, 0.1, 0.7], dtype=torch.float64)
    assert_like_dense(maps, thresholds, axis(mode, *rows), axis(mode, *columns))


@pytest.mark.parametrize("mode", MODES)
@given(SIZES, SIZES, st.integers(0, 10**6))
def test_thresholds_that_cells_are_equal_to_light_nothing_at_those_cells(mode, rows, columns, seed):
    """Whole numbers and cells at distances of powers of two: nothing is rounded."""
    rows, columns = ((c, p, first, 2 ** (step % 3)) for c, p, first, step in (rows, columns))
    if mode == "resize":
        rows, columns = ((c, c * step, 0, 0) for c, _, _, step in (rows, columns))
    maps = random_maps(seed, 2, 3, rows[0], columns[0]).mul(2).round()
    thresholds = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    assert_like_dense(maps, thresholds, axis(mode, *rows), axis(mode, *columns))


def test_all_modes_light_something_and_not_everything():
    """The tests above are about something."""
    maps = random_maps(1, 2, 3, 4, 5)
    for mode in MODES:
        rows, columns = axis(mode, 4, 15, 2, 3), axis(mode, 5, 20, 1, 4)
        expected = assert_like_dense(maps, torch.full((3,), 0.3).double(), rows, columns)
        assert 0.05 < float(expected.double().mean()) < 0.7


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("most", [1, 7, 30])
def test_what_is_interpolated_at_a_time_changes_nothing(monkeypatch, mode, most):
    monkeypatch.setattr(module, "_MOST_ELEMENTS", most)
    maps = random_maps(2, 3, 4, 5, 4)
    thresholds = torch.tensor([0.0, 0.2, 0.9, 4.0], dtype=torch.float64)
    assert_like_dense(maps, thresholds, axis(mode, 5, 17, 0, 4), axis(mode, 4, 11, -1, 3))


@pytest.mark.parametrize("mode", ["receptive_field", "resize"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_unit_that_is_constant_is_nowhere_above_its_own_value(mode, dtype):
    """Mixtures of equal values are a rounding error above them: the dense way would light up."""
    values = torch.arange(1, 400, dtype=dtype) / 7
    maps = values[None, :, None, None].expand(1, -1, 4, 4).contiguous()
    rows = columns = axis(mode, 4, 22, 1, 6) if mode != "resize" else resized_axis(4, 22)
    assert bool((upsampled(maps, rows, columns) > values[:, None, None]).any())
    assert not lit_mask(maps, values, rows, columns).any()


def test_a_plateau_at_the_threshold_beside_lower_cells_is_never_above():
    values = torch.arange(1, 400, dtype=torch.float32) / 7
    maps = values[None, :, None, None].repeat(1, 1, 4, 4)
    maps[:, :, :, 2:] -= 1
    rows = columns = resized_axis(4, 22)
    assert not lit_mask(maps, values, rows, columns).any()


def test_cells_below_the_threshold_are_no_hindrance():
    """What a running bound let through, and cells that rose above nothing."""
    maps = random_maps(3, 4, 3, 4, 4)
    thresholds = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    rows, columns = resized_axis(4, 9), resized_axis(4, 10)
    for bound in (-9.0, -0.4, 0.05):
        cells = ActiveCells.above(torch.full((3,), bound).double(), maps)
        assert_like_dense(maps, thresholds, rows, columns, cells)


def test_infinite_thresholds_light_all_or_nothing():
    maps = random_maps(4, 2, 2, 3, 3)
    thresholds = torch.tensor([-torch.inf, torch.inf], dtype=torch.float64)
    found = lit_mask(maps, thresholds, resized_axis(3, 5), resized_axis(3, 5))
    assert found[:, 0].min() == found[:, 0].max() == 1
    assert not found[:, 1].any()


def test_by_hand():
    maps = torch.tensor([[[[0.0, 4.0, 0.0]]]])
    rows, columns = anchored_axis(torch.tensor([0]), 1), anchored_axis(torch.tensor([0, 4, 8]), 9)
    found = lit_mask(maps, torch.tensor([1.0]), rows, columns)
    assert found.flatten().tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0]  # 0 1 2 3 4 3 2 1 0


def test_no_active_cell_gives_no_pixel():
    maps = torch.zeros(2, 3, 4, 4)
    assert not lit_mask(maps, torch.zeros(3), resized_axis(4, 8), resized_axis(4, 8)).any()


def test_active_cells_bring_their_neighbours():
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    cells = ActiveCells.above(torch.tensor([9.5]), maps)
    assert (cells.images.tolist(), cells.units.tolist(), cells.places.tolist()) == (
        [0, 0],
        [0, 0],
        [10, 11],
    )
    assert cells.values[0].tolist() == [[5, 6, 7], [9, 10, 11], [9, 10, 11]]
    assert cells.values[1].tolist() == [[6, 7, 7], [10, 11, 11], [10, 11, 11]]


def test_active_cells_are_numbered_by_image_unit_and_place():
    maps = random_maps(5, 3, 4, 2, 5)
    bound = torch.tensor([0.0, 0.5, -0.5, 1.0], dtype=torch.float64)
    cells = ActiveCells.above(bound, maps)
    at = cells.images.long(), cells.units.long(), cells.places.long()
    assert torch.equal(maps.flatten(2)[at], cells.values[:, 1, 1])
    assert len(cells) == int((maps > bound[:, None, None]).sum())
    parts = [ActiveCells.above(bound, maps[:1]), ActiveCells.above(bound, maps[1:])]
    joined = ActiveCells.joined(parts)
    assert torch.equal(joined.values, cells.values)


# The store of active cells.


def sparse_cells(seed, bound=2.0, units=3):
    maps = random_maps(seed, 4, units, 6, 6)
    bound = torch.full((units,), bound, dtype=torch.float64)
    return ActiveCells.above(bound, maps), maps.numel(), lambda: bound


def stored_bytes(store, batches):
    return sum(
        each.numel() * each.element_size()
        for batch in range(batches)
        if store.find(batch) is not None
        for each in store.find(batch).tensors()
    )


@pytest.mark.parametrize("most", [0, 500, 3000, 10**6])
def test_a_store_never_holds_more_than_it_may(most):
    store = CellStore(most)
    bounds = torch.linspace(1.4, 3.0, 30).tolist()
    kept = []
    for batch, bound in enumerate(bounds):
        store.keep(batch, *sparse_cells(batch, bound))
        kept.append(store.find(batch) is not None)
        assert stored_bytes(store, batch + 1) <= most
    assert sum(kept) == {0: 0, 10**6: 30}.get(most, sum(kept))
    assert sum(kept) > 0 or most == 0


def test_a_rising_bound_makes_room():
    cells, total, bound = sparse_cells(0, 1.5)
    size = sum(each.numel() * each.element_size() for each in cells.tensors())
    store = CellStore(size + 10)
    store.keep(0, cells, total, bound)
    fewer, total, higher = sparse_cells(1, 2.2)
    store.keep(1, fewer, total, higher)
    assert store.find(1) is not None
    assert torch.equal(store.find(0).values, cells.still_above(higher()).values)


def test_what_does_not_fit_leaves_what_is_there():
    first, total, bound = sparse_cells(0)
    size = sum(each.numel() * each.element_size() for each in first.tensors())
    store = CellStore(size)
    store.keep(0, first, total, bound)
    store.keep(1, *sparse_cells(1))
    assert store.find(1) is None
    assert len(store.find(0)) == len(first)


def test_dense_batches_are_not_worth_their_memory():
    store = CellStore(10**9)
    maps = torch.arange(100.0).view(1, 1, 10, 10)
    for batch, (bound, is_kept) in enumerate([(88.0, False), (89.0, True)]):  # 11 %, 10 %
        bound = torch.tensor([bound])
        store.keep(batch, ActiveCells.above(bound, maps), maps.numel(), bound.clone)
        assert (store.find(batch) is not None) == is_kept


def test_a_store_on_disk_holds_no_more_than_the_one_that_wrote_it():
    """Cells are written once, while the bound is low, and taken up when it is high."""
    bounds = torch.linspace(1.4, 3.2, 25).tolist()
    store, files = CellStore(4000), []
    for batch, bound in enumerate(bounds):
        cells, total, last = sparse_cells(batch, bound)
        store.keep(batch, cells, total, last)
        files.append({name: tensor.clone() for name, tensor in store.unsaved().items()})
    written = sum(t.numel() * t.element_size() for file in files for t in file.values())
    assert written > 4000
    again = CellStore(4000)
    for file in files:
        again.load(file, 20, last())
    assert 0 < stored_bytes(again, 25) <= 4000
    for batch in range(25):
        assert (again.find(batch) is not None) == (store.find(batch) is not None and batch < 20)
        if again.find(batch) is not None:
            left = store.find(batch).still_above(last())
            assert torch.equal(again.find(batch).values, left.values)
    assert all(len(set(one) & set(two)) == 0 for one, two in pairwise(files))
