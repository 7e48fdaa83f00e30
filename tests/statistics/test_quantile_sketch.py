"""The quantile sketch beside NumPy's quantile, and the rank error that it promises."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from captum_blackbox.errors import ArtifactError, InputError, ShapeError
from captum_blackbox.statistics import QuantileSketch

LEVELS = [0.0, 0.1, 0.25, 0.5, 0.9, 0.995, 1.0]


def fed(sketch, values, size=1000):
    for batch in values.split(size, 1):
        sketch.update(batch)
    return sketch


def naive(values, q):
    return torch.from_numpy(np.quantile(values.double().numpy(), q, axis=1))


def shuffled(units, n, seed=0):
    """Values that are their own ranks."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(n, generator=generator) for _ in range(units)]
    return torch.stack(rows).float()


def rank_error(sketch, q, n):
    """Return by which share of all values the rank misses, of each unit."""
    return (sketch.quantile(q) - q * (n - 1)).abs() / n


def assert_same_state(one, other):
    assert_close(one.state(), other.state(), rtol=0, atol=0)


@given(st.integers(1, 40), st.integers(1, 9), st.floats(0, 1))
def test_up_to_the_resolution_quantiles_are_exact(n, size, q):
    values = torch.randn(3, n).round(decimals=1)
    sketch = fed(QuantileSketch(3, resolution=40), values, size)
    assert_close(sketch.quantile(q), naive(values, q), rtol=1e-12, atol=1e-12)
    assert sketch.count == n


@pytest.mark.parametrize("n", [100, 1000, 5001])
def test_among_the_largest_half_buffer_quantiles_are_exact_however_many_there_are(n):
    values = torch.randn(4, n)
    sketch = fed(QuantileSketch(4, resolution=64), values, 70)
    for rank in range(n - 32, n):
        expected = values.double().sort(1).values[:, rank]
        assert_close(sketch.quantile(rank / (n - 1)), expected, rtol=1e-6, atol=1e-6)


def test_the_rank_error_at_the_top_is_within_a_fiftieth_of_the_fraction():
    n, units = 1_000_000, 4
    sketch = fed(QuantileSketch(units), shuffled(units, n), 5000)
    for fraction in (0.005, 0.01, 0.001):
        assert rank_error(sketch, 1 - fraction, n).max() <= fraction / 50
    assert rank_error(sketch, 0.5, n).max() < 1e-3
    assert sketch.state()["values"].shape[1] < 29_000


@pytest.mark.slow
def test_the_rank_error_does_not_grow_with_the_stream():
    n, units = 10_000_000, 4
    sketch = fed(QuantileSketch(units), shuffled(units, n), 50_000)
    assert rank_error(sketch, 0.995, n).max() <= 1e-4


def test_sorted_streams_have_the_same_error():
    n = 300_000
    ascending = torch.arange(n).float()
    values = torch.stack([ascending, ascending.flip(0)])
    sketch = fed(QuantileSketch(2, resolution=1024), values, 5000)
    assert rank_error(sketch, 0.995, n).max() < 3e-4
    assert rank_error(sketch, 0.5, n).max() < 3e-3


def test_a_coarser_sketch_is_as_wrong_as_promised():
    n, resolution = 50_000, 128
    errors = torch.cat(
        [
            rank_error(
                fed(QuantileSketch(4, resolution=resolution, seed=seed), shuffled(4, n, seed), n),
                0.95,
                n,
            )
            for seed in range(6)
        ]
    )
    deviation = errors.square().mean().sqrt().item()
    assert deviation < 1.3 * math.sqrt(0.05) / resolution
    assert deviation > 0.05 * math.sqrt(0.05) / resolution, "exact: nothing was tested"


def test_minimum_and_maximum_are_exact_and_quantiles_never_decrease():
    values = torch.randn(3, 20_000)
    sketch = fed(QuantileSketch(3, resolution=32), values, 333)
    assert torch.equal(sketch.minimum, values.amin(1))
    assert torch.equal(sketch.maximum, values.amax(1))
    assert torch.equal(sketch.quantile(0.0), values.amin(1).double())
    assert torch.equal(sketch.quantile(1.0), values.amax(1).double())
    curve = torch.stack([sketch.quantile(q) for q in np.linspace(0, 1, 101).tolist()])
    assert (curve.diff(dim=0) >= 0).all()


@given(st.lists(st.integers(0, 90), min_size=1, max_size=6), st.integers(0, 9))
def test_the_division_into_batches_does_not_matter(sizes, seed):
    values = torch.randn(2, sum(sizes))
    one, other = (QuantileSketch(2, resolution=8, seed=seed) for _ in range(2))
    for batch in values.split(sizes, 1):
        one.update(batch)
    other.update(values)
    assert_same_state(one, other)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=5))
def test_weights_add_up_to_the_count_after_merging(sizes):
    values = torch.randn(2, sum(sizes))
    merged = QuantileSketch(2, resolution=8)
    for seed, part in enumerate(values.split(sizes, 1)):
        merged.merge(fed(QuantileSketch(2, resolution=8, seed=seed), part))
    filled = merged.state()["filled"]
    weights = 2 ** torch.arange(len(filled))
    assert merged.count == sum(sizes) == (filled * weights).sum()
    assert (filled <= 8 + 5).all()
    if sum(sizes):
        assert torch.equal(merged.minimum, values.amin(1))
        assert torch.equal(merged.quantile(1.0), values.amax(1).double())


def test_small_sketches_merge_into_an_exact_one():
    values = torch.randn(3, 40)
    merged = QuantileSketch(3, resolution=40)
    for part in values.split(7, 1):
        merged.merge(fed(QuantileSketch(3, resolution=40), part))
    for q in LEVELS:
        assert_close(merged.quantile(q), naive(values, q))


@pytest.mark.parametrize("seeds", [(0, 1, 2, 3), (0, 0, 0, 0)])
def test_merged_sketches_have_the_same_error(seeds):
    n, units = 400_000, 4
    values = shuffled(units, n)
    merged = QuantileSketch(units)
    for seed, part in zip(seeds, values.chunk(4, 1), strict=True):
        merged.merge(fed(QuantileSketch(units, seed=seed), part, 5000))
    assert rank_error(merged, 0.995, n).max() <= 1e-4


def test_merging_leaves_the_other_as_it_was_and_an_empty_one_changes_nothing():
    one, other = (fed(QuantileSketch(2, resolution=8), torch.randn(2, 99)) for _ in range(2))
    before = {name: each.clone() for name, each in other.state().items()}
    for sketch in (one, QuantileSketch(2, resolution=8)):
        sketch.merge(other)
        sketch.update(torch.randn(2, 50))
    assert_close(other.state(), before, rtol=0, atol=0)
    other.merge(other.empty())
    assert_close(other.state(), before, rtol=0, atol=0)


def test_a_loaded_sketch_goes_on_bit_for_bit():
    values = torch.randn(3, 900)
    whole = fed(QuantileSketch(3, resolution=16, seed=5), values)
    first = fed(QuantileSketch(3, resolution=16, seed=5), values[:, :500])
    second = QuantileSketch(3, resolution=16, seed=0)
    second.load_state(first.state())
    before = first.state()
    second.update(values[:, 500:])
    assert_same_state(second, whole)
    assert_same_state(first, fed(QuantileSketch(3, resolution=16, seed=5), values[:, :500]))
    assert before["values"].shape[1] < 500


def test_the_seed_decides_and_the_global_generator_does_not():
    values = torch.randn(2, 5000)
    random = torch.get_rng_state()
    one, same, other = (fed(QuantileSketch(2, resolution=8, seed=s), values) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), random)
    assert_same_state(one, same)
    assert not torch.equal(one.state()["values"], other.state()["values"])
    assert_same_state(fed(one.empty(), values), one)


def test_units_do_not_disturb_each_other():
    values = torch.randn(70, 500)
    together = fed(QuantileSketch(70, resolution=16), values)
    alone = fed(QuantileSketch(1, resolution=16), values[66:67])
    assert_close(together.quantile(0.3)[66:67], alone.quantile(0.3), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_of_any_dtype_are_kept_in_that_of_the_sketch(dtype, device):
    values = torch.randn(2, 100).to(device, dtype)
    for own in (torch.float32, torch.float64):
        sketch = fed(QuantileSketch(2, resolution=100, dtype=own), values)
        state = sketch.state()
        assert state["values"].dtype == own and state["values"].device == values.device
        assert sketch.quantile(0.3).dtype == torch.float64
        assert_close(sketch.quantile(0.3).cpu(), naive(values.cpu().to(own), 0.3))


def test_a_sketch_goes_on_and_merges_on_any_device(device):
    values = torch.randn(2, 3000)
    expected = fed(QuantileSketch(2, resolution=16), values)
    loaded = QuantileSketch(2, resolution=16)
    loaded.load_state(fed(QuantileSketch(2, resolution=16), values[:, :2995]).state())
    loaded.update(values[:, 2995:].to(device))  # the upper levels change no more
    assert loaded.state()["values"].device.type == device
    assert_close(loaded.quantile(0.9).cpu(), expected.quantile(0.9), rtol=0, atol=0)
    other = fed(QuantileSketch(2, resolution=16), values[:, :5])
    loaded.merge(other)
    other.merge(loaded)
    assert loaded.quantile(0.9).device.type == device and other.quantile(0.9).device.type == "cpu"


def test_constant_units_and_ties_have_their_value():
    values = torch.zeros(2, 10_000)
    values[1, ::100] = 1.0
    sketch = fed(QuantileSketch(2, resolution=64), values)
    assert sketch.quantile(0.5).tolist() == [0.0, 0.0]
    assert sketch.quantile(0.9999).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_and_nothing_taken_in(bad):
    sketch = fed(QuantileSketch(3, resolution=8), torch.randn(3, 20))
    before = {name: each.clone() for name, each in sketch.state().items()}
    values = torch.randn(3, 20)
    values[1, 3] = bad
    with pytest.raises(
        InputError, match="^unit 1 has a value that is NaN or infinite in torch.float32$"
    ):
        sketch.update(values)
    with pytest.raises(InputError, match="^unit 2 has"):
        sketch.update(torch.tensor([[0.0], [0.0], [1e300]], dtype=torch.float64))
    assert_close(sketch.state(), before, rtol=0, atol=0)


def test_what_makes_no_sense_is_refused():
    sketch = QuantileSketch(2)
    with pytest.raises(InputError, match="^no value was seen, so there is no quantile$"):
        sketch.quantile(0.5)
    sketch.update(torch.zeros(2, 0))
    assert sketch.count == 0
    for q in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match=rf"^a quantile lies in \[0, 1\], got {q}$"):
            sketch.quantile(q)
    for shape in [(3, 5), (2,), (2, 5, 1)]:
        with pytest.raises(ShapeError, match=r"^expected values \(2, n\), got shape "):
            sketch.update(torch.zeros(shape))
    for units, resolution in [(0, 8), (1, 3)]:
        with pytest.raises(
            InputError,
            match="^a quantile sketch has at least 1 unit and a resolution of at least 4, got "
            f"{units} units and a resolution of {resolution}$",
        ):
            QuantileSketch(units, resolution=resolution)


def test_the_state_of_another_sketch_is_refused():
    state = fed(QuantileSketch(2, resolution=8), torch.randn(2, 20)).state()
    with pytest.raises(
        ArtifactError,
        match=r"^this state belongs to a sketch with other settings: units and resolution are "
        r"\[2, 8\] in torch.float32, here \[3, 8\] in torch.float32$",
    ):
        QuantileSketch(3, resolution=8).load_state(state)
    for other in (
        QuantileSketch(2, resolution=9),
        QuantileSketch(2, resolution=8, dtype=torch.float64),
    ):
        with pytest.raises(ArtifactError, match="belongs to a sketch with other settings"):
            other.load_state(state)
    with pytest.raises(ArtifactError, match="it lacks"):
        QuantileSketch(2).load_state({"seen": torch.zeros(2)})
