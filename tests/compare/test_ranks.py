"""Ranks and intervals against loops that follow their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_blackbox.compare.ranks import average_ranks, estimate, overall_ranks, paired

NUMBERS = st.sampled_from([0.0, 1.0, 2.0, math.nan])
TABLES = st.integers(1, 4).flatmap(
    lambda images: st.lists(
        st.lists(NUMBERS, min_size=images, max_size=images), min_size=1, max_size=4
    )
)


def naive_ranks(table, higher):
    """Sort each image that all ranked methods have, give equals their mean place, average."""
    ranked = [m for m, row in enumerate(table) if any(map(math.isfinite, row))]
    places = {m: [] for m in ranked}
    for image in range(len(table[0])):
        column = {m: table[m][image] for m in ranked}
        if not all(map(math.isfinite, column.values())):
            continue
        ordered = sorted(column.values(), reverse=higher)
        for m, value in column.items():
            equal = [place for place, other in enumerate(ordered, 1) if other == value]
            places[m].append(sum(equal) / len(equal))
    return [
        sum(places[m]) / len(places[m]) if places.get(m) else math.nan for m in range(len(table))
    ]


@given(TABLES, st.booleans())
def test_average_ranks_equal_sorting_image_by_image(table, higher):
    found = average_ranks(torch.tensor(table), higher).tolist()
    assert found == pytest.approx(naive_ranks(table, higher), nan_ok=True)


def test_a_method_cannot_win_by_failing_where_it_is_hard():
    easy_only = torch.tensor([[0.9, torch.nan], [0.8, 0.8], [0.1, 0.1]])
    assert average_ranks(easy_only, True).tolist() == [1, 2, 3]
    never = torch.cat([easy_only, torch.full((1, 2), torch.nan)])
    assert average_ranks(never, True).tolist()[:3] == [1, 2, 3]


def test_the_overall_rank_is_over_the_same_metrics_for_all():
    nan = math.nan
    ranks = torch.tensor([[1.0, 3.0, 1.0], [2.0, 1.0, nan], [3.0, 2.0, 2.0], [nan, nan, nan]])
    assert overall_ranks(ranks).tolist() == pytest.approx([2, 1.5, 2.5, nan], nan_ok=True)
    assert torch.isnan(overall_ranks(torch.tensor([[1.0, nan], [nan, 1.0]]))).all()


def test_an_estimate_equals_resampling_in_a_loop():
    values = torch.rand(9)
    values[4] = torch.nan
    known = [float(value) for value in values if not math.isnan(value)]
    draws = np.random.default_rng(0).integers(8, size=(10_000, 8))
    means = [sum(known[i] for i in row) / 8 for row in draws.tolist()]
    found = estimate(values)
    low, high = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose(
        [found.mean, found.low, found.high], [sum(known) / 8, low, high], rtol=1e-6
    )
    assert found.images == 8


def test_nothing_known_is_no_number():
    assert estimate(torch.tensor([torch.nan])).images == 0
    assert math.isnan(estimate(torch.tensor([torch.nan])).mean)
    assert paired(torch.tensor([1.0, torch.nan]), torch.tensor([torch.nan, 1.0])) is None


def test_a_difference_is_over_the_images_that_both_have():
    first = torch.tensor([1.0, 5.0, torch.nan])
    second = torch.tensor([0.5, torch.nan, 7.0])
    found = paired(first, second)
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)
