"""The composites in Zennit's own hands, and beside its other rules."""

import copy

import pytest
import torch
import zennit.core
from networks import State
from pattern_networks import (
    Chain,
    Residual,
    assert_derivative,
    centred,
    naive_matrix,
    with_statistics,
)
from torch import nn
from torch.testing import assert_close
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import COMPOSITES, MixedComposite, NameMapComposite
from zennit.rules import Epsilon, ZPlus

from captum_blackbox.errors import ArtifactError, InputError
from captum_blackbox.patterns import (
    PatternAttribution,
    PatternAttributionComposite,
    PatternNet,
    PatternNetComposite,
    Patterns,
)

pytestmark = pytest.mark.filterwarnings("ignore:.* have patterns that are huge or turned around")
PAIRS = [(PatternNet, PatternNetComposite), (PatternAttribution, PatternAttributionComposite)]
both = pytest.mark.parametrize(("method", "composite"), PAIRS, ids=["net", "attribution"])


def fit(model, data, regime="linear", **settings):
    return Patterns.fit(model, data, regime=regime, show_progress=False, **settings)


def residual():
    model = with_statistics(Residual()).double()
    data = torch.randn(30, 2, 6, 6, dtype=torch.float64)
    centred(model, data)
    return model, data[:3], fit(model, data)


def chain(bias=True):
    model = nn.Sequential(nn.Conv2d(2, 3, 3, bias=bias), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
    model, data = model.double(), torch.rand(40, 2, 4, 4, dtype=torch.float64)
    return model, data[:3], fit(model, data)


def one_hot(outputs, target=1):
    """Return what Zennit sends back, so that it equals the logit, as ours."""
    return outputs * torch.eye(outputs.shape[1], dtype=outputs.dtype)[target]


@both
@pytest.mark.parametrize("settings", [{}, {"residual": "pattern"}, {"rescale": True}], ids=repr)
def test_zennits_attributor_gives_what_the_method_does(method, composite, settings):
    model, x, patterns = residual()
    expected = method(model, patterns, **settings).attribute(x, target=1)
    before = State(model)
    with Gradient(model, composite(patterns, **settings)) as attributor:
        outputs, found = attributor(x, one_hot)
    assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert_close(outputs, model(x))
    assert State(model).differences(before) == []


@both
def test_the_model_computes_the_same_while_the_composite_is_registered(method, composite):
    model, x, patterns = residual()
    expected = model(x)
    with composite(patterns).context(model) as registered:
        assert torch.equal(registered(x.requires_grad_()), expected)


def test_the_registry_has_both():
    assert COMPOSITES["pattern_net"] is PatternNetComposite
    assert COMPOSITES["pattern_attribution"] is PatternAttributionComposite


def signal_at(model, patterns, x, layer):
    """Return what PatternAttribution sends to the output of a chain's first layer."""
    weight = patterns["3"] * model[3].weight.detach()
    logit = model(x)[:, 1].detach()
    z = model[0](x).detach()
    return z, (logit[:, None] * weight[1]).reshape(z.shape) * (z > 0)


def test_epsilon_below_and_patterns_above_equal_a_computation_by_hand():
    model, x, patterns = chain()
    z, arriving = signal_at(model, patterns, x, 0)
    matrix = naive_matrix(model[0], model[0].weight.detach(), (2, 4, 4))
    ratio = arriving / (z + 1e-6 * (z.sign() + (z == 0)))
    expected = x * (ratio.flatten(1) @ matrix).reshape(x.shape)
    below = NameMapComposite([(["0"], Epsilon(1e-6))])
    mixed = MixedComposite([below, PatternAttributionComposite(patterns)])
    with Gradient(model, mixed) as attributor:
        _, found = attributor(x, one_hot)
    assert_close(found, expected, rtol=1e-9, atol=1e-12)
    by_type = PatternAttributionComposite(patterns, layer_map=[((nn.Conv2d,), Epsilon(1e-6))])
    with Gradient(model, by_type) as attributor:
        _, found = attributor(x, one_hot)
    assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_zplus_below_and_patterns_above_equal_a_computation_by_hand():
    model, x, patterns = chain(bias=False)
    _, arriving = signal_at(model, patterns, x, 0)
    positive = naive_matrix(model[0], model[0].weight.detach().clamp(min=0), (2, 4, 4))
    ratio = arriving.flatten(1) / (x.flatten(1) @ positive.T + 1e-6)
    expected = x * (ratio @ positive).reshape(x.shape)
    below = NameMapComposite([(["0"], ZPlus(1e-6))])
    mixed = MixedComposite([below, PatternAttributionComposite(patterns)])
    with Gradient(model, mixed) as attributor:
        _, found = attributor(x, one_hot)
    assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_users_rule_goes_first_also_on_the_network_itself():
    model, x, patterns = chain()
    seen = []

    class Mine(zennit.core.Hook):
        def copy(self):
            seen.append(1)
            return super().copy()

    composite = PatternNetComposite(patterns, layer_map=[((nn.Linear, nn.Conv2d), Mine())])
    with Gradient(model, composite) as attributor:
        outputs, found = attributor(x, one_hot)
    assert len(seen) == 2
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf), leaf, one_hot(outputs))
    assert_close(found, expected)


@both
def test_a_canonizer_that_folds_batch_norm_does_no_harm(method, composite):
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)
    )
    model = with_statistics(model).double()
    data = torch.randn(40, 2, 4, 4, dtype=torch.float64)
    patterns = fit(model, data)
    made = composite(patterns, canonizers=[SequentialMergeBatchNorm()])
    expected = method(model, patterns).attribute(data[:3], target=1)
    before = State(model)
    for _ in range(2):
        with Gradient(model, made) as attributor:
            _, found = attributor(data[:3], one_hot)
        # What is left of the BatchNorm still has its epsilon, 1e-5.
        assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert State(model).differences(before) == []


@both
def test_an_inactive_composite_gives_the_gradient(method, composite):
    model, x, patterns = residual()
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    made = composite(patterns, residual="pattern")
    with made.context(model):
        score = model(leaf)[:, 1].sum()
        with made.inactive():
            (found,) = torch.autograd.grad(score, leaf, retain_graph=True)
        (modified,) = torch.autograd.grad(score, leaf, retain_graph=True)
    (after,) = torch.autograd.grad(score, leaf)
    assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert_close(after, expected, rtol=1e-12, atol=1e-14)
    assert (modified - expected).abs().max() > 1e-3


def test_a_map_of_zennit_is_differentiated_by_its_true_derivative():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
            self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)
            self.act = nn.Softplus()

        def forward(self, x):
            x = self.act(self.norm(self.stem(x)))
            return self.head(self.act(x + self.conv(x)).mean((2, 3)))

    model = with_statistics(Net()).double()
    data = torch.randn(30, 2, 4, 4, dtype=torch.float64)
    with pytest.warns(UserWarning, match="no rule is known for softplus"):
        patterns = fit(model, data, allow_non_relu=True)
    sent = torch.eye(2, dtype=torch.float64)[[1, 1]]
    weights = torch.randn(2, 2, 4, 4, dtype=torch.float64)

    for each in (PatternNetComposite, PatternAttributionComposite):
        composite = each(patterns, residual="pattern")

        def function(x, composite=composite):
            with Gradient(model, composite) as attributor:
                return (attributor(x, sent)[1] * weights).sum()

        x = data[:2].clone().requires_grad_()
        with Gradient(model, composite, create_graph=True) as attributor:
            _, maps = attributor(x, sent)
            with composite.inactive():
                (found,) = torch.autograd.grad((maps * weights).sum(), x)
        assert_derivative(function, data[:2], found)


@both
def test_the_signatures_that_differ_between_versions_of_zennit_are_not_used(
    method, composite, monkeypatch
):
    """Zennit 1.0 hands keyword arguments to its forward hooks: (module, args, kwargs, output)."""
    model, x, patterns = residual()
    expected = method(model, patterns, residual="pattern").attribute(x, target=1)

    def unknown(*_):
        raise AssertionError("a hook of Zennit 0.5 was called")

    for name in ("register", "pre_forward", "post_forward", "forward", "pre_backward", "backward"):
        monkeypatch.setattr(zennit.core.Hook, name, unknown)
    made = composite(patterns, residual="pattern")
    ctx, hooks, handles = {}, [], []
    for name, module in model.named_modules():
        template = made.module_map(ctx, name, module)
        if template is not None:
            hooks.append(template.copy())
            assert type(hooks[-1]) is type(template) and hooks[-1] is not template
            handles.append(hooks[-1].register(module))
    leaf = x.clone().requires_grad_()
    outputs = model(leaf)
    (found,) = torch.autograd.grad(outputs, leaf, one_hot(outputs.detach()), retain_graph=True)
    assert_close(found, expected, rtol=1e-12, atol=1e-14)
    for handle in handles:
        handle.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for hook in hooks:
        hook.remove()
        assert hook.active is False
    leaf2 = x.clone().requires_grad_()
    (true,) = torch.autograd.grad(model(leaf2), leaf2, one_hot(outputs.detach()))
    (after,) = torch.autograd.grad(outputs, leaf, one_hot(outputs.detach()))
    assert_close(after, true, rtol=1e-12, atol=1e-14)


@both
def test_no_rule_outlives_a_forward_pass_that_breaks(method, composite):
    model, x, patterns = residual()
    before = State(model)

    def broken(*_):
        raise RuntimeError("broken")

    made = composite(patterns, residual="pattern")
    handle = model.head.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="broken"), made.context(model):
        model(x.requires_grad_())
    handle.remove()
    assert State(model).differences(before) == []
    assert torch.overrides._get_current_function_mode_stack() == []


@both
def test_changed_weights_give_new_rules_or_are_refused(method, composite):
    model, x, patterns = residual()
    made = composite(patterns)

    def run():
        with Gradient(model, made) as attributor:
            return attributor(x, one_hot)[1]

    run()
    with torch.no_grad():  # a little: it could be a canonizer
        model.conv.weight.mul_(1.001)
        model.norm.running_var.mul_(1.001)
    with Gradient(model, composite(patterns)) as attributor:
        expected = attributor(x, one_hot)[1]
    assert_close(run(), expected, rtol=0, atol=0)
    with torch.no_grad():
        model.conv.weight.mul_(1.5)
    with pytest.raises(ArtifactError, match="layer 'conv' has other weights in it"):
        run()
    assert not any(m._forward_hooks for m in model.modules())
    with torch.no_grad():
        model.conv.weight.div_(1.5)
    model.float()
    with Gradient(model, made) as attributor:
        found = attributor(x.float(), one_hot)[1]
    assert_close(found, expected.float(), rtol=1e-3, atol=1e-4)


def test_a_composite_holds_no_graph_and_no_input_alive():
    model, x, patterns = residual()
    made = PatternAttributionComposite(patterns, residual="pattern")
    with Gradient(model, made) as attributor:
        attributor(x, one_hot)
    copied = copy.deepcopy(made)  # would refuse tensors that are on a graph
    with Gradient(model, copied) as attributor:
        attributor(x, one_hot)


def test_the_layer_of_another_network_is_refused():
    model, _, patterns = chain()
    other = copy.deepcopy(model)
    other[3] = nn.Linear(12, 4).double()
    message = r"layer '3' has a weight of shape \(4, 12\) in it, and a pattern of shape \(3, 12\)"
    composite = PatternNetComposite(patterns)
    with pytest.raises(ArtifactError, match=message), Gradient(other, composite):
        pass
    assert not any(m._forward_hooks for m in other.modules())


def test_a_residual_that_does_not_exist_is_refused(as_users_call):
    patterns = chain()[2]
    with pytest.raises(
        InputError, match="^residual is one of 'gradient', 'pattern', got 'pattrn'$"
    ):
        PatternNetComposite(patterns, residual="pattrn")


def test_a_softmax_at_the_end_is_passed():
    model = nn.Sequential(nn.Linear(3, 2), nn.Softmax(1)).double()
    data = torch.randn(20, 3, dtype=torch.float64)
    patterns = fit(model, data)
    with Gradient(model, PatternNetComposite(patterns)) as attributor:
        _, found = attributor(data[:2], torch.eye(2, dtype=torch.float64)[[1, 1]])
    assert_close(found, patterns["0"][[1, 1]])


def test_shared_modules_get_one_rule():
    shared = nn.Linear(3, 3)
    model = Chain(lambda m, x: m.b(m.a(x).relu()).sum(1, keepdim=True), a=shared, b=shared).double()
    data = torch.randn(30, 3, dtype=torch.float64)
    patterns = fit(model, data)
    assert list(patterns) == ["a"]
    x = data[(shared(data) > 0).any(1)][:2]
    first = shared(x).detach()
    logit = model(x).detach()
    back = logit.expand(-1, 3) @ patterns["a"]
    expected = (back * (first > 0)) @ patterns["a"]
    found = PatternNet(model, patterns).attribute(x)
    assert_close(found, expected)
