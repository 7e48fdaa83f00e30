"""Means with intervals against a loop over resamples."""

import math

import numpy as np
import pytest
import torch

from captum_blackbox.statistics.bootstrap import estimate, mean_interval

VALUES = torch.tensor([0.1, 0.9, 0.4, 0.4, 0.7], dtype=torch.float64)


def slow_interval(values, resamples, seed):
    """Draw the images with replacement, average, sort the averages, take what 2.5 % are below."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(len(values), size=(resamples, len(values)))
    means = sorted(sum(values[i] for i in row) / len(row) for row in rows.tolist())

    def quantile(share):
        place = share * (len(means) - 1)
        below = math.floor(place)
        above = min(below + 1, len(means) - 1)
        return means[below] + (place - below) * (means[above] - means[below])

    return quantile(0.025), quantile(0.975)


def test_an_interval_is_that_of_the_definition():
    expected = slow_interval(VALUES.tolist(), 400, 3)
    assert mean_interval(VALUES, resamples=400, seed=3) == pytest.approx(expected, abs=1e-12)
    found = estimate(VALUES, resamples=400, seed=3)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert found.mean == pytest.approx(0.5)


def test_what_is_no_number_does_not_count():
    nan = torch.tensor([torch.nan])
    assert estimate(torch.cat([nan, VALUES, nan])) == estimate(VALUES)
    assert estimate(VALUES).images == 5
    nothing = estimate(nan)
    assert nothing.images == 0 and math.isnan(nothing.mean) and math.isnan(nothing.high)


def test_an_interval_covers_the_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(200, 40, generator=generator, dtype=torch.float64)
    hits = [low <= 0.5 <= high for low, high in (mean_interval(d, resamples=400) for d in draws)]
    assert 0.88 <= sum(hits) / len(hits) <= 0.99
