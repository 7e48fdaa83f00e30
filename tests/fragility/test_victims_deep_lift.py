"""DeepLIFT as a victim: by its definition, as Captum has it, and its derivative."""

import math

import captum.attr as captum
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from victim_networks import BETA, captums_own, images, residual, targets

from captum_blackbox.fragility.surrogate import RelativeBeta, softened
from captum_blackbox.fragility.victims import derivative_error, victim_of

# A max pooling that the rules of an activation behind it do not hide, see DeepLiftVictim.
POOLS = {"overlapping": nn.MaxPool2d(3, 2), "apart": nn.MaxPool2d(2), "mean": nn.AvgPool2d(2)}


def rescaled(model, image, baseline, target):
    """The rescale rule, unit by unit, for Flatten, Linear and activations in turn."""
    before, after = [], []
    for start in (image, baseline):
        values = [start.flatten()]
        for layer in list(model)[1:]:
            values.append(layer(values[-1]))
        (before if start is image else after).append(values)
    multipliers = torch.zeros_like(before[0][-1])
    multipliers[target] = 1.0
    for number, layer in reversed(list(enumerate(list(model)[1:]))):
        if isinstance(layer, nn.Linear):
            multipliers = layer.weight.T @ multipliers
        else:
            change = [before[0][number + i] - after[0][number + i] for i in (0, 1)]
            multipliers = multipliers * change[1] / change[0]
    return multipliers.view_as(image) * (image - baseline)


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_a_map_follows_the_definition_and_adds_up(act):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 6), act(), nn.Linear(6, 5), act())
    model = nn.Sequential(*model, nn.Linear(5, 3)).double()
    x, target, baseline = images(3), targets(3), images(1, seed=8)
    victim = victim_of(captum.DeepLift(model), attribute_kwargs={"baselines": baseline})
    leaf = x.clone().requires_grad_()
    expected = torch.stack([rescaled(model, leaf[i], baseline[0], target[i]) for i in range(3)])
    maps = victim.explain(x, target).maps
    assert_close(maps, expected.detach())
    change = (model(x) - model(baseline)).gather(1, target[:, None])[:, 0]
    assert_close(maps.sum((1, 2, 3)), change.detach())
    # The definition written with autograd's own graph has the same derivative.
    (by_definition,) = torch.autograd.grad(expected.square().sum(), leaf)
    found = victim.direction(x, target, lambda m: m.square().flatten(1).sum(1))
    assert_close(found, by_definition)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("act", [nn.Identity, nn.ReLU, nn.Sigmoid, nn.GELU])
@pytest.mark.parametrize("beta", [None, BETA])
def test_deep_lift_pools_as_captum_does(pool, act, beta):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), act(), POOLS[pool], act(), nn.Flatten())
    model = nn.Sequential(*model, nn.LazyLinear(5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, target = images(3), targets(3)
    model(x)
    attribution = captum.DeepLift(model)
    victim = victim_of(attribution, attribute_kwargs={"baselines": images(1, seed=8)})
    with softened(model, beta):
        for i in range(3):
            one = slice(i, i + 1)
            own = captums_own(attribution, x[one], target[one], baselines=images(1, seed=8))
            assert_close(victim.explain(x[one], target[one]).maps, own, atol=0, rtol=0)
        assert (derivative_error(victim, x, target, step=1e-7) < 1e-5).all()


@pytest.mark.parametrize("kind", [nn.Softmax, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Tanh])
def test_deep_lift_has_captums_rule_for_each_activation(kind):
    torch.manual_seed(0)
    act = nn.Softmax(1) if kind is nn.Softmax else kind()
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 5), act, nn.Linear(5, 3)).double()
    attribution, x = captum.DeepLift(model), images(1)
    victim = victim_of(attribution)
    own = captums_own(attribution, x, targets(1))
    assert_close(victim.explain(x, targets(1)).maps, own, atol=0, rtol=0)
    both = images(2)
    assert_close(
        victim.explain(both, targets(2)).maps[:1], victim.explain(both[:1], targets(1)).maps
    )
    assert (derivative_error(victim, both, targets(2)) < 1e-6).all()


def test_deep_lift_of_an_image_that_is_its_baseline_has_a_derivative():
    model = residual()
    victim = victim_of(captum.DeepLift(model), attribute_kwargs={"baselines": images(1)})
    with softened(model, BETA):
        maps = victim.explain(images(1), targets(1)).maps
        direction = victim.direction(images(1), targets(1), lambda m: m.flatten(1).sum(1))
        leaf = images(1).requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf)[0, 0], leaf)
    assert not maps.any()
    # m (x - x0), where x is x0 and m the gradient.
    assert_close(direction, gradient)


def test_image_and_baseline_go_through_one_function_also_where_its_sharpness_is_relative():
    """One unit, by hand: the multiplier is the slope between the two along the image's softplus."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, -2.0, 0.5, 1.0]]))
        network[1].bias.fill_(0.25)
        network[3].weight.fill_(3.0)
    image = torch.tensor([[[[1.0, 0.5], [2.0, 1.0]]]], dtype=torch.float64)
    victim = victim_of(captum.DeepLift(network))
    with victim.ready(), softened(network, RelativeBeta(2.0)):
        maps = victim.explain(image, torch.tensor([0])).maps
    z, z0 = 2.25, 0.25  # of the image, and of a baseline of zeros
    beta = 2.0 / z
    smooth = [math.log1p(math.exp(beta * each)) / beta for each in (z, z0)]
    multiplier = 3.0 * (smooth[0] - smooth[1]) / (z - z0)
    expected = multiplier * torch.tensor([1.0, -2.0, 0.5, 1.0]) * image.flatten()
    assert_close(maps.flatten(), expected)
