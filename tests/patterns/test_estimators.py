"""The signal estimators, beside the formulas of the paper in NumPy."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pattern_networks import naive_pattern
from torch import nn
from torch.testing import assert_close

from captum_blackbox.patterns import fit_patterns
from captum_blackbox.patterns.estimators import components_of, estimate
from captum_blackbox.patterns.linear_layers import LinearLayer
from captum_blackbox.statistics import RegimeCovariance

ESTIMATES = ("filter", "linear", "positive", "negative")


def moments_of(weight, x, bias=None):
    """Return what a layer of these rows gathers of x, and its mean outputs."""
    layer = nn.Linear(weight.shape[1], len(weight)).double()
    layer.weight.data = weight.clone()
    layer.bias.data = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias
    statistic = RegimeCovariance(LinearLayer.of(layer))
    for batch in x.split(max(37, len(x) // 5)):  # uneven
        statistic.update(batch, layer(batch).detach())
    return statistic.compute(), statistic.mean_outputs


def patterns_of(component, weight, x, bias=None, **settings):
    return estimate(component, weight, *moments_of(weight, x, bias), **settings)


def toy(theta=math.pi / 4, n=400, exact=True, seed=0):
    """Return x = (1, 0) y + (cos θ, sin θ) ε and the filter that finds y."""
    generator = torch.Generator().manual_seed(seed)
    y, epsilon = 2 * torch.rand(2, n, generator=generator, dtype=torch.float64) - 1
    if exact:  # ε orthogonal in-sample to 1 and to y, within each sign of y
        for chosen in (y > 0, y <= 0):
            known = torch.stack([torch.ones_like(y[chosen]), y[chosen]], 1)
            solution = torch.linalg.lstsq(known, epsilon[chosen, None]).solution
            epsilon[chosen] -= (known @ solution)[:, 0]
    distractor = torch.tensor([math.cos(theta), math.sin(theta)], dtype=torch.float64)
    x = torch.stack([y, torch.zeros_like(y)], 1) + epsilon[:, None] * distractor
    return x, torch.tensor([[1.0, -1 / math.tan(theta)]], dtype=torch.float64)


@pytest.mark.parametrize("theta", [0.3, math.pi / 4, 1.2, 2.0, 2.9])
@pytest.mark.parametrize("component", ["linear", "positive", "negative"])
def test_the_pattern_of_the_toy_is_its_signal_however_the_distractor_turns_the_weight(
    theta, component
):
    x, w = toy(theta)
    found = patterns_of(component, w, x, regime_centering=component != "linear")
    signal = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert_close(found.rows, signal, rtol=0, atol=1e-9)
    assert_close(w * found.rows, signal, rtol=0, atol=1e-9)
    assert patterns_of("filter", w, x).rows[0, 0] < 0.999  # the weight itself is not


def test_the_pattern_of_the_toy_is_found_from_samples_within_two_hundredths():
    x, w = toy(n=100_000, exact=False)
    for component in ("linear", "positive", "negative"):
        found = patterns_of(component, w, x).rows
        assert (found - torch.tensor([1.0, 0.0])).abs().max() < 0.02


@pytest.mark.parametrize("component", ESTIMATES)
@pytest.mark.parametrize("is_centred", [False, True])
def test_patterns_are_those_of_the_paper_and_project_to_one(component, is_centred):
    x = torch.randn(300, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64) + 0.7
    weight = torch.randn(5, 4, dtype=torch.float64)
    bias = -(x @ weight.T).mean(0) + 0.1
    found = patterns_of(component, weight, x, bias, regime_centering=is_centred)
    y = x @ weight.T + bias
    for unit in range(5):
        expected = naive_pattern(component, weight[unit], x, y[:, unit], is_centred=is_centred)
        assert_close(found.rows[unit], torch.from_numpy(expected), rtol=1e-9, atol=1e-9)
    assert_close((found.rows * weight).sum(1), torch.ones(5, dtype=torch.float64))
    assert found.rows.dtype == torch.float64 and not found.degenerate.any()


@given(st.integers(0, 10_000), st.sampled_from(["linear", "positive", "negative"]))
def test_a_bias_that_moves_no_sample_across_zero_changes_no_pattern(seed, component):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(1, 3, generator=generator, dtype=torch.float64)
    y = (x @ weight.T)[:, 0]
    lowest = float(y[y > 0].min())
    # Moved by less than the smallest output above 0: the same samples stay above.
    bias = torch.tensor([-lowest / 2], dtype=torch.float64)
    moved = patterns_of(component, weight, x, bias).rows
    assert_close(moved, patterns_of(component, weight, x).rows, rtol=1e-7, atol=1e-9)


def linear_data(mean, n=500, taps=3):
    """Return x = E[x] + a (y - E[y]) + n, with n orthogonal to (1, y) in each regime."""
    w, a = torch.randn(2, taps, dtype=torch.float64)
    a = a / (w @ a)
    y = torch.randn(n, dtype=torch.float64) + float(w @ mean)
    noise = torch.randn(n, taps, dtype=torch.float64)
    noise -= torch.outer(noise @ w, a)  # wᵀn = 0
    for chosen in (y > 0, y <= 0):
        known = torch.stack([torch.ones_like(y[chosen]), y[chosen]], 1)
        noise[chosen] -= known @ torch.linalg.lstsq(known, noise[chosen]).solution
    x = mean + torch.outer(y - y.mean(), a) + noise
    x += torch.outer(y - x @ w, a)  # so that y is wᵀx to the last bit of its mean
    return w, a, x, y


@pytest.mark.parametrize("component", ["positive", "negative"])
def test_on_linear_data_a_regime_is_drawn_to_the_mean_and_centring_within_it_is_not(component):
    mean = torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64)
    w, a, x, y = linear_data(mean)
    chosen = y > 0 if component == "positive" else y <= 0
    inside = y[chosen]
    delta = inside.mean() - y.mean()
    kappa = (inside**2).mean() - 2 * y.mean() * inside.mean() + y.mean() ** 2
    numerator = delta * x.mean(0) + kappa * a
    expected = numerator / (w @ numerator)
    found = patterns_of(component, w[None], x).rows[0]
    assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert (found - a).abs().max() > 0.01
    centred = patterns_of(component, w[None], x, regime_centering=True).rows[0]
    assert_close(centred, a, rtol=1e-9, atol=1e-9)
    assert_close(patterns_of("linear", w[None], x).rows[0], a, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("component", ["positive", "negative"])
def test_on_linear_data_without_a_mean_every_estimator_finds_the_signal(component):
    w, a, x, _ = linear_data(torch.zeros(3, dtype=torch.float64))
    x -= x.mean(0)
    chosen = (x @ w) > 0
    for mask in (chosen, ~chosen):  # moving the mean away moved some samples across 0
        y = (x @ w)[mask]
        known = torch.stack([torch.ones_like(y), y], 1)
        rest = x[mask] - torch.outer(y, a)
        x[mask] -= known @ torch.linalg.lstsq(known, rest).solution
    found = patterns_of(component, w[None], x).rows[0]
    assert_close(found, a, rtol=1e-9, atol=1e-9)


def test_units_without_a_pattern_get_zero_and_are_listed():
    x = torch.randn(200, 3, dtype=torch.float64)
    x[:, 2] = 5.0  # a constant input
    weight = torch.tensor(
        [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]],
        dtype=torch.float64,
    )
    # ordinary, dead, constant above 0, no weight at all, one with the constant input
    bias = torch.tensor([0.0, -100.0, 0.0, 1.0, -5.0], dtype=torch.float64)
    positive = patterns_of("positive", weight, x, bias)
    assert positive.degenerate.tolist() == [False, True, True, True, False]
    linear = patterns_of("linear", weight, x, bias)
    assert linear.degenerate.tolist() == [False, False, True, True, False]
    negative = patterns_of("negative", weight, x, bias)
    assert negative.degenerate.tolist() == [False, False, True, True, False]
    for found in (positive, linear, negative):
        assert found.rows.isfinite().all()
        assert (found.rows[found.degenerate] == 0).all()
        assert not (found.degenerate & found.unstable).any()
    assert linear.rows[0, 2] == 0  # a constant input carries no signal
    assert patterns_of("filter", weight, x).degenerate.tolist() == [False] * 3 + [True, False]


def test_a_unit_constant_but_for_rounding_has_no_pattern_in_float32():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with torch.no_grad():
        model[0].weight[0] = torch.tensor([0.1, 0.2, 0.3])
        model[0].weight[1] = torch.tensor([0.0, 1.0, 0.0])
    x = torch.full((500, 3), 0.7)
    x[:, 1] = 0.7 + torch.rand(500)
    x[:, 0] = 0.7 - 2 * (x[:, 1] - 0.7)  # unit 0 sees its inputs cancel
    fitted = fit_patterns(model, x, ["linear"], show_progress=False)["linear"]
    assert fitted.report.degenerate_units == {"0": [0]}
    assert (fitted["0"][0] == 0).all() and (fitted["0"][1] != 0).any()


def test_units_whose_numerator_hardly_lies_along_the_weight_are_listed_and_kept():
    # Positive samples are rare: E₊[x] (E₊[y] - E[y]) takes over, along a large mean.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    x[:, 1] += 1000
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.001]], dtype=torch.float64)
    found = patterns_of("positive", weight, x, torch.tensor([0.0, -1.0], dtype=torch.float64))
    assert found.unstable.tolist() == [True, True] and not found.degenerate.any()
    assert_close((found.rows * weight).sum(1), torch.ones(2, dtype=torch.float64))
    centred = patterns_of("positive", weight, x, regime_centering=True)
    assert centred.unstable.tolist() == [False, False]


def test_a_pattern_turned_around_is_unstable_and_keeps_its_sign():
    # Larger outputs come with a smaller projection: w points against its numerator.
    x = torch.tensor([[3.0, 0.0], [-5.0, 6.0], [-1.0, 2.0], [1.0, 0.5]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    bias = torch.tensor([100.0], dtype=torch.float64)
    mean = torch.tensor([200.0], dtype=torch.float64)
    moments, _ = moments_of(weight, x, bias)
    found = estimate("positive", weight, moments, mean)
    y = x @ weight[0] + 100
    numerator = (x * y[:, None]).mean(0) - x.mean(0) * 200
    expected = numerator / (weight[0] @ numerator)
    assert_close(found.rows[0], expected, rtol=1e-9, atol=1e-9)
    assert bool(found.unstable[0]) == bool(weight[0] @ numerator < 0.01 * numerator.norm())


@pytest.mark.parametrize(
    ("regime", "final", "is_gated", "expected"),
    [
        ("positive", "positive", True, ("positive",)),
        ("positive", "positive", False, ("positive",)),
        ("positive", "linear", True, ("positive",)),
        ("positive", "linear", False, ("linear",)),
        ("negative", "positive", True, ("negative",)),
        ("negative", "positive", False, ("positive",)),
        ("negative", "linear", False, ("linear",)),
        ("two_component", "positive", True, ("positive", "negative")),
        ("two_component", "positive", False, ("positive", "negative")),
        ("two_component", "linear", True, ("positive", "negative")),
        ("two_component", "linear", False, ("linear",)),
        *[("linear", f, g, ("linear",)) for f in ("positive", "linear") for g in (True, False)],
        *[("filter", f, g, ("filter",)) for f in ("positive", "linear") for g in (True, False)],
    ],
)
def test_what_a_pattern_is_made_of(regime, final, is_gated, expected):
    assert components_of(regime, final, is_gated=is_gated) == expected
