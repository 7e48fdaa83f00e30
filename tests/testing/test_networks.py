"""Small networks are what they promise: equal, saturating, blind at places, symmetric."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import captum_blackbox.testing
from captum_blackbox.errors import InputError, LayerError
from captum_blackbox.testing import (
    deepened,
    equal_networks,
    equal_pairs,
    ignoring_network,
    images,
    permuted,
    reparametrised,
    rescaled,
    saturating_network,
    shifted_relus,
    small_network,
    small_networks,
    some_images,
    split,
    symmetric_network,
)

seeds = st.integers(0, 10_000)


@given(network=small_networks(), x=images())
def test_a_drawn_network_takes_drawn_images(network, x):
    scores = network(x)
    assert scores.shape == (len(x), 4) and scores.dtype == torch.float64
    assert not network.training
    relus = [part for part in network.parts() if isinstance(part, nn.ReLU)]
    assert len({id(relu) for relu in relus}) == len(relus)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({}, "Conv2d ReLU Conv2d ReLU Linear"),
        ({"kind": "dense"}, "Linear ReLU Linear"),
        ({"relu": False}, "Conv2d Conv2d Linear"),
        (
            {"batch_norm": True, "max_pool": True},
            "Conv2d BatchNorm2d ReLU MaxPool2d Conv2d BatchNorm2d ReLU Linear",
        ),
    ],
)
def test_the_parts_of_a_network(settings, parts):
    network = small_network(bias=False, **settings)
    assert [type(part).__name__ for part in network.parts()] == parts.split()
    assert all(
        getattr(part, "bias", None) is None
        for part in network.parts()
        if "Norm" not in type(part).__name__
    )


@given(
    network=small_networks(relu=False, batch_norm=False, max_pool=False),
    x=images(count=2),
    factor=st.sampled_from([-2.0, 3.0]),
)
def test_without_relu_a_network_is_linear(network, x, factor):
    black = network(0 * x)
    torch.testing.assert_close(network(factor * x) - black, factor * (network(x) - black))


def test_seeds_count_and_the_users_random_numbers_do_not():
    before = torch.get_rng_state()
    assert torch.equal(some_images(3, 5), some_images(3, 5))
    assert not torch.equal(some_images(3, 5), some_images(3, 6))
    for make in (
        small_network,
        lambda seed: ignoring_network(seed)[0],
        saturating_network,
        lambda seed: symmetric_network(seed)[0],
        lambda seed: shifted_relus(seed)[1],
    ):
        x = some_images()
        assert torch.equal(make(3)(x), make(3)(x))
        assert not torch.equal(make(3)(x), make(4)(x))
    equal_networks(small_network())
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_kind_is_refused(as_users_call):
    with pytest.raises(InputError, match="kind is one of 'conv', 'dense', got 'rnn'"):
        small_network(kind="rnn")


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_a_random_network_predicts_several_classes(kind):
    predicted = small_network(kind=kind)(some_images(256)).argmax(1)
    assert len(set(predicted.tolist())) >= 3


@given(pair=equal_pairs(), x=images())
def test_equal_networks_are_equal_and_differ_in_their_weights(pair, x):
    first, second = pair
    torch.testing.assert_close(second(x), first(x), rtol=1e-9, atol=1e-9)
    ours, others = (list(network.parameters()) for network in pair)
    assert len(ours) != len(others) or any(
        a.shape != b.shape or not torch.equal(a, b) for a, b in zip(ours, others, strict=True)
    )


@given(network=small_networks(), seed=seeds, x=images(count=2))
@settings(max_examples=15)
def test_rescaling_and_deepening_are_exact(network, seed, x):
    before = {name: each.clone() for name, each in network.state_dict().items()}
    assert torch.equal(rescaled(network, seed)(x), network(x))
    assert torch.equal(deepened(network)(x), network(x))
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


def test_what_was_done_to_the_units():
    network = small_network(units=4)
    weight = network.features[0].weight
    order = list(permuted(network, 1).features[0].weight)
    assert sorted(float(row.detach().sum()) for row in order) == sorted(
        float(row.detach().sum()) for row in weight
    )
    ratios = (rescaled(network, 1).features[0].weight / weight).detach().flatten(1)
    assert torch.equal(ratios.amin(1), ratios.amax(1)) and len(set(ratios[:, 0].tolist())) > 1
    twins = split(network)
    assert twins.features[0].out_channels == twins.features[2].in_channels == 8
    assert twins.head[0].in_features == 2 * network.head[0].in_features
    assert torch.equal(twins.features[0].weight[:4], twins.features[0].weight[4:])
    assert len(deepened(network).parts()) == len(network.parts()) + 1


@given(seed=seeds, count=st.integers(1, 9), layer=st.integers(0, 1))
def test_any_units_will_do_whose_shares_add_up(seed, count, layer):
    network = small_network(units=3, max_pool=True)
    generator = torch.Generator().manual_seed(seed)
    source = torch.cat([torch.arange(3), torch.randint(3, (count,), generator=generator)])
    scale = 0.5 + torch.rand(len(source), generator=generator, dtype=torch.float64)
    share = torch.randn(len(source), generator=generator, dtype=torch.float64)
    for unit in range(3):
        here = source == unit
        share[unit] += (1 - (scale * share)[here].sum()) / scale[unit]
    other = reparametrised(network, layer, source, scale, share)
    x = some_images()
    torch.testing.assert_close(other(x), network(x))


def test_a_change_of_the_function_is_refused():
    network, three, ones = small_network(units=3), torch.arange(3), torch.ones(3)
    with pytest.raises(InputError, match="add up to 1 for each old unit, got 2 for unit 0"):
        reparametrised(network, 0, three, 2 * ones, ones)
    with pytest.raises(InputError, match="got 0 for unit 2"):
        reparametrised(network, 0, three[:2], ones[:2], ones[:2])
    with pytest.raises(InputError, match="a ReLU needs positive scales, got -1"):
        reparametrised(network, 0, three, -ones, -ones)
    with pytest.raises(InputError, match="one number for each new unit"):
        reparametrised(network, 0, three, ones[:2], ones)
    for layer in (-1, 2):
        with pytest.raises(LayerError, match=f"hidden layers are 0 … 1, got {layer}"):
            reparametrised(network, layer, three, ones, ones)
    with pytest.raises(LayerError, match="expected a convolution or linear layer, got ReLU"):
        deepened(captum_blackbox.testing.SmallNetwork([nn.ReLU()], []))


@given(seed=seeds, x=images())
def test_relus_at_other_places_compute_the_same(seed, x):
    first, second = shifted_relus(seed)
    torch.testing.assert_close(first(x), second(x), rtol=1e-9, atol=1e-9)
    assert not torch.equal(first.features[0].bias, second.features[0].bias)


@given(seed=seeds)
def test_the_saturating_network_saturates(seed):
    network = saturating_network(seed)
    black = torch.zeros(1, 3, 7, 7, dtype=torch.float64)
    probe = black.clone()
    probe[0, 1, 3, 4] = 2  # one channel is enough
    probe.requires_grad_()
    score = network(probe)[0, 2]
    score.backward()
    assert probe.grad[0, :, 3, 4].abs().max() == 0
    assert abs(float((score - network(black)[0, 2]).detach())) > 0.4
    assert probe.grad[0, :, 0, 0].abs().min() > 0  # elsewhere it responds


@given(seed=seeds, x=images(count=2), factor=st.sampled_from([-3.0, 7.0]))
def test_the_ignoring_network_ignores_what_it_says(seed, x, factor):
    network, ignored = ignoring_network(seed)
    torch.testing.assert_close(network(x + factor * ignored), network(x), rtol=0, atol=1e-12)
    assert ignored.sum() == 13 + 4
    # The middle is read by units, whose difference is nothing.
    hidden = network.features[1](network.features[0](x))
    assert torch.equal(hidden[:, -1], hidden[:, -2])
    assert not torch.equal(network.features[0](x + ignored), network.features[0](x))


@pytest.mark.parametrize("seed", range(3))
def test_the_ignoring_network_ignores_nothing_else(seed):
    network, ignored = ignoring_network(seed)
    inputs = some_images(64, seed).requires_grad_()
    network(inputs).sum().backward()
    assert torch.equal(inputs.grad.abs().amax((0, 1)) == 0, ignored)


@given(seed=seeds, x=images(count=2))
def test_the_symmetric_network_is_symmetric_in_its_pairs_and_its_layers_are_not(seed, x):
    network, pairs = symmetric_network(seed)
    for (a, b), (c, d) in pairs.tolist():
        swapped = x.clone()
        swapped[:, :, a, b], swapped[:, :, c, d] = x[:, :, c, d], x[:, :, a, b]
        torch.testing.assert_close(network(swapped), network(x), rtol=1e-9, atol=1e-9)
    # One unit of a pair reads the shifted ReLUs, the other one does not.
    first, second = network.features[2].weight.detach()[:2, 1].abs().sum((1, 2)).tolist()
    assert first == 0 < second


def test_without_hypothesis_only_strategies_are_missing():
    program = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from captum_blackbox import testing\n"
        "from captum_blackbox.errors import MissingExtraError\n"
        "assert testing.small_network().training is False\n"
        "assert 'images' in dir(testing)\n"
        "import captum_blackbox.metrics.axioms\n"
        "try: testing.images\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "captum_blackbox.testing.images needs Hypothesis; install it with "
        "pip install 'captum-blackbox[testing]'\n"
    )


def test_every_name_is_there():
    for name in captum_blackbox.testing.__all__:
        assert getattr(captum_blackbox.testing, name).__doc__
        assert name in dir(captum_blackbox.testing)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = captum_blackbox.testing.nothing
