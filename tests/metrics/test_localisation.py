"""Where the importance lies: by hand, by slow definitions, and by laws."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_blackbox.errors import ExplanationWarning, InputError, ShapeError
from captum_blackbox.metrics.localisation import pointing_game, relevance_mass, relevance_rank

seeds = st.integers(0, 10_000)
MEASURES = (pointing_game, relevance_mass, relevance_rank)


def some(seed, ties=False, count=3, size=(5, 7)):
    """Maps and masks, none of which is flat or empty."""
    rng = np.random.default_rng(seed)
    shape = (count, *size)
    maps = rng.integers(-3, 4, shape).astype(float) if ties else rng.normal(size=shape)
    masks = rng.random(shape) < rng.uniform(0.1, 0.9)
    masks[:, rng.integers(size[0]), rng.integers(size[1])] = True
    maps[:, 0, 0] += 0.5  # never flat
    return torch.from_numpy(maps), torch.from_numpy(masks)


def naive_pointing_game(a, mask, tolerance):
    """The first of the largest pixels, and its distance from every pixel of the object."""
    height, width = a.shape
    best = max(range(height * width), key=lambda i: (a.flatten()[i], -i))
    row, column = divmod(best, width)
    distances = [
        math.dist((row, column), (r, c)) for r in range(height) for c in range(width) if mask[r, c]
    ]
    return float(min(distances) <= tolerance)


def naive_relevance_mass(a, mask):
    """Arras et al. 2022, eq. 1, of the positive part."""
    within = total = 0.0
    for value, inside in zip(a.flatten().tolist(), mask.flatten().tolist(), strict=True):
        total += max(value, 0)
        within += max(value, 0) if inside else 0
    return within / total


def naive_relevance_rank(a, mask):
    """Arras et al. 2022, eq. 2: sort, take the first K, count those inside."""
    flat, inside = a.flatten().tolist(), mask.flatten().tolist()
    order = sorted(range(len(flat)), key=lambda i: (-flat[i], i))
    k = sum(inside)
    return sum(inside[i] for i in order[:k]) / k


@given(seed=seeds, ties=st.booleans(), tolerance=st.sampled_from([0, 1, 1.5, 2.3, 5]))
def test_all_three_are_their_definitions(seed, ties, tolerance):
    maps, masks = some(seed, ties)
    pairs = list(zip(maps, masks, strict=True))
    assert pointing_game(maps, masks, tolerance=tolerance).tolist() == [
        naive_pointing_game(*pair, tolerance) for pair in pairs
    ]
    np.testing.assert_allclose(
        relevance_mass(maps, masks), [naive_relevance_mass(*pair) for pair in pairs], atol=1e-14
    )
    assert relevance_rank(maps, masks).tolist() == [naive_relevance_rank(*pair) for pair in pairs]


@given(seed=seeds)
def test_they_are_quantus_formulae_for_maps_without_ties_and_negative_values(seed):
    # PointingGame: any(s[a == max(a)]); RelevanceMassAccuracy: sum(a[s]) / sum(a);
    # RelevanceRankAccuracy: |argsort(a)[-k:] & where(s)| / k.
    maps, masks = some(seed)
    maps = maps.abs()
    for i, (a, s) in enumerate(zip(maps.numpy(), masks.numpy(), strict=True)):
        a, s = a.ravel(), s.ravel()
        k = s.sum()
        assert pointing_game(maps, masks)[i] == float(np.any(s[a == a.max()]))
        assert relevance_mass(maps, masks)[i].item() == pytest.approx(a[s].sum() / a.sum())
        common = np.intersect1d(np.argsort(a)[::-1][:k], np.nonzero(s)[0])
        assert relevance_rank(maps, masks)[i] == len(common) / k


def test_by_hand():
    a = torch.tensor([[[4.0, 1.0], [3.0, -2.0]]])
    left = torch.tensor([[1, 0], [1, 0]])
    assert relevance_mass(a, left).tolist() == [7 / 8]
    assert relevance_rank(a, left).tolist() == [1]
    assert relevance_rank(a, 1 - left).tolist() == [0]
    assert pointing_game(a, left).tolist() == [1]
    diagonal = torch.tensor([[0, 0], [0, 1]])
    assert pointing_game(a, diagonal, tolerance=1.4).tolist() == [0]
    assert pointing_game(a, diagonal, tolerance=1.5).tolist() == [1]  # √2 away


@given(seed=seeds, ties=st.booleans())
def test_laws(seed, ties):
    maps, masks = some(seed, ties)
    for measure in MEASURES:
        value = measure(maps, masks)
        assert bool(((value >= 0) & (value <= 1)).all())
        assert measure(maps, torch.ones(5, 7)).tolist() == [1, 1, 1]
        np.testing.assert_allclose(measure(3 * maps, masks), value)
        alone = torch.cat([measure(maps[i : i + 1], masks[i : i + 1]) for i in range(3)])
        assert torch.equal(alone, value)
    np.testing.assert_allclose(relevance_mass(maps, masks) + relevance_mass(maps, ~masks), 1)
    growing = [pointing_game(maps, masks, tolerance=t) for t in range(9)]
    assert all(bool((b >= a).all()) for a, b in pairwise(growing))
    assert growing[-1].tolist() == [1, 1, 1]


@pytest.mark.parametrize("seed", range(3))
def test_a_map_equal_to_its_mask_is_perfect(seed):
    _, masks = some(seed)
    masks[:, 0, :] = False  # not everywhere
    masks[:, 1, :] = True
    for measure in MEASURES:
        assert measure(masks.double(), masks).tolist() == [1, 1, 1]


def test_the_first_of_equal_pixels_counts():
    a = torch.tensor([[[1.0, 5.0], [5.0, 5.0]]])
    for place, hit in (((0, 1), 1), ((1, 0), 0), ((1, 1), 0)):
        mask = torch.zeros(2, 2)
        mask[place] = 1
        assert pointing_game(a, mask).tolist() == [hit]
        assert relevance_rank(a, mask).tolist() == [hit]


def test_a_map_without_order_points_nowhere():
    a = torch.zeros(2, 3, 3)
    a[1, 2, 2] = 1
    mask = torch.ones(3, 3)
    for measure in (pointing_game, relevance_rank):
        with pytest.warns(
            ExplanationWarning, match=r"map of image 0 is the same everywhere \(1 of 2"
        ):
            assert measure(a, mask).tolist() == [0, 1]
    with pytest.warns(ExplanationWarning, match=r"image 0 is nowhere positive \(1 of 2 are\)"):
        assert relevance_mass(a, mask).tolist() == [0, 1]
    with pytest.warns(ExplanationWarning, match="is nowhere positive"):
        assert relevance_mass(-1 - a, mask).tolist() == [0, 0]
    half = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 0]])
    assert relevance_mass(torch.ones(1, 3, 3), half).tolist() == [pytest.approx(2 / 3)]


def test_an_empty_mask_gives_nan_and_spares_the_others():
    a = torch.rand(2, 3, 3)
    masks = torch.ones(2, 3, 3)
    masks[0] = 0
    for measure in MEASURES:
        with pytest.warns(ExplanationWarning, match=r"mask of image 0 is empty \(1 of 2 are\)"):
            value = measure(a, masks)
        assert value.isnan().tolist() == [True, False] and value[1] == 1


def test_channels_and_masks_of_every_form():
    a = torch.tensor([[[[5.0, 0.0]], [[-5.0, 1.0]]]])  # summed: 0, 1; absolute: 10, 1
    mask = torch.tensor([[True, False]])
    for measure in MEASURES:
        assert measure(a, mask).tolist() == [0]
    assert pointing_game(a, mask, channels="abs_sum").tolist() == [1]
    assert relevance_mass(a, mask, channels="abs_sum").tolist() == [pytest.approx(10 / 11)]
    assert relevance_mass(a, mask, channels="max_abs").tolist() == [pytest.approx(5 / 6)]
    for measure in MEASURES:
        for form in (mask, mask[None], mask[None, None], 7 * mask.int(), -1.0 * mask):
            assert torch.equal(measure(a, form), measure(a, mask))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_results_are_in_double_precision_on_the_maps_device(dtype, device):
    a = torch.rand(3, 1, 8, 8, device=device).to(dtype)
    for measure in MEASURES:
        value = measure(a, torch.eye(8))
        assert value.dtype == torch.float64 and value.device.type == device
        assert value.shape == (3,)


def test_what_does_not_fit_is_refused():
    a = torch.rand(2, 4, 4)
    for measure in MEASURES:
        with pytest.raises(ShapeError, match=r"expected a mask \(4, 4\).* got shape \(3, 4, 4\)"):
            measure(a, torch.ones(3, 4, 4))
        with pytest.raises(InputError, match="NaN or infinite"):
            measure(a / 0, torch.ones(4, 4))
    for tolerance in (-1, math.nan):
        with pytest.raises(InputError, match="tolerance is 0 pixels or more"):
            pointing_game(a, torch.ones(4, 4), tolerance=tolerance)
