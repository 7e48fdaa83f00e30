"""How alike two explanations are: by hand, against SciPy, and by laws."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from captum_blackbox.errors import ExplanationWarning, InputError, ShapeError
from captum_blackbox.metrics import (
    center_of_mass,
    center_shift,
    cosine_similarity,
    rank_correlation,
    region_mass,
    topk_intersection,
)

seeds = st.integers(0, 10_000)


def some_maps(seed, ties=False, count=3, size=(5, 7)):
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, (2, count, *size)) if ties else rng.normal(size=(2, count, *size))
    return torch.from_numpy(values.astype(float))


def naive_intersection(a, b, k):
    """Sort pixels by importance, equal ones by place, and count what both lists begin with."""

    def first(values):
        flat = np.abs(values.numpy()).ravel()
        return set(sorted(range(len(flat)), key=lambda i: (-flat[i], i))[:k])

    return [len(first(x) & first(y)) / k for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize(("pixels", "k"), [(1, 1), (10, 1), (74, 1), (76, 2), (124, 2), (126, 3)])
def test_the_50th_is_the_nearest_whole_number_and_one_at_least(pixels, k):
    a = torch.arange(pixels, 0, -1.0).view(1, 1, pixels)
    b = a.clone()
    b[..., 0] = 0.5 if pixels > 1 else 1.0  # all but the first keep their order
    assert topk_intersection(a, b).item() == pytest.approx(1.0 if pixels == 1 else (k - 1) / k)


@given(seed=seeds, k=st.integers(1, 35), ties=st.booleans())
def test_the_intersection_is_that_of_two_sorted_lists(seed, k, ties):
    a, b = some_maps(seed, ties)
    assert topk_intersection(a, b, k).tolist() == naive_intersection(a, b, k)
    assert torch.equal(topk_intersection(a, b, k), topk_intersection(b, a, k))
    assert topk_intersection(a, a, k).tolist() == [1, 1, 1]
    assert torch.equal(topk_intersection(3 * a, b, k), topk_intersection(a, b, k))


def test_disjoint_maps_have_nothing_in_common():
    a, b = torch.zeros(2, 1, 4, 4)
    a[0, 0], b[0, 3] = 1, 1
    assert topk_intersection(a, b, 4).tolist() == [0]


def test_a_50th_of_the_pixels_counts_by_default():
    a, b = torch.rand(2, 1, 20, 20)
    assert torch.equal(topk_intersection(a, b), topk_intersection(a, b, 8))
    assert topk_intersection(a[:, :2, :2], a[:, :2, :2]).tolist() == [1]


@given(seed=seeds, ties=st.booleans())
def test_the_rank_correlation_is_scipys(seed, ties):
    a, b = some_maps(seed, ties)
    expected = [
        spearmanr(x.abs().flatten(), y.abs().flatten()).statistic for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(rank_correlation(a, b), expected, atol=1e-12)
    np.testing.assert_allclose(rank_correlation(a.abs().exp(), b), expected, atol=1e-12)


def test_a_constant_map_has_rank_correlation_0_and_is_named():
    a = torch.rand(2, 3, 3)
    b = torch.stack([torch.ones(3, 3), a[1]])
    with pytest.warns(ExplanationWarning, match=r"a map of image 0 is the same everywhere \(1 of"):
        correlation = rank_correlation(a, b)
    torch.testing.assert_close(correlation, torch.tensor([0.0, 1.0], dtype=torch.float64))


@given(seed=seeds, down=st.integers(0, 3), right=st.integers(0, 4))
def test_the_centre_lies_in_the_image_and_moves_with_the_map(seed, down, right):
    a = some_maps(seed)[0]
    centre = center_of_mass(a)
    assert bool((centre >= 0).all() and (centre <= torch.tensor([4, 6])).all())
    wide = torch.zeros(3, 8, 11, dtype=a.dtype)
    moved = wide.clone()
    wide[:, :5, :7] = a
    moved[:, down : down + 5, right : right + 7] = a
    expected = torch.full((3,), float(np.hypot(down, right)), dtype=torch.float64)
    torch.testing.assert_close(center_shift(wide, moved), expected)
    torch.testing.assert_close(center_of_mass(moved), centre + torch.tensor([down, right]))


def test_the_centre_of_a_uniform_map_and_of_a_point():
    uniform, point = torch.ones(1, 5, 4), torch.zeros(1, 5, 4)
    point[0, 3, 1] = -2
    assert center_of_mass(uniform).tolist() == [[2, 1.5]]
    assert center_of_mass(point).tolist() == [[3, 1]]
    assert center_of_mass(torch.zeros(1, 5, 4)).tolist() == [[2, 1.5]]


def test_cosine_and_region_by_hand():
    a = torch.tensor([[[1.0, 2.0], [0.0, 2.0]]])
    assert cosine_similarity(a, -2 * a).tolist() == [-1]
    assert cosine_similarity(a, torch.zeros(1, 2, 2)).tolist() == [0]
    region = torch.tensor([[False, True], [True, False]])
    assert region_mass(-a, region).tolist() == [0.4]
    assert region_mass(a, ~region[None]).tolist() == [pytest.approx(0.6)]
    assert region_mass(torch.zeros(1, 2, 2), region).tolist() == [0]


def test_channels_are_added_by_their_size():
    a = torch.tensor([[[[5.0, 0.0]], [[-5.0, 1.0]]]])  # the sum hides the first pixel
    b = torch.tensor([[[1.0, 0.0]]])
    assert topk_intersection(a, b, 1).tolist() == [1]
    assert topk_intersection(a, b, 1, channels="sum").tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_results_are_in_double_precision_on_the_maps_device(dtype, device):
    a, b = torch.rand(2, 3, 1, 8, 8, device=device, dtype=torch.float32).to(dtype)
    for measure in (topk_intersection, rank_correlation, center_shift, cosine_similarity):
        value = measure(a, b.cpu())
        assert value.dtype == torch.float64 and value.device.type == device
        assert value.shape == (3,)


def test_maps_that_do_not_fit_are_refused():
    a = torch.rand(2, 4, 4)
    for measure in (topk_intersection, rank_correlation, center_shift, cosine_similarity):
        with pytest.raises(ShapeError, match=r"got shapes \(2, 4, 4\) and \(2, 4, 5\)"):
            measure(a, torch.rand(2, 4, 5))
    with pytest.raises(ShapeError, match=r"expected a region \(4, 4\).* got shape \(3, 4\)"):
        region_mass(a, torch.ones(3, 4))
    with pytest.raises(InputError, match="k is between 1 and the 16 pixels of a map, got 17"):
        topk_intersection(a, a, 17)
    with pytest.raises(InputError, match="1 of 32 map values are NaN or infinite"):
        center_shift(a, torch.where(torch.arange(32).view(2, 4, 4) == 3, torch.nan, a))


def test_importance_is_absolute_also_where_channels_are_added_with_their_signs():
    maps = torch.tensor([[[[1.0, -2.0, 0.5]], [[1.0, -4.0, -0.5]]]])  # sums 2, -6 and 0
    assert region_mass(maps, torch.tensor([[0, 1, 1]]), channels="sum").tolist() == [0.75]
    assert center_of_mass(maps, channels="sum").tolist() == [[0, 0.75]]
    other = torch.tensor([[[1.0, 0.0, 0.0]]])
    assert center_shift(maps, other, channels="sum").tolist() == [0.75]
    assert center_shift(maps, other).tolist() == pytest.approx([8 / 9])


def test_a_region_is_wherever_a_mask_is_not_0():
    maps = torch.tensor([[[1.0, 3.0, 4.0]]])
    assert region_mass(maps, torch.tensor([[-1.0, 0.0, 0.5]])).tolist() == [0.625]


def test_a_cosine_is_of_maps_with_the_same_channels():
    maps = torch.rand(2, 3, 4, 5)
    with pytest.raises(ShapeError, match="expected maps of one shape"):
        cosine_similarity(maps, maps[:, :1])
