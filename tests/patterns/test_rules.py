"""The backward pass of both methods, beside one written out with explicit patches."""

import copy

import pytest
import torch
import torch.nn.functional as F
from pattern_cases import NETS, case, fit, gradient, residual
from pattern_networks import (
    SharedLayer,
    naive_backward,
    with_statistics,
)
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.testing import assert_close

from captum_blackbox.errors import LayerError
from captum_blackbox.patterns import PatternAttribution, PatternNet
from captum_blackbox.patterns.batch_norm import folded
from captum_blackbox.patterns.linear_layers import LinearLayer
from captum_blackbox.patterns.rules import ChannelRule, PatternRule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* have patterns that are huge or turned around"),
    pytest.mark.filterwarnings("ignore:.* units of layer .* have no pattern"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
    pytest.mark.filterwarnings("ignore:the map of image . is 0 everywhere"),
]
METHODS = [PatternNet, PatternAttribution]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


def in_place_of_weights(method, model, patterns):
    """Return what stands in place of each weight of a chain, by number."""
    return {
        int(name): pattern if method is PatternNet else pattern * model[int(name)].weight.detach()
        for name, pattern in patterns.items()
    }


@each_method
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("regime", ["linear", "positive"])
def test_the_method_is_a_backward_pass_with_explicit_patches(method, name, regime):
    model, data = case(name)
    patterns = fit(model, data, regime)
    weights = in_place_of_weights(method, model, patterns)
    expected = naive_backward(list(model), weights, data[:3], target=1)
    found = method(model, patterns).attribute(data[:3], target=1)
    assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert expected.abs().amax() > 1e-3


@each_method
@pytest.mark.parametrize("name", ["linear", "same and leaky", "reflect", "tokens"])
def test_two_components_go_by_the_sign_of_each_output(method, name):
    model, data = case(name)
    patterns = fit(model, data, "two_component")
    negative = in_place_of_weights(method, model, patterns.negative)
    weights = in_place_of_weights(method, model, patterns)
    logits = model(data)[:, 1]
    for chosen in (logits > 0, logits < 0):  # of the last layer too
        x = data[chosen][:2]
        expected = naive_backward(list(model), weights, x, target=1, negative=negative)
        found = method(model, patterns).attribute(x, target=1)
        assert_close(found, expected, rtol=1e-9, atol=1e-9)
        one = naive_backward(list(model), weights, x, target=1)
        if chosen is not None and bool((logits[chosen] < 0).all()):
            assert (one - expected).abs().max() > 1e-6


@each_method
def test_two_components_behind_batch_norm_go_by_the_sign_behind_it(method):
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(), nn.Flatten(), nn.Linear(16, 3)
    )
    model = with_statistics(model).double()
    with torch.no_grad():
        model[1].weight[0] *= -1
    data = torch.randn(40, 2, 4, 4, dtype=torch.float64)
    patterns = fit(model, data, "two_component")
    assert patterns.structure.layers["0"].norm == "1"
    plain = nn.Sequential(fuse_conv_bn_eval(model[0], model[1]), *list(model)[2:])
    other = fit(plain, data, "two_component")
    assert_close(other["0"], patterns["0"], rtol=1e-8, atol=1e-9)
    negative = in_place_of_weights(method, plain, other.negative)
    weights = in_place_of_weights(method, plain, other)
    expected = naive_backward(list(plain), weights, data[:4], target=0, negative=negative)
    found = method(model, patterns).attribute(data[:4], target=0)
    assert_close(found, expected, rtol=1e-8, atol=1e-9)
    norm_before = naive_backward(list(plain), weights, data[:4], target=0)
    assert (norm_before - expected).abs().max() > 1e-6


# Limits in which both are known methods.


def weights_of(model, patterns):
    modules = dict(model.named_modules())
    return {
        name: folded(modules[name], None if use.norm is None else modules[use.norm])[0]
        for name, use in patterns.structure.layers.items()
    }


@pytest.mark.parametrize("name", [*NETS, "residual"])
def test_weights_for_patterns_give_the_gradient(name):
    model, data = residual() if name == "residual" else case(name)
    patterns = fit(model, data)
    weights = weights_of(model, patterns)
    x = data[:3]
    expected = gradient(model, x, 1)
    net = PatternNet(model, patterns.replaced(weights), residual="gradient")
    assert_close(net.attribute(x, target=1, output_seed="one"), expected, rtol=1e-10, atol=1e-12)
    ones = {name: torch.ones_like(weight) for name, weight in weights.items()}
    attribution = PatternAttribution(model, patterns.replaced(ones), residual="gradient")
    found = attribution.attribute(x, target=1, output_seed="one")
    assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_filter_on_one_layer_gives_the_scaled_gradient_and_the_w_squared_rule():
    model = nn.Sequential(nn.Linear(4, 3)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    patterns, w = fit(model, x, "filter"), model[0].weight.detach()[2]
    logit = model(x).detach()[:, 2:]
    net = PatternNet(model, patterns).attribute(x, target=2)
    assert_close(net, logit * w / (w @ w))
    attribution = PatternAttribution(model, patterns).attribute(x, target=2)
    assert_close(attribution, logit * w**2 / (w @ w))


# Conservation.


def test_a_linear_network_without_padding_keeps_the_sum():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, groups=2),
        nn.AvgPool2d(2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).double()
    data = torch.randn(40, 2, 11, 11, dtype=torch.float64)
    maps, delta = PatternAttribution(model, fit(model, data)).attribute(
        data[:4], target=2, return_convergence_delta=True
    )
    assert_close(maps.sum((1, 2, 3)), model(data[:4])[:, 2].detach(), rtol=1e-10, atol=1e-12)
    assert delta.abs().max() < 1e-12


def test_what_is_missing_behind_zero_padding_was_sent_to_the_padding():
    inner = [nn.Flatten(), nn.Linear(48, 3)]
    padded = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), *inner).double()
    data = torch.randn(60, 2, 4, 4, dtype=torch.float64)
    patterns = fit(padded, data)
    valid = copy.deepcopy(padded)
    valid[0].padding = (0, 0)
    weights = in_place_of_weights(PatternAttribution, padded, patterns)
    whole = naive_backward(list(valid), weights, F.pad(data[:3], (1, 1, 1, 1)), target=1)
    inside = whole[:, :, 1:-1, 1:-1]
    maps, delta = PatternAttribution(padded, patterns).attribute(
        data[:3], target=1, return_convergence_delta=True
    )
    assert_close(maps, inside, rtol=1e-9, atol=1e-12)
    border = whole.sum((1, 2, 3)) - inside.sum((1, 2, 3))
    assert_close(delta, border, rtol=1e-9, atol=1e-12)
    assert (border.abs() > 0.01 * padded(data[:3])[:, 1].abs()).any()


def test_by_hand_a_unit_that_is_off_passes_nothing_and_a_negative_signal_is_not_rectified():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[0].bias.zero_()
        model[2].weight.copy_(torch.tensor([[-1.0, 1.0]]))
        model[2].bias.zero_()
    patterns = fit(model, torch.randn(20, 2, dtype=torch.float64)).replaced(
        {"0": torch.tensor([[2.0, 0.0], [0.0, 3.0]]), "2": torch.tensor([[-4.0, 5.0]])}
    )
    x = torch.tensor([[1.0, 0.0], [1.0, -1.0], [1.0, 3.0]], dtype=torch.float64)
    # Logits -1, -1, 2; an output of exactly 0 is off.
    net = PatternNet(model, patterns).attribute(x)
    assert net.tolist() == [[8.0, 0.0], [8.0, 0.0], [-16.0, 30.0]]
    attribution = PatternAttribution(model, patterns).attribute(x)
    assert attribution.tolist() == [[-8.0, 0.0], [-8.0, 0.0], [16.0, 30.0]]
    assert PatternNet(model, patterns).attribute(x, output_seed="one")[0].tolist() == [-8.0, 0.0]


# BatchNorm that stands alone.


def test_a_batch_norm_that_stands_alone_is_a_layer_of_one_input_for_each_channel():
    model = nn.Sequential(
        nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)
    )
    model = with_statistics(model).double()
    with torch.no_grad():
        model[0].weight[0] = -0.7
        model[0].weight[1] = 0.0
    data = torch.randn(30, 2, 4, 4, dtype=torch.float64)
    patterns = fit(model, data)
    assert patterns.structure.norms == ("0",)
    inner, x = list(model)[1:], data[:3]
    scale = float(-0.7 / (model[0].running_var[0] + model[0].eps).sqrt())
    numbers = {int(name) - 1: each for name, each in patterns.items()}
    behind = naive_backward(inner, numbers, model[0](x).detach(), target=1)
    expected = torch.stack([behind[:, 0] / scale, torch.zeros_like(behind[:, 1])], 1)
    assert_close(PatternNet(model, patterns).attribute(x, target=1), expected)
    numbers = {i: each * inner[i].weight.detach() for i, each in numbers.items()}
    expected = naive_backward(inner, numbers, model[0](x).detach(), target=1)
    assert_close(PatternAttribution(model, patterns).attribute(x, target=1), expected)


@each_method
def test_a_batch_norm_that_uses_the_batch_is_refused_by_both_methods(method):
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), norm, nn.ReLU(), nn.Flatten()).double()
    data = torch.randn(9, 2, 5, 5, dtype=torch.float64)
    with pytest.raises(LayerError, match="running statistics"):
        method(model, fit(model, data)).attribute(data, target=1)


def test_a_batch_norm_in_training_is_refused():
    norm = nn.BatchNorm2d(3).train()
    handles = ChannelRule().register(norm)
    with pytest.raises(LayerError, match="uses the statistics of the batch.*call model.eval()"):
        norm(torch.rand(2, 3, 2, 2, requires_grad=True))
    handles.remove()


def test_local_response_normalization_passes_what_arrives():
    model = nn.Sequential(nn.LocalResponseNorm(2), nn.Flatten(), nn.Linear(18, 2)).double()
    data = torch.randn(30, 2, 3, 3, dtype=torch.float64)
    patterns = fit(model, data)
    found = PatternNet(model, patterns).attribute(data[:2], target=1)
    logit = model(data[:2])[:, 1].detach()
    assert_close(found.flatten(1), logit[:, None] * patterns["2"][1])


# Rescaling, layers that run twice.


@each_method
def test_rescaling_bounds_each_image_and_keeps_the_direction_of_its_map(method):
    model, data = case("strided")
    patterns = fit(model, data)
    plain = method(model, patterns).attribute(data[:4], target=1)
    scaled = method(model, patterns, rescale=True).attribute(data[:4], target=1)
    largest = plain.abs().flatten(1).amax(1)
    assert_close(scaled, plain / largest[:, None, None, None], rtol=1e-9, atol=1e-12)
    big = patterns.replaced({k: each * 1e30 for k, each in patterns.items()})
    assert_close(method(model, big, rescale=True).attribute(data[:4], target=1), scaled)


def test_an_image_to_which_nothing_arrives_is_rescaled_to_zero():
    layer = nn.Conv2d(1, 1, 1)
    rule = PatternRule(LinearLayer.of(layer), torch.ones(1, 1, 1, 1), rescale=True)
    x = torch.ones(2, 1, 2, 2, requires_grad=True)
    signal = rule.signal_of(layer, x, layer(x))(
        torch.tensor([0.0, -4.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    )
    assert signal[0].abs().max() == 0 and (signal[1] == -1).all()


@each_method
def test_a_layer_that_runs_twice_sends_back_twice(method):
    model = with_statistics(SharedLayer()).double()
    data = torch.randn(30, 2, 5, 5, dtype=torch.float64)
    patterns = fit(model, data)
    plain = fuse_conv_bn_eval(model.conv, model.norm)
    chain = [plain, nn.ReLU(), plain, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head]
    weights = {0: patterns["conv"], 2: patterns["conv"], 6: patterns["head"]}
    if method is PatternAttribution:
        weights = {i: each * chain[i].weight.detach() for i, each in weights.items()}
    expected = naive_backward(chain, weights, data[:3], target=1)
    found = method(model, patterns).attribute(data[:3], target=1)
    assert_close(found, expected, rtol=1e-8, atol=1e-10)
