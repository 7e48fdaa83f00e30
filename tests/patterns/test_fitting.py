"""Patterns fitted through a network, beside the definition of the paper."""

import copy
import re
from collections import OrderedDict
from pathlib import Path

import fitting_job
import numpy as np
import pytest
import torch
from networks import State
from pattern_networks import (
    Residual,
    SharedLayer,
    Siamese,
    centred,
    naive_pattern,
    naive_taps,
    with_statistics,
)
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import _get_current_function_mode_stack
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from captum_blackbox.errors import InputError, LayerError
from captum_blackbox.patterns import PatternAttribution, PatternNet, Patterns, fit_patterns
from captum_blackbox.patterns.estimators import components_of

# Small networks of random weights have such units; test_estimators.py is about them.
pytestmark = pytest.mark.filterwarnings("ignore:.* have patterns that are huge or turned around")

ALL = ("positive", "negative", "two_component", "linear", "filter")
JOB = Path(fitting_job.__file__)


def fit(model, loader, regime="positive", **settings):
    return Patterns.fit(model, loader, regime=regime, show_progress=False, **settings)


def residual():
    model = with_statistics(Residual()).double()
    return centred(model, torch.randn(50, 2, 6, 6, dtype=torch.float64))


def images(n=30, channels=2):
    return torch.randn(n, channels, 6, 6, dtype=torch.float64)


def assert_same(found, expected, **tolerance):
    """Compare everything that patterns hold but the report."""
    assert list(found) == list(expected)
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    assert_close(dict(found), dict(expected), **tolerance)
    assert_close(found.negative, expected.negative, **tolerance)
    assert_close(found.shares, expected.shares, **tolerance)
    assert found.structure == expected.structure
    assert found.report.degenerate_units == expected.report.degenerate_units
    assert found.report.unstable_units == expected.report.unstable_units


NEAR = {"rtol": 1e-8, "atol": 1e-9}


DATA = torch.randn(23, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PAIRS = TensorDataset(DATA, torch.arange(23))


# Layers.


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), bias=False),
        lambda: nn.Conv2d(2, 4, 3, padding=2, dilation=2, groups=2),
        lambda: nn.Conv2d(2, 4, 3, padding="same", padding_mode="circular"),
        lambda: nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
        lambda: nn.Conv2d(2, 4, 1),
        lambda: nn.Conv2d(2, 4, 6),
    ],
    ids=["strided", "dilated", "circular", "transposed", "1 x 1", "full size"],
)
@pytest.mark.parametrize("regime", ["positive", "linear"])
def test_a_convolution_has_the_pattern_of_a_linear_layer_on_its_patches(build, regime):
    layer, data = build().double(), images(20) + 0.3
    patterns = fit(nn.Sequential(layer, nn.ReLU()), data.split(7), regime)
    taps = torch.stack(naive_taps(layer, data, 4))  # weights, n, units, *positions
    outputs = layer(data).detach()
    weight = layer.weight.detach()
    for unit in range(4):
        marked = torch.zeros_like(weight)
        if isinstance(layer, nn.ConvTranspose2d):
            marked[unit // 2, unit % 2] = 1
        else:
            marked[unit] = 1
        own = marked.reshape(-1).nonzero()[:, 0]
        x = taps[own, :, unit].flatten(1).T
        linear = nn.Linear(x.shape[1], 1).double()
        linear.weight.data = weight.reshape(-1)[own][None]
        linear.bias.data = (
            torch.zeros(1) if layer.bias is None else layer.bias.data[unit : unit + 1]
        )
        linear.bias.data = linear.bias.data.double()
        assert_close(linear(x).detach()[:, 0], outputs[:, unit].flatten())
        expected = fit(nn.Sequential(linear, nn.ReLU()), x.split(100), regime)["0"][0]
        assert_close(patterns["0"].reshape(-1)[own], expected, **NEAR)
        naive = naive_pattern(regime, linear.weight[0].detach(), x, outputs[:, unit].flatten())
        assert_close(expected.numpy(), naive, rtol=1e-8, atol=1e-9)


def fused(model):
    other = copy.deepcopy(model)
    other.conv = fuse_conv_bn_eval(other.conv, other.norm)
    other.norm = nn.Identity()
    return other


@pytest.mark.parametrize("regime", ["positive", "two_component", "linear", "filter"])
def test_batch_norm_folded_in_or_not_gives_the_same_patterns_and_maps(regime):
    model, data = residual(), images()
    assert_close(fused(model)(data), model(data))
    one, other = fit(model, data, regime), fit(fused(model), data, regime)
    assert_close(dict(other), dict(one), **NEAR)
    assert_close(other.negative, one.negative, **NEAR)
    assert one.structure.layers["conv"].norm == "norm"
    for method in (PatternNet, PatternAttribution):
        expected = method(model, one).attribute(data[:4], target=1)
        assert_close(method(fused(model), other).attribute(data[:4], target=1), expected, **NEAR)


@pytest.mark.parametrize("replacement", [nn.Identity(), None], ids=["identity", "removed"])
def test_patterns_are_good_for_the_network_with_batch_norm_folded_in_since(replacement):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten()).double()
    data = images()
    patterns = fit(with_statistics(model), data)
    folded = copy.deepcopy(model)
    folded[0] = fuse_conv_bn_eval(folded[0], folded[1])
    folded[1] = replacement or nn.Identity()
    if replacement is None:  # the other modules keep their names
        parts = [(name, each) for name, each in folded.named_children() if name != "1"]
        folded = nn.Sequential(OrderedDict(parts))
    for method in (PatternNet, PatternAttribution):
        expected = method(model, patterns).attribute(data[:4], target=1)
        assert_close(method(folded, patterns).attribute(data[:4], target=1), expected, **NEAR)


def test_a_layer_that_runs_twice_is_fitted_to_both_runs():
    model, data = with_statistics(SharedLayer()).double(), images(12)
    patterns = fit(model, data.split(5), "linear")
    plain = fuse_conv_bn_eval(model.conv, model.norm)
    middle = plain(data).relu()
    x = torch.cat([torch.stack(naive_taps(plain, each, 2)) for each in (data, middle)], 1).detach()
    y = torch.cat([plain(data), plain(middle)]).detach()
    for unit in range(2):
        w = plain.weight[unit].detach().flatten()
        seen = x[unit * 18 : (unit + 1) * 18, :, unit].flatten(1).T
        naive = naive_pattern("linear", w, seen, y[:, unit].flatten())
        assert_close(patterns["conv"][unit].flatten().numpy(), naive, rtol=1e-8, atol=1e-9)


def test_two_runs_before_the_batch_norm_are_told_apart():
    model, data = with_statistics(Siamese()).double(), images(20, channels=4)
    patterns = fit(model, data, "linear")
    plain = fuse_conv_bn_eval(model.conv, model.norm)
    halves = torch.cat([data[:, :2], data[:, 2:]])
    expected = fit(nn.Sequential(plain), halves, "linear")["0"]
    assert_close(patterns["conv"], expected, **NEAR)


def test_layers_can_be_chosen_and_the_others_pass_the_gradient():
    model, data = residual(), images()
    chosen = fit(model, data, layers=["conv", "head"])
    assert list(chosen) == ["conv", "head"]
    assert_same(fit(model, data).structure.only(["conv", "head"]) and chosen, chosen)
    assert_close(chosen["conv"], fit(model, data)["conv"], rtol=0, atol=0)
    with pytest.raises(LayerError, match="has no layer 'convv'; the nearest names are 'conv'"):
        fit(model, data, layers=["convv"])


def test_layers_that_have_no_patterns_cannot_be_chosen():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with pytest.raises((LayerError, InputError), match="1"):
        fit(model, torch.randn(9, 3), layers=["1"])


# Regimes.


@pytest.mark.parametrize("final", ["positive", "linear"])
def test_several_regimes_in_one_pass_equal_one_pass_for_each(final):
    model, data = residual(), images()
    together = fit_patterns(model, data, ALL, final=final, show_progress=False)
    assert list(together) == list(ALL)
    for regime, found in together.items():
        assert (found.regime, found.final) == (regime, final)
        assert bool(found.negative) == (regime == "two_component")
        alone = fit(model, data, regime, final=final)
        assert_same(found, alone, **NEAR)


@pytest.mark.parametrize("final", ["positive", "linear"])
@pytest.mark.parametrize("is_centred", [False, True])
def test_patterns_of_a_network_are_those_of_the_paper(final, is_centred):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    data = torch.randn(200, 4, dtype=torch.float64) + 0.5
    found = fit_patterns(
        model, data, ALL, final=final, regime_centering=is_centred, show_progress=False
    )
    for name, x in (("0", data), ("2", model[:2](data).detach())):
        y, weight = model[int(name)](x).detach(), model[int(name)].weight.detach()
        for regime, patterns in found.items():
            components = components_of(regime, final, is_gated=name == "0")
            tensors = [patterns[name], *([patterns.negative[name]] if len(components) > 1 else [])]
            for component, tensor in zip(components, tensors, strict=True):
                for unit in range(len(weight)):
                    centred = is_centred and component in ("positive", "negative")
                    expected = naive_pattern(
                        component, weight[unit], x, y[:, unit], is_centred=centred
                    )
                    assert_close(tensor[unit].numpy(), expected, rtol=1e-8, atol=1e-9)


def test_the_filter_needs_no_pass_over_the_data():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()).eval()
    ran = []
    model.register_forward_pre_hook(lambda *_: ran.append(1))
    patterns = fit(model, [torch.rand(2, 2, 6, 6)] * 50, "filter")
    assert len(ran) == 1  # tracing
    weight = model[0].weight.detach()[0]
    assert_close(patterns["0"][0], weight / weight.square().sum())
    assert patterns.report.images == 0


def test_shares_are_the_covariance_of_a_summand_with_the_sum():
    model, data = residual(), images(25)
    shares = fit(model, data.split(4)).shares
    stem = model.stem(data).relu()
    pair = [model.norm(model.conv(stem)), stem]
    pair = [each.detach().movedim(1, 0).flatten(1).numpy() for each in pair]
    total = pair[0] + pair[1]
    for channel in range(3):
        for which in (0, 1):
            expected = np.cov(pair[which][channel], total[channel], bias=True)
            naive = expected[0, 1] / expected[1, 1]
            assert abs(float(shares[":0"][which, channel]) - naive) < 1e-6
    assert set(shares) == {":0"}


# The published example of two networks that compute the same.


@pytest.fixture(scope="module")
def published():
    """Data of the PGIG notebook, and both networks; 8 digits were printed there."""
    random = np.random.RandomState(42)
    first = random.normal(0, 0.7, size=5000)
    is_same = random.choice([False, True], 5000, p=[0.5, 0.5])
    data = torch.from_numpy(np.stack([first, np.where(is_same, first, -first)], 1)).split(999)

    def layer(weight, bias):
        made = nn.Linear(len(weight), 1).double()
        made.weight.data, made.bias.data = (
            torch.tensor([weight]).double(),
            torch.tensor([bias]).double(),
        )
        return made

    one = nn.Sequential(layer([1.0, 2.0], 0.0), nn.ReLU(), layer([1.0], -1.0))
    other = nn.Sequential(layer([1.0, 2.0], -1.0))
    return data, one, other


def test_the_published_patterns_and_attributions_are_reproduced(published):
    data, one, other = published
    expected = {
        one: ([0.20428254, 0.39785873], [1.6342603, 6.3657397]),
        other: ([0.26148377, 0.36925811], [2.09187018, 5.90812982]),
    }
    point = torch.tensor([[3.0, 3.0]], dtype=torch.float64)
    for model, (pattern, attribution) in expected.items():
        patterns = fit(model, data)
        assert_close(patterns["0"][0], torch.tensor(pattern).double(), rtol=0, atol=1e-7)
        maps = PatternAttribution(model, patterns).attribute(point)
        # Printed from float32: its last digit is worth up to 2e-7.
        assert_close(maps[0], torch.tensor(attribution).double(), rtol=0, atol=2e-7)
        assert_close(maps.sum(1), torch.tensor([8.0], dtype=torch.float64))


def test_networks_that_compute_the_same_may_have_different_patterns(published):
    data, one, other = published
    positive = data[0][(one[0](data[0]) > 1.5)[:, 0]]
    assert_close(one(positive), other(positive))  # the same function there
    assert (fit(one, data)["0"] - fit(other, data)["0"]).abs().max() > 0.02
    linear = [fit(model, data, "linear")["0"] for model in (one, other)]
    assert_close(linear[0], linear[1])  # a bias moves no linear pattern


# The model.


def test_fitting_leaves_the_model_as_it_was():
    model = centred(Residual().eval(), torch.rand(50, 2, 6, 6)).train()
    model.norm.eval()
    model.stem.weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = State(model)
    fit_patterns(model, torch.rand(20, 2, 6, 6), ALL, show_progress=False)
    assert State(model).differences(before) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_forward_pass_that_breaks_leaves_the_model_as_it_was(error):
    model = Residual().train()
    ran = []

    def broken(*_):
        ran.append(1)
        if len(ran) == 3:
            raise error("broken")

    model.head.register_forward_pre_hook(broken)
    before = State(model)
    try:
        with pytest.raises(error):
            fit(model, torch.rand(20, 2, 6, 6).split(4))
        assert State(model).differences(before) == []
        assert _get_current_function_mode_stack() == []
    finally:
        for mode in reversed(_get_current_function_mode_stack()):  # not to harm other tests
            mode.__exit__(None, None, None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_model_in_half_precision_has_nearly_the_same_patterns_in_float32(dtype):
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    half = copy.deepcopy(model).to(dtype)
    exact = copy.deepcopy(half).double()
    data = torch.randn(500, 6).to(dtype)
    found, expected = fit(half, data, "linear"), fit(exact, data.double(), "linear")
    for name in found:
        assert found[name].dtype == torch.float32
        error = (found[name] - expected[name]).norm() / expected[name].norm()
        assert error < 0.05, (name, error)
    # Inputs in another type than the model's are moved.
    assert_close(dict(fit(half, data.float(), "linear")), dict(found))


def test_data_in_another_type_than_the_model_are_moved():
    model = nn.Sequential(nn.Linear(3, 2))
    assert_close(fit(model, DATA)["0"], fit(model, DATA.float())["0"])


def test_many_units_without_a_pattern_are_warned_of():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    model[0].bias.data[:3] = -100
    model[2].bias.data[:] = 0
    message = (
        "3 of 4 units of layer '0' have no pattern, since they are constant or never in the "
        "regime: what they do is not explained; is the data what the network was trained on?"
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        patterns = fit(model, DATA, "positive", final="linear")
    assert patterns.report.degenerate_units == {"0": [0, 1, 2]}


def test_a_wrapped_model_is_fitted_as_the_model_inside():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    compiled = torch.compile(model, backend="eager")
    expected = fit(model, DATA)
    assert_same(fit(nn.DataParallel(model), DATA), expected)
    assert_same(fit(compiled, DATA), expected)
