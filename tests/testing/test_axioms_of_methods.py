"""The strategies in use: axioms of methods on any small network, not only on that of the table."""

import pytest
import torch
from captum.attr import LRP, DeepLift, InputXGradient, IntegratedGradients, Saliency
from hypothesis import given, settings
from torch import nn

from captum_blackbox.metrics.axioms import completeness, implementation_invariance
from captum_blackbox.patterns import PatternAttribution, Patterns
from captum_blackbox.student import RISE, LayerSumGradCAM
from captum_blackbox.testing import (
    equal_pairs,
    images,
    permuted,
    rescaled,
    small_networks,
    some_images,
)

few = settings(max_examples=15)
PLAIN = {"batch_norm": False, "max_pool": False}


# Captum's rule for max pooling loses some where windows overlap.
@given(network=small_networks(max_pool=False), x=images())
@few
def test_deep_lift_is_complete(network, x):
    assert completeness(DeepLift, model=network, inputs=x, tolerance=1e-6).holds is not False


@given(network=small_networks(**PLAIN), x=images(count=2))
@few
def test_integrated_gradients_are_complete(network, x):
    def fine(model):
        method = IntegratedGradients(model)
        return lambda inputs, target: method.attribute(inputs, target=target, n_steps=300)

    assert completeness(fine, model=network, inputs=x, tolerance=0.1).holds is not False


@given(network=small_networks(batch_norm=False, bias=False), x=images())
@few
@pytest.mark.parametrize("method", [InputXGradient, LRP])
def test_without_biases_input_times_gradient_is_complete(method, network, x):
    assert completeness(method, model=network, inputs=x, tolerance=1e-3).holds is not False


def conserved(network, x):
    def fitted(model):
        patterns = Patterns.fit(model, some_images(64), regime="linear", show_progress=False)
        return PatternAttribution(model, patterns)

    return completeness(fitted, model=network, inputs=x, total="score", tolerance=1e-6)


@given(network=small_networks(**PLAIN, relu=False, padding=0), x=images())
@few
def test_pattern_attribution_conserves_in_linear_networks_without_padding(network, x):
    assert conserved(network, x).holds is not False


@given(network=small_networks(kinds=("conv",), **PLAIN, relu=False, padding=1), x=images(count=4))
@few
def test_pattern_attribution_loses_what_goes_to_padding(network, x):
    assert conserved(network, x).holds is False


@given(network=small_networks(kinds=("conv",), **PLAIN, relu=True, padding=0), x=images(count=4))
@few
def test_pattern_attribution_loses_what_goes_to_units_that_are_off(network, x):
    assert conserved(network, x).holds is False


@given(pair=equal_pairs(small_networks(max_pool=False)), x=images())
@few
@pytest.mark.parametrize(
    "factory",
    [Saliency, lambda model: RISE(model, output="logits", masks=20, grid=3)],
    ids=["Saliency", "RISE"],
)
def test_functions_of_the_function_are_implementation_invariant(factory, pair, x):
    result = implementation_invariance(factory, pairs={"drawn": pair}, inputs=x, tolerance=1e-6)
    assert result.holds, result


@given(network=small_networks(kinds=("conv",)), x=images())
@few
def test_the_sum_of_grad_cams_does_not_see_order_and_size_of_units(network, x):
    pairs = {each.__name__: (network, each(network)) for each in (permuted, rescaled)}
    result = implementation_invariance(LayerSumGradCAM, pairs=pairs, inputs=x, tolerance=1e-6)
    assert result.holds, result


def test_the_sum_of_grad_cams_sees_an_identity():
    one, two = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
    two.weight.data = torch.eye(2).view(2, 2, 1, 1)
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pair = nn.Sequential(one, mean), nn.Sequential(one, two, mean)
    result = implementation_invariance(
        LayerSumGradCAM, pairs={"identity": pair}, inputs=torch.rand(2, 3, 7, 7)
    )
    # Both layers have the same map, so the sum is twice as large.
    assert result.error == pytest.approx(0.5)
