"""Additions, and activations and additions that write in place."""

import pytest
import torch
import torch.nn.functional as F
from pattern_cases import fit, gradient, residual
from pattern_networks import (
    Chain,
    Residual,
    augmented_add,
    naive_matrix,
    statement_add,
    with_statistics,
)
from torch import nn
from torch.testing import assert_close

from captum_blackbox.patterns import PatternAttribution, PatternNet
from captum_blackbox.patterns.batch_norm import folded

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* have patterns that are huge or turned around"),
    pytest.mark.filterwarnings("ignore:.* units of layer .* have no pattern"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
    pytest.mark.filterwarnings("ignore:the map of image . is 0 everywhere"),
]
METHODS = [PatternNet, PatternAttribution]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


def weights_of(model, patterns):
    modules = dict(model.named_modules())
    return {
        name: folded(modules[name], None if use.norm is None else modules[use.norm])[0]
        for name, use in patterns.structure.layers.items()
    }


# Writing in place.


@each_method
@pytest.mark.parametrize("kind", ["gradient", "pattern"])
@pytest.mark.parametrize("add", [statement_add, augmented_add], ids=["statement", "+="])
def test_an_addition_in_place_equals_one_that_is_not(method, kind, add):
    model, data = residual()
    patterns = fit(model, data)
    expected = method(model, patterns, residual=kind).attribute(data[:3], target=0)
    writing = Residual(add).double()
    writing.load_state_dict(model.state_dict())
    writing.eval()
    assert_close(writing(data), model(data))
    again = fit(writing, data)
    assert_close(dict(again), dict(patterns))
    assert_close(again.shares, patterns.shares)
    found = method(writing, again, residual=kind).attribute(data[:3], target=0)
    assert_close(found, expected, rtol=1e-10, atol=1e-12)


@each_method
def test_the_input_of_an_addition_in_place_may_be_a_view(method):
    def forward_of(m, x):
        h = 1.0 * m.stem(x).relu()  # a copy, since ReLU needs its own output later
        h[:, :2] += m.conv(x)
        return m.head(h.mean((2, 3)))

    def plain(m, x):
        h = m.stem(x).relu()
        h = torch.cat([h[:, :2] + m.conv(x), h[:, 2:]], 1)
        return m.head(h.mean((2, 3)))

    parts = {"stem": nn.Conv2d(2, 3, 3), "conv": nn.Conv2d(2, 2, 3), "head": nn.Linear(3, 2)}
    data = torch.randn(30, 2, 6, 6, dtype=torch.float64)
    results = {}
    for each in (forward_of, plain):
        model = Chain(each, **parts).double()
        patterns = fit(model, data)
        results[each] = method(model, patterns, residual="pattern").attribute(data[:3], target=0)
    assert_close(results[forward_of], results[plain], rtol=1e-9, atol=1e-12)


@each_method
def test_branches_that_are_gathered_in_zeros_are_not_lost(method):
    def gathered(m, x):
        total = torch.zeros_like(m.a(x))
        total.add_(m.a(x))
        total.add_(m.b(x))
        return m.head(total.relu().flatten(1))

    parts = {"a": nn.Linear(3, 4), "b": nn.Linear(3, 4), "head": nn.Linear(4, 2)}
    data = torch.randn(40, 3, dtype=torch.float64)
    model = Chain(gathered, **parts).double()
    patterns = fit(model, data)
    x = data[:3]
    weights = {name: torch.ones_like(each) for name, each in patterns.items()}
    plain = PatternAttribution(model, patterns.replaced(weights), residual="gradient")
    assert_close(plain.attribute(x, 1, output_seed="one"), gradient(model, x, 1))
    found = method(model, patterns, residual="pattern").attribute(x, target=1)
    assert found.abs().sum() > 0


@each_method
def test_activations_in_place_equal_those_that_are_not(method):
    data = torch.randn(30, 2, 6, 6, dtype=torch.float64)
    parts = {
        "conv": nn.Conv2d(2, 3, 3),
        "norm": nn.BatchNorm2d(3),
        "other": nn.Conv2d(3, 3, 3),
        "head": nn.Linear(3, 2),
    }

    def network(first, second):
        return Chain(
            lambda m, x: m.head(second(m.other(first(m.norm(m.conv(x))))).mean((2, 3))), **parts
        )

    kinds = [
        (F.relu, F.relu),
        (F.relu_, nn.ReLU(inplace=True)),
        (torch.Tensor.relu_, lambda x: F.relu(x, inplace=True)),
    ]
    found = []
    for first, second in kinds:
        model = with_statistics(network(first, second)).double()
        patterns = fit(model, data, "two_component")
        assert {use.gate for use in patterns.structure.layers.values()} == {"relu", None}
        found.append(method(model, patterns).attribute(data[:3], target=0))
    assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)
    assert_close(found[2], found[0], rtol=1e-10, atol=1e-12)


# Additions.


@each_method
@pytest.mark.parametrize("kind", ["gradient", "pattern"])
def test_an_addition_gives_each_branch_its_share(method, kind):
    model, data = residual()
    patterns = fit(model, data)
    weights = weights_of(model, patterns)
    shares = patterns.shares[":0"].double() if kind == "pattern" else torch.ones(2, 3).double()
    used = {
        name: patterns[name] if method is PatternNet else patterns[name] * weights[name]
        for name in patterns
    }
    for image in data[:3]:
        stem = model.stem(image[None])
        h = stem.relu()
        total = model.norm(model.conv(h)) + h
        logit = model(image[None])[0, 1]
        arriving = (logit * used["head"][1] / 36)[None, :, None, None] * (total > 0)
        inner = (arriving * shares[0][:, None, None]).reshape(1, -1)
        inner = (inner @ naive_matrix(model.conv, used["conv"], (3, 6, 6))).reshape(h.shape)
        at_stem = (inner + arriving * shares[1][:, None, None]) * (stem > 0)
        expected = at_stem.reshape(1, -1) @ naive_matrix(model.stem, used["stem"], (2, 6, 6))
        found = method(model, patterns, residual=kind).attribute(image[None], target=1)
        assert_close(found.reshape(1, -1), expected.detach(), rtol=1e-6, atol=1e-9)


def test_shares_keep_the_sum_over_an_addition_and_the_gradient_does_not():
    model = Chain(
        lambda m, x: m.head((m.a(x) + m.b(x)).flatten(1)),
        a=nn.Conv2d(2, 3, 1),
        b=nn.Conv2d(2, 3, 1),
        head=nn.Linear(48, 2),
    ).double()
    data = torch.randn(100, 2, 4, 4, dtype=torch.float64)
    patterns, logit = fit(model, data), model(data[:3])[:, 1].detach()
    kept = PatternAttribution(model, patterns).attribute(data[:3], target=1)
    assert_close(kept.sum((1, 2, 3)), logit, rtol=1e-6, atol=1e-8)
    doubled = PatternAttribution(model, patterns, residual="gradient").attribute(data[:3], target=1)
    assert_close(doubled.sum((1, 2, 3)), 2 * logit, rtol=1e-6, atol=1e-8)
