import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive_quality import naive_rho
from torch.testing import assert_close

from captum_blackbox.patterns.least_squares import PatchSample, iterated_direction
from captum_blackbox.patterns.quality_criterion import Estimator, best_direction, factor
from captum_blackbox.statistics.correlation import Correlation
from captum_blackbox.statistics.patch_covariance import PatchCovariance

SIGMA_Y, SIGMA_NOISE = 1.3, 0.7


def rho(x, w, on, positive, negative=None, held_out=None):
    """The same by the closed form: x (samples, taps), all others one row for each unit."""
    x, w, on = x.double()[None], w.double()[None], on[None]
    estimator = Estimator.of(
        w, positive.double()[None], None if negative is None else negative.double()[None]
    )
    statistic = PatchCovariance(1, x.shape[2], w.shape[1])
    outputs = x @ w.mT
    statistic.update(x, torch.where(on, outputs, 0))
    moments = statistic.compute()
    v = best_direction(moments, factor(moments.covariance), w, estimator)
    if held_out is not None:
        x, on = held_out[0].double()[None], held_out[1][None]
        outputs = x @ w.mT
    residual = estimator.residual(v, x, outputs, on)
    correlation = Correlation((w.shape[1],))
    correlation.update(outputs[0], residual[0])
    found = correlation.compute()
    return 1 - found.correlation.where(found.second != 0, 0.0)


def scene(seed, samples=60, taps=5, units=3, mean=0.0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = normal(samples, taps) @ normal(taps, taps) + mean * normal(taps)
    w, bias = normal(units, taps), 0.5 * normal(units)
    on = x @ w.T + bias > 0
    return x, w, on, normal(units, taps), normal(units, taps)


def scaled(w, a):
    return a / (w * a).sum(-1, keepdim=True)


def toy(samples=400):
    """y and noise orthogonal in the sample: x = (1, 0) y + (1, 1) noise, w = (1, -1)."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(samples, 2, generator=generator, dtype=torch.float64)
    orthogonal = torch.linalg.qr(raw - raw.mean(0)).Q * samples**0.5
    y, noise = SIGMA_Y * orthogonal[:, 0], SIGMA_NOISE * orthogonal[:, 1]
    return torch.stack([y + noise, noise], 1), torch.tensor([[1.0, -1.0]], dtype=torch.float64)


@pytest.mark.parametrize("c", [-3.0, -0.5, 0.1, 1.0, 20.0])
def test_the_toy_has_the_published_quality(c):
    x, w = toy()
    pattern = torch.tensor([[1 + c, c]], dtype=torch.float64)
    found = rho(x, w, torch.ones(len(x), 1, dtype=torch.bool), pattern)
    expected = 1 - abs(c) * SIGMA_Y / (c**2 * SIGMA_Y**2 + SIGMA_NOISE**2) ** 0.5
    assert abs(found.item() - expected) < 1e-12


def test_the_filter_of_the_toy_has_the_published_quality():
    x, w = toy()
    found = rho(x, w, torch.ones(len(x), 1, dtype=torch.bool), w)
    assert abs(found.item() - (1 - SIGMA_Y / (SIGMA_Y**2 + 4 * SIGMA_NOISE**2) ** 0.5)) < 1e-12


def test_the_true_pattern_of_the_toy_is_perfect():
    x, w = toy()
    found = rho(x, w, torch.ones(len(x), 1, dtype=torch.bool), torch.tensor([[1.0, 0.0]]).double())
    assert found.item() == 1


@given(seed=st.integers(0, 2**31), mean=st.sampled_from([0.0, 3.0]), units=st.integers(1, 4))
def test_the_closed_form_is_the_definition(seed, mean, units):
    x, w, on, positive, negative = scene(seed, units=units, mean=mean)
    on[0], on[1] = True, False  # each unit has both regimes
    one, two = rho(x, w, on, positive), rho(x, w, on, positive, negative)
    a, b = scaled(w, positive).numpy(), scaled(w, negative).numpy()
    for unit in range(units):
        arguments = x.numpy(), w[unit].numpy(), on[:, unit].numpy()
        assert one[unit].item() == pytest.approx(naive_rho(*arguments, a[unit]), abs=1e-7)
        assert two[unit].item() == pytest.approx(naive_rho(*arguments, a[unit], b[unit]), abs=1e-7)


@given(seed=st.integers(0, 2**31))
def test_on_held_out_data_it_is_the_definition(seed):
    x, w, on, positive, negative = scene(seed, samples=120)
    x, held_out = x.split(60)
    on, held_out_on = on.split(60)
    one = rho(x, w, on, positive, held_out=(held_out, held_out_on))
    two = rho(x, w, on, positive, negative, held_out=(held_out, held_out_on))
    a, b = scaled(w, positive).numpy(), scaled(w, negative).numpy()
    for unit in range(len(w)):
        arguments = x.numpy(), w[unit].numpy(), on[:, unit].numpy()
        other = held_out.numpy(), held_out_on[:, unit].numpy()
        expected = naive_rho(*arguments, a[unit], held_out=other)
        assert one[unit].item() == pytest.approx(expected, abs=1e-6)
        expected = naive_rho(*arguments, a[unit], b[unit], held_out=other)
        assert two[unit].item() == pytest.approx(expected, abs=1e-6)


@given(seed=st.integers(0, 2**31), samples=st.integers(3, 80), mean=st.sampled_from([0.0, 10.0]))
def test_quality_on_the_data_it_was_fitted_to_lies_between_0_and_1(seed, samples, mean):
    x, w, on, positive, negative = scene(seed, samples=samples, mean=mean)
    for found in (rho(x, w, on, positive), rho(x, w, on, positive, negative)):
        assert (found > -1e-9).all()
        assert (found < 1 + 1e-6).all()


@given(seed=st.integers(0, 2**31), mean=st.sampled_from([0.0, 10.0]))
def test_the_linear_pattern_is_perfect_on_the_data_it_was_fitted_to(seed, mean):
    x, w, on, _, _ = scene(seed, mean=mean)
    centred = x - x.mean(0)
    pattern = (centred.T @ (centred @ w.T)).T
    assert_close(rho(x, w, on, pattern), torch.ones(3).double(), rtol=0, atol=1e-6)


@given(seed=st.integers(0, 2**31))
def test_a_single_tap_leaves_no_residual_and_is_perfect(seed):
    x, w, on, positive, _ = scene(seed, taps=1, mean=1.0)
    assert (rho(x, w, on, positive) == 1).all()


@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 0.5, 40.0]))
def test_the_scale_of_weight_and_pattern_does_not_matter(seed, scale):
    x, w, on, positive, negative = scene(seed)
    expected = rho(x, w, on, positive, negative)
    assert_close(rho(x, scale * w, on, positive, negative), expected, rtol=1e-8, atol=1e-8)
    assert_close(rho(x, w, on, -scale * positive, negative), expected, rtol=1e-8, atol=1e-8)
    assert_close(rho(scale * x, w, on, positive, negative), expected, rtol=1e-8, atol=1e-8)


def test_two_equal_components_are_one():
    x, w, on, positive, _ = scene(5)
    assert_close(rho(x, w, on, positive, positive), rho(x, w, on, positive), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("always", [True, False])
def test_a_unit_that_never_switches_has_the_pattern_in_use(always):
    x, w, on, positive, negative = scene(6)
    on = torch.full_like(on, always)
    expected = rho(x, w, on, positive if always else negative)
    assert_close(rho(x, w, on, positive, negative), expected, rtol=1e-6, atol=1e-6)


def test_an_input_that_never_varies_betrays_a_pattern_that_points_there():
    x, w, on, positive, _ = scene(7)
    x[:, 0] = 0.0
    on = x @ w.T > 0
    found = rho(x, w, on, positive)
    assert (found < 1e-6).all()
    for unit in range(3):
        a = scaled(w, positive)[unit].numpy()
        assert naive_rho(x.numpy(), w[unit].numpy(), on[:, unit].numpy(), a) < 1e-6
    # The ridge in place of the pseudo-inverse costs less than its own size.
    positive[:, 0] = 0.0
    inside = rho(x, w, on, positive)
    assert_close(inside, rho(x[:, 1:], w[:, 1:], on, positive[:, 1:]), rtol=1e-4, atol=1e-4)


def test_a_covariance_that_is_singular_but_for_rounding_gets_a_ridge():
    nearly = torch.tensor([[[1.0, 1.0], [1.0, 1 + 1e-14]], [[2.0, 0.0], [0.0, 1e-8]]]).double()
    nearly[0, 1, 1] += 1e-14
    lower = factor(nearly)
    ridge = torch.stack([1e-6 * torch.eye(2), torch.zeros(2, 2)]).double()
    assert_close(lower @ lower.mT, nearly + ridge, rtol=0, atol=1e-12)


def test_fewer_samples_than_taps_leave_nothing_untold():
    x, w, on, positive, _ = scene(8, samples=6, taps=12)
    assert (rho(x, w, on, positive) < 0.01).all()


def test_a_pattern_of_zeros_spoils_only_its_own_unit():
    x, w, on, positive, negative = scene(9)
    expected = rho(x, w, on, positive, negative)
    positive[1] = 0.0
    found = rho(x, w, on, positive, negative)
    assert found.isnan().tolist() == [False, True, False]
    assert_close(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("samples", [2000])
def test_batches_come_to_the_closed_form(samples):
    x, w, on, positive, negative = scene(10, samples=2 * samples, taps=8, mean=1.0)
    x, held_out = x.split(samples)
    on, held_out_on = on.split(samples)
    for patterns in ([positive], [positive, negative]):
        estimator = Estimator.of(w[None], *(each[None] for each in patterns))
        v = iterated_direction(x.float()[None], on[None], w[None], estimator)
        outputs = held_out @ w.T
        residual = estimator.residual(v, held_out[None], outputs[None], held_out_on[None])
        correlation = Correlation((3,))
        correlation.update(outputs, residual[0])
        expected = rho(x, w, on, *patterns, held_out=(held_out, held_out_on))
        found = 1 - correlation.compute().correlation
        assert_close(found, expected, rtol=0, atol=1e-5)


def test_batches_spare_a_unit_without_a_pattern():
    x, w, on, positive, _ = scene(11)
    expected = iterated(x, w, on, positive)
    positive[1] = 0.0
    found = iterated(x, w, on, positive)
    assert found[0, 1].isnan().all()
    assert_close(found[:, [0, 2]], expected[:, [0, 2]], rtol=0, atol=0)


def iterated(x, w, on, positive):
    estimator = Estimator.of(w[None], positive[None])
    return iterated_direction(x.float()[None], on[None], w[None], estimator)


def test_a_patch_sample_keeps_everything_until_it_is_full_and_then_a_fair_share():
    def sample(rows):
        found = PatchSample(
            1, 1, 1, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"),
            memory=4 * 100,
        )  # fmt: skip
        for part in rows.split(37):
            found.update(part[None, :, None], (part % 2 > 0)[None, :, None])
        return found.kept()

    few, on = sample(torch.arange(60.0))
    assert few.flatten().tolist() == list(range(60))
    kept, on = sample(torch.arange(1000.0))
    assert kept.shape == (1, 100, 1)
    assert len(kept.unique()) == 100
    assert torch.equal(on, kept % 2 > 0)
    # Uniform on 0..999: the mean of 100 has a standard error of 29.
    assert abs(kept.mean().item() - 499.5) < 90
