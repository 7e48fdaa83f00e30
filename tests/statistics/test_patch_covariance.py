import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from captum_blackbox.errors import ArtifactError, InputError
from captum_blackbox.statistics.correlation import Correlation
from captum_blackbox.statistics.patch_covariance import PatchCovariance

GROUPS, TAPS, UNITS, SAMPLES = 2, 3, 4, 40


def drawn(seed, mean=0.0):
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(GROUPS, SAMPLES, TAPS, generator=generator, dtype=torch.float64) + mean
    active = torch.randn(GROUPS, SAMPLES, UNITS, generator=generator, dtype=torch.float64).relu()
    return patches, active


def seen(*batches):
    statistic = PatchCovariance(GROUPS, TAPS, UNITS)
    for batch in batches:
        statistic.update(*batch)
    return statistic


def in_parts(patches, active, cuts):
    return zip(patches.tensor_split(cuts, dim=1), active.tensor_split(cuts, dim=1), strict=True)


cuts = st.lists(st.integers(0, SAMPLES), max_size=5).map(sorted)
seeds = st.integers(0, 2**31)


def test_the_moments_are_those_of_numpy():
    patches, active = drawn(0)
    moments = seen((patches, active)).compute()
    for group in range(GROUPS):
        assert_close(moments.mean[group], patches[group].mean(0))
        for unit in range(UNITS):
            together = torch.cat([patches[group], active[group, :, unit, None]], 1)
            expected = torch.from_numpy(together.numpy().T.copy()).cov(correction=0)
            assert_close(moments.covariance[group], expected[:TAPS, :TAPS])
            assert_close(moments.cross[group, unit], expected[TAPS, :TAPS])
            assert_close(moments.active_variance[group, unit], expected[TAPS, TAPS])


@given(cuts=cuts, seed=seeds)
def test_cuts_into_batches_do_not_matter(cuts, seed):
    patches, active = drawn(seed)
    whole = seen((patches, active))
    parts = seen(*in_parts(patches, active, cuts))
    assert parts.samples == SAMPLES
    assert_close(parts.state(), whole.state(), rtol=1e-11, atol=1e-11)


@given(cuts=cuts, seed=seeds, data=st.data())
def test_merging_parts_in_any_order_gives_the_whole(cuts, seed, data):
    patches, active = drawn(seed)
    parts = [seen(part) for part in in_parts(patches, active, cuts)]
    merged = PatchCovariance(GROUPS, TAPS, UNITS)
    for part in data.draw(st.permutations(parts)):
        merged.merge(part)
    assert_close(merged.state(), seen((patches, active)).state(), rtol=1e-11, atol=1e-11)


def test_a_large_mean_does_not_matter():
    patches, active = drawn(1)
    shifted = seen(*in_parts(patches + 2.0**20, active, [7, 19]))
    assert_close(
        shifted.compute().covariance,
        seen((patches, active)).compute().covariance,
        rtol=1e-8,
        atol=1e-8,
    )


def test_a_state_is_taken_up_whole_and_apart():
    first, second = drawn(2), drawn(3)
    origin = seen(first)
    loaded = seen(second)
    loaded.load_state(origin.state())
    loaded.update(*second)
    assert_close(origin.state(), seen(first).state(), rtol=0, atol=0)
    assert_close(loaded.state(), seen(first, second).state(), rtol=0, atol=0)
    assert_close(loaded.empty().state(), PatchCovariance(GROUPS, TAPS, UNITS).state())


def test_the_state_of_another_statistic_is_refused():
    statistic = seen(drawn(0))
    before = {name: tensor.clone() for name, tensor in statistic.state().items()}
    with pytest.raises(ArtifactError) as refused:
        statistic.load_state(PatchCovariance(GROUPS, TAPS, UNITS + 1).state())
    assert str(refused.value) == (
        "this state belongs to a statistic of other sizes: 'active_mean' is (2, 5) in it, (2, 4) "
        "here"
    )
    assert_close(statistic.state(), before)


def test_nothing_seen_has_no_moments():
    with pytest.raises(InputError, match="^no sample was seen, so there is no covariance$"):
        PatchCovariance(1, 1, 1).compute()
    with pytest.raises(InputError, match="^no sample was seen, so there is no correlation$"):
        Correlation((1,)).compute()


def pairs(seed, mean=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, SAMPLES, 3, generator=generator, dtype=torch.float64) + mean


def correlated(*batches):
    statistic = Correlation((3,))
    for first, second in batches:
        statistic.update(first, second)
    return statistic


def test_the_correlation_is_that_of_numpy():
    first, second = pairs(0, mean=5.0)
    found = correlated((first, second)).compute()
    for unit in range(3):
        expected = torch.stack([first[:, unit], second[:, unit]])
        assert_close(found.correlation[unit], expected.corrcoef()[0, 1])
        assert_close(found.first[unit], expected.cov(correction=0)[0, 0])


@given(cuts=cuts, seed=seeds, data=st.data())
def test_correlation_does_not_depend_on_cuts_or_order(cuts, seed, data):
    first, second = pairs(seed, mean=100.0)
    parts = list(zip(first.tensor_split(cuts), second.tensor_split(cuts), strict=True))
    whole = correlated((first, second)).state()
    assert_close(correlated(*parts).state(), whole, rtol=1e-10, atol=1e-10)
    merged = Correlation((3,))
    for part in data.draw(st.permutations(parts)):
        merged.merge(correlated(part))
    assert_close(merged.state(), whole, rtol=1e-10, atol=1e-10)


def test_a_correlation_is_taken_up_and_another_shape_refused():
    origin, batch = correlated(pairs(0)), pairs(1)
    loaded = origin.empty()
    loaded.load_state(origin.state())
    loaded.update(*batch)
    assert_close(loaded.state(), correlated(pairs(0), batch).state(), rtol=0, atol=0)
    assert origin.samples == SAMPLES
    with pytest.raises(ArtifactError) as refused:
        origin.load_state(Correlation((4,)).state())
    assert str(refused.value) == (
        "this state belongs to a statistic of another shape: (4,) in it, (3,) here"
    )
