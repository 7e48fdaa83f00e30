"""The interval of a paired difference."""

import numpy as np
import pytest
import torch

from captum_blackbox.errors import ShapeError
from captum_blackbox.report import paired_difference


def naive_interval(first, second, resamples, seed):
    draws = np.random.default_rng(seed).integers(len(first), size=(resamples, len(first)))
    means = [sum(float(first[i]) - float(second[i]) for i in row) / len(row) for row in draws]
    return np.quantile(means, [0.025, 0.975])


def test_it_equals_the_loop():
    first, second = torch.rand(12), torch.rand(12)
    found = paired_difference(first, second, resamples=200, seed=3)
    np.testing.assert_allclose(
        [found.low, found.high], naive_interval(first, second, 200, 3), rtol=1e-9
    )
    np.testing.assert_allclose(found.mean, float((first - second).double().mean()), rtol=1e-6)


def test_what_both_methods_share_cancels_out():
    hard = torch.randn(30) * 100
    found = paired_difference(hard + 1, hard)
    np.testing.assert_allclose([found.mean, found.low, found.high], 1.0, rtol=1e-4)
    assert found.excludes_zero


def test_swapping_the_methods_flips_the_sign_and_keeps_the_verdict():
    first, second = torch.rand(20), torch.rand(20)
    one, other = paired_difference(first, second), paired_difference(second, first)
    np.testing.assert_allclose([one.mean, one.low], [-other.mean, -other.high], atol=1e-12)
    assert one.excludes_zero == other.excludes_zero


def test_it_covers_the_truth_about_as_often_as_it_says():
    random = torch.Generator().manual_seed(0)
    covered = 0
    for trial in range(200):
        sample = torch.randn(40, generator=random) + 0.5
        found = paired_difference(sample, torch.zeros(40), resamples=500, seed=trial)
        covered += found.low <= 0.5 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_unpaired_values_are_refused():
    with pytest.raises(ShapeError) as caught:
        paired_difference(torch.rand(3), torch.rand(4))
    assert str(caught.value) == (
        "expected one value per image for both methods, got shapes (3,) and (4,)"
    )
