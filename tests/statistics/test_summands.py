"""Shares of two summands in the variance of their sum, beside NumPy's covariance."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from captum_blackbox.errors import ArtifactError, InputError
from captum_blackbox.statistics import SummandShares


def naive_shares(first, second):
    """Return cov[x_i, x_1 + x_2] / var[x_1 + x_2] per channel, in float64."""
    pair = [each.double().movedim(1, 0).flatten(1).numpy() for each in (first, second)]
    shares = np.empty((2, len(pair[0])))
    for channel in range(len(pair[0])):
        total = pair[0][channel] + pair[1][channel]
        for which in (0, 1):
            x = pair[which][channel]
            shares[which, channel] = ((x - x.mean()) * (total - total.mean())).mean() / total.var()
    return torch.from_numpy(shares)


def gathered(batches, statistic=None):
    statistic = statistic or SummandShares()
    for batch in batches:
        statistic.update(*batch)
    return statistic


def pair(n=20, shape=(3, 4, 2), dtype=torch.float64, mean=0.0):
    first = torch.randn(n, *shape) + mean
    return first.to(dtype), (0.5 * first + torch.randn(n, *shape) - 2 * mean).to(dtype)


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 4, 2), (2, 2, 3, 2)])
def test_shares_are_covariances_with_the_sum(shape):
    first, second = pair(shape=shape)
    found = gathered([(first, second)]).compute()
    assert found.shape == (2, shape[0]) and found.dtype == torch.float64
    assert_close(found, naive_shares(first, second), rtol=1e-9, atol=1e-12)
    assert_close(found.sum(0), torch.ones(shape[0], dtype=torch.float64))


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(0, 5))
def test_any_division_into_batches_and_statistics_gives_the_same(sizes, merged_from):
    first, second = pair(sum(sizes), mean=5.0)
    batches = list(zip(first.split(sizes), second.split(sizes), strict=True))
    whole = gathered(batches[:merged_from])
    other = gathered(batches[merged_from:])
    again = SummandShares()
    again.load_state(other.state())
    whole.merge(again)
    whole.merge(SummandShares())
    if sum(sizes) * 8 < 10:
        return
    assert_close(whole.compute(), naive_shares(first, second), rtol=1e-7, atol=1e-9)


def test_a_large_mean_does_not_cancel():
    first, second = pair(500, dtype=torch.float32, mean=1e4)
    found = gathered(zip(first.split(7), second.split(7), strict=True)).compute()
    assert_close(found, naive_shares(first, second), rtol=1e-5, atol=1e-5)


def test_by_hand_the_share_of_a_summand_that_works_against_the_sum_is_negative():
    first = torch.tensor([[1.0], [-1.0]])
    assert gathered([(first, -3 * first)]).compute().tolist() == [[-0.5], [1.5]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_sum_that_never_varies_is_shared_equally(dtype):
    first = torch.randn(50, 2, dtype=dtype)
    second = 3 - first
    second[:, 1] = first[:, 1]
    found = gathered([(first, second)]).compute()
    assert_close(found, torch.full((2, 2), 0.5, dtype=torch.float64))
    constant = torch.full((8, 1), 0.1, dtype=dtype)
    assert (gathered([(constant, 3 * constant)] * 3).compute() == 0.5).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", [0, 1])
def test_what_is_not_finite_is_refused_and_nothing_taken_in(bad, where):
    good = pair()
    for statistic in (SummandShares(), gathered([good])):
        before = {name: each.clone() for name, each in statistic.state().items()}
        broken = [each.clone() for each in good]
        broken[where][3, 1, 2, 0] = bad
        with pytest.raises(InputError, match="^a summand has a value that is NaN or infinite$"):
            statistic.update(*broken)
        assert_close(statistic.state(), before, rtol=0, atol=0)
        statistic.update(*good)
        assert_close(statistic.compute(), naive_shares(*good))


def test_an_empty_batch_changes_nothing():
    first, second = pair()
    statistic = gathered([(first[:0], second[:0]), (first, second), (first[:0], second[:0])])
    assert_close(statistic.compute(), naive_shares(first, second))


def test_before_any_batch_there_are_no_shares():
    with pytest.raises(InputError, match="^no sum was seen, so its summands have no shares$"):
        SummandShares().compute()


def test_a_loaded_state_is_a_copy_and_that_of_another_statistic_is_refused():
    statistic = gathered([pair()])
    expected = statistic.compute()
    other = statistic.empty()
    other.load_state(statistic.state())
    other.update(*pair())
    assert_close(statistic.compute(), expected, rtol=0, atol=0)
    with pytest.raises(ArtifactError, match="belongs to a statistic with other settings"):
        other.load_state({"seen": torch.zeros(2)})


def test_merging_leaves_the_other_as_it_was():
    one, other = gathered([pair()]), gathered([pair()])
    before = {name: each.clone() for name, each in other.state().items()}
    for statistic in (one, SummandShares()):
        statistic.merge(other)
        statistic.update(*pair())
    assert_close(other.state(), before, rtol=0, atol=0)
