"""The largest values of a stream, beside NumPy's quantiles of all of them."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from captum_blackbox.errors import ArtifactError, InputError
from captum_blackbox.statistics import TopFraction, TopImages, top_fraction

LEVELS = (0.5, 0.9, 0.95, 0.99, 0.995, 994 / 999)

# Few different values, so that ties are the rule; -0.0 and 0.0 among them.
VALUES = st.sampled_from([-3.0, -1.5, -0.0, 0.0, 0.25, 1.0, 7.0, 1e-30])


@st.composite
def streams(draw):
    """Values ``(n, 2)`` with many ties, a level, and where they are split into batches."""
    count = draw(st.integers(1, 60))
    kind = draw(st.sampled_from(["ties", "equal", "random"]))
    if kind == "random":
        seed = draw(st.integers(0, 10**6))
        values = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    elif kind == "equal":
        values = torch.full((count, 2), draw(VALUES))
    else:
        rows = st.lists(st.tuples(VALUES, VALUES), min_size=count, max_size=count)
        values = torch.tensor(draw(rows))
    cuts = sorted(draw(st.sets(st.integers(1, 59), max_size=6)))
    return values, draw(st.sampled_from(LEVELS)), [cut for cut in cuts if cut < count]


def gathered(values, level, cuts=(), total=None):
    top = TopFraction(TopFraction.capacity_for(total or len(values), level), values.dtype)
    for batch in values.tensor_split(list(cuts)):
        top.update(batch[:, :, None])
    return top


def assert_equal_quantiles(top, values, level):
    """Exactly the order statistic for ``higher``; up to rounding for ``linear``."""
    expected = values.double().numpy()
    higher = np.quantile(expected, level, axis=0, method="higher")
    np.testing.assert_array_equal(top.quantile(level, "higher").numpy(), higher)
    linear = np.quantile(expected, level, axis=0)
    np.testing.assert_allclose(top.quantile(level).numpy(), linear, rtol=1e-12, atol=1e-12)


@given(streams())
def test_quantiles_are_numpys_however_the_stream_is_divided(stream):
    values, level, cuts = stream
    assert_equal_quantiles(gathered(values, level, cuts), values, level)


@given(streams())
def test_the_bound_is_never_above_the_final_quantile(stream):
    values, level, cuts = stream
    final = torch.from_numpy(np.quantile(values.double().numpy(), level, axis=0))
    top = TopFraction(TopFraction.capacity_for(len(values), level))
    for batch in values.tensor_split(cuts):
        top.update(batch[:, :, None])
        assert bool((top.bound.double() <= final + 1e-12 * final.abs()).all())


@given(streams(), st.data())
def test_any_split_merges_to_the_whole(stream, data):
    values, level, cuts = stream
    capacity = TopFraction.capacity_for(len(values), level)
    parts = []
    for part in values.tensor_split(cuts):
        parts.append(TopFraction(capacity))
        for batch in part.tensor_split(data.draw(st.integers(1, 3))):
            if len(batch):
                parts[-1].update(batch[:, :, None])
    merged = TopFraction(capacity)
    for part in data.draw(st.permutations(parts)):
        merged.merge(part)
    assert merged.count == len(values)
    assert_equal_quantiles(merged, values, level)
    whole = gathered(values, level)
    assert_close(merged.state(), whole.state(), rtol=0, atol=0)


@given(streams(), st.data())
def test_a_state_can_be_taken_up_at_any_moment(stream, data):
    values, level, cuts = stream
    whole = gathered(values, level, cuts)
    moment = data.draw(st.integers(0, len(cuts)))
    batches = values.tensor_split(cuts)
    first, second = (TopFraction(whole.capacity) for _ in range(2))
    for batch in batches[:moment]:
        first.update(batch[:, :, None])
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second.load_state(first.state())
    for batch in batches[moment:]:
        second.update(batch[:, :, None])
    assert_close(second.state(), whole.state(), rtol=0, atol=0)
    assert_equal_quantiles(second, values, level)
    # A copy was taken up: the first one is as it was.
    assert_close(dict(first.state()), state, rtol=0, atol=0)


@given(streams())
def test_at_most_the_share_is_above_the_higher_quantile(stream):
    values, level, _ = stream
    threshold = gathered(values, level).quantile(level, "higher")
    above = (values.double() > threshold).sum(0)
    assert bool((above <= (1 - level) * len(values) + 1e-9).all())


def test_the_linear_quantile_can_be_exceeded_by_one_value_more():
    values = torch.arange(10.0)[:, None]  # 10 values at level 0.95: position 8.55
    top = gathered(values, 0.95)
    assert float(top.quantile(0.95)) == pytest.approx(8.55, abs=1e-14)
    assert int((values > top.quantile(0.95)).sum()) == 1  # 10 % where 5 % were asked for
    assert float(top.quantile(0.95, "higher")) == 9.0


def test_several_places_of_an_image_are_values_of_their_own():
    values = torch.randn(7, 3, 11)
    top = TopFraction(TopFraction.capacity_for(77, 0.9))
    for batch in values.split(2):
        top.update(batch)
    assert_equal_quantiles(top, values.transpose(1, 2).flatten(0, 1), 0.9)


@pytest.mark.parametrize("order", ["rising", "falling"])
def test_the_order_of_values_does_not_matter(order):
    values = torch.arange(5000.0).view(-1, 1).repeat(1, 2)  # rising: each batch all above the bound
    values = values if order == "rising" else values.flip(0)
    top = gathered(values, 0.995, range(7, 5000, 7))
    assert_equal_quantiles(top, values, 0.995)


def test_a_batch_may_have_more_above_the_bound_than_fit():
    values = torch.cat([torch.zeros(100, 2), torch.arange(900.0).view(-1, 1).repeat(1, 2)])
    values[100:, 1] = 0
    top = gathered(values, 0.9, [100])
    assert_equal_quantiles(top, values, 0.9)


def test_units_fill_at_their_own_pace():
    """One unit passes its bound in every batch, the others hardly ever."""
    values = torch.randn(3000, 4)
    values[:, 0] = torch.arange(3000.0)
    values[:, 1] = 0
    values[:, 2] = -values[:, 0]
    top = gathered(values, 0.99, range(13, 3000, 13))
    assert_equal_quantiles(top, values, 0.99)


def test_float64_is_not_rounded():
    values = 1 + torch.arange(1000, dtype=torch.float64)[:, None] * 1e-12
    assert len(values.float().unique()) == 1
    assert_equal_quantiles(gathered(values, 0.995, range(10, 1000, 10)), values, 0.995)


def test_a_stream_that_ends_early_still_has_its_quantile():
    """Images that cannot be read make the stream shorter than planned."""
    values = torch.randn(800, 3)
    for count in (1, 2, 150, 799):
        top = gathered(values[:count], 0.99, range(50, count, 50), total=800)
        assert_equal_quantiles(top, values[:count], 0.99)


def test_memory_is_twice_the_capacity_and_never_more():
    top = TopFraction(20)
    for _ in range(100):
        top.update(torch.rand(64, 3, 5) + top.count)
        assert top._kept.shape == (3, 40)
        assert int(top._filled.max()) <= 40


class _Made(TorchDispatchMode):
    """The size of the largest tensor that is made, and not a part of one there was."""

    def __init__(self, kept):
        super().__init__()
        self.place, self.largest = kept.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.untyped_storage().data_ptr() != self.place:
                self.largest = max(self.largest, each.numel())
        return result


def test_beside_what_is_kept_nothing_as_large_is_made(monkeypatch):
    monkeypatch.setattr(top_fraction, "_MOST_SORTED", 64)
    values = torch.rand(90, 50)
    top = TopFraction(TopFraction.capacity_for(90, 0.8))
    for batch in values.split(18):
        top.update(batch[:, :, None])
    with _Made(top._kept) as made:
        found = top.quantile(0.8)
    assert made.largest <= 64 < top._kept.numel() / 20
    assert_close(found, values.double().quantile(0.8, dim=0))


def test_an_early_level_needs_more_than_is_kept():
    top = gathered(torch.rand(100, 1), 0.9)
    message = "the quantile at 0.5 of 100 values needs the 51 largest; the capacity is 11"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        top.quantile(0.5)
    assert_close(top.quantile(1.0), top.quantile(1.0, "higher"))


def test_nothing_seen_is_refused():
    with pytest.raises(InputError, match="^nothing was seen yet, so there is no quantile$"):
        TopFraction(3).quantile(0.9)
    with pytest.raises(InputError, match="^the capacity is at least 1, got 0$"):
        TopFraction(0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("when", ["first", "later"])
def test_a_value_that_is_not_finite_is_refused_and_its_unit_named(wrong, when):
    top = TopFraction(3)
    if when == "later":
        top.update(torch.rand(5, 4, 2))
    before = {name: tensor.clone() for name, tensor in top.state().items()}
    values = torch.rand(5, 4, 2)
    values[2, 1, 0] = values[4, 3, 1] = wrong
    message = (
        "unit 1 has values that are not finite (2 of 4 units have); look for NaN in the images "
        "and the weights"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        top.update(values)
    assert_close(dict(top.state()), before, rtol=0, atol=0)


def test_infinities_of_both_signs_do_not_cancel():
    with pytest.raises(InputError, match="unit 0 has values that are not finite"):
        TopFraction(3).update(torch.tensor([[[math.inf, -math.inf]]]))


def test_a_sum_that_overflows_is_no_reason_to_refuse():
    values = torch.full((4, 1, 3), 3e38)
    top = TopFraction(12)
    top.update(values)
    assert float(top.quantile(0.5)) == float(values[0, 0, 0])


def test_a_state_of_another_capacity_is_refused():
    top = gathered(torch.rand(100, 1), 0.9)
    message = "^this state keeps 11 values of each unit, expected 12$"
    with pytest.raises(ArtifactError, match=message):
        TopFraction(12).load_state(top.state())


def test_an_empty_state_takes_the_place_of_what_was_gathered():
    top, empty = gathered(torch.rand(100, 1), 0.9), TopFraction(11)
    top.load_state(empty.state())
    assert (top.count, top.bound.numel()) == (0, 0)
    values = torch.rand(30, 2) - 5
    top.update(values[:, :, None])
    assert_close(top.quantile(0.9), values.double().quantile(0.9, dim=0))


@given(st.integers(1, 500), st.sampled_from(LEVELS))
def test_the_capacity_is_what_numpy_looks_at(count, level):
    capacity = TopFraction.capacity_for(count, level)
    values = np.random.default_rng(count).permutation(count).astype(float)
    kept = np.sort(values)[count - capacity :]
    rest = np.full(count - capacity, -1e9)  # what is forgotten does not matter
    assert np.quantile(np.concatenate([kept, rest]), level) == np.quantile(values, level)


def test_the_best_images_are_those_of_a_sort_and_ties_go_to_smaller_numbers():
    values = torch.randint(0, 4, (40, 6)).float()
    values[:, 5] = 1
    expected = values.sort(dim=0, descending=True, stable=True)
    for split in (1, 3, 7, 40):
        numbers = torch.arange(40).split(split)
        parts = [TopImages(5) for _ in range(3)]
        for place, some in reversed(list(enumerate(numbers))):  # in no particular order
            parts[place % 3].update(values[some], some)
        top = TopImages(5)
        for part in parts:
            fresh = part.empty()
            fresh.load_state(part.state())
            top.merge(fresh)
        found, heights = top.compute()
        assert torch.equal(found, expected.indices[:5].T)
        assert torch.equal(heights, expected.values[:5].T)


def test_fewer_images_than_asked_for_are_all_there():
    top = TopImages(10)
    top.update(torch.tensor([[1.0], [2.0]]), torch.tensor([4, 9]))
    assert top.compute()[0].tolist() == [[9, 4]]
