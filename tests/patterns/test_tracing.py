"""What tracing finds in networks: layers, folded BatchNorms, gates, sums, heads, refusals."""

import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from pattern_networks import (
    Chain,
    Residual,
    SharedLayer,
    augmented_add,
    statement_add,
    with_statistics,
)
from torch import nn
from torch.overrides import _get_current_function_mode_stack

from captum_blackbox.errors import ExplanationWarning, LayerError
from captum_blackbox.patterns import Patterns
from captum_blackbox.patterns.structure import LayerUse, Structure
from captum_blackbox.patterns.tracing import trace

IMAGE = torch.rand(2, 2, 6, 6)


def conv(units=3, channels=2):
    return nn.Conv2d(channels, units, 3, padding=1)


def traced(forward_of, x=IMAGE, *args, allow_non_relu=False, **parts):
    return trace(Chain(forward_of, **parts), x, args or None, allow_non_relu=allow_non_relu)


def refused(message):
    return pytest.raises(LayerError, match=f"^{re.escape(message)}$")


def warned(message):
    return pytest.warns(ExplanationWarning, match=f"^{re.escape(message)}$")


# BatchNorm.


def test_a_batch_norm_that_alone_takes_a_layers_output_is_folded():
    found = traced(lambda m, x: m.norm(m.conv(x)).relu(), conv=conv(), norm=nn.BatchNorm2d(3))
    assert found == Structure({"conv": LayerUse("norm", "relu")})


def test_behind_a_linear_layer_and_a_transposed_one_too():
    parts = {"conv": nn.ConvTranspose2d(2, 3, 2), "norm": nn.BatchNorm2d(3)}
    assert traced(lambda m, x: m.norm(m.conv(x)), **parts).layers["conv"].norm == "norm"
    parts = {"fc": nn.Linear(5, 3), "norm": nn.BatchNorm1d(3)}
    assert traced(lambda m, x: m.norm(m.fc(x)), torch.rand(4, 5), **parts).norms == ()


@pytest.mark.parametrize("tokens", [3, 4])
def test_a_batch_norm_over_tokens_is_not_folded_into_the_units(tokens):
    # BUG: BatchNorm1d normalises axis 1, which are tokens, and Linear's units are the last axis.
    x = torch.rand(2, tokens, 5)
    model = Chain(
        lambda m, x: m.norm(m.fc(x)).relu(), fc=nn.Linear(5, 4), norm=nn.BatchNorm1d(tokens)
    ).eval()
    found = trace(model, x)
    assert found == Structure({"fc": LayerUse(None, None)}, norms=("norm",))


def test_a_batch_norm_is_not_folded_into_a_convolution_that_something_else_takes_too():
    found = traced(
        lambda m, x: m.norm(h := m.conv(x)).relu() + h, conv=conv(), norm=nn.BatchNorm2d(3)
    )
    assert found == Structure({"conv": LayerUse(None, None)}, norms=("norm",), sums=(":0",))


def test_a_batch_norm_of_two_convolutions_is_folded_into_neither():
    found = traced(
        lambda m, x: m.norm(m.a(x)).relu() + m.norm(m.b(x)).relu(),
        a=conv(),
        b=conv(),
        norm=nn.BatchNorm2d(3),
    )
    assert found.norms == ("norm",)
    assert found.layers == {"a": LayerUse(), "b": LayerUse()}


def test_a_convolution_of_two_batch_norms_takes_in_neither():
    found = traced(
        lambda m, x: m.a(m.conv(x)).relu() + m.b(m.conv(x)).relu(),
        conv=conv(),
        a=nn.BatchNorm2d(3),
        b=nn.BatchNorm2d(3),
    )
    assert found.layers == {"conv": LayerUse()} and found.norms == ("a", "b")


def test_a_batch_norm_before_the_layer_stands_alone():
    found = traced(
        lambda m, x: m.conv(m.norm(x).relu()).relu(), conv=conv(), norm=nn.BatchNorm2d(2)
    )
    assert found == Structure({"conv": LayerUse(None, "relu")}, norms=("norm",))


def test_a_batch_norm_without_running_statistics_is_not_folded():
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    found = traced(lambda m, x: m.norm(m.conv(x)).relu(), conv=conv(), norm=norm)
    assert found.layers == {"conv": LayerUse()} and found.norms == ("norm",)


def test_a_layer_that_runs_twice_with_its_batch_norm_is_one():
    assert trace(SharedLayer(), IMAGE) == Structure(
        {"conv": LayerUse("norm", "relu"), "head": LayerUse()}
    )


# Gates.


@pytest.mark.parametrize(
    "code",
    [
        'F.relu(h)',
        'h.relu_()',
        'torch.relu(h)',
        'F.relu6(h)',
        'nn.ReLU6(inplace=True)(h)',
        'F.hardtanh(h, 0.0, 6.0)',
        'F.hardtanh(h, min_val=0.0, max_val=6.0)',
        'F.max_pool2d(h, 2).relu()',
        'F.adaptive_max_pool2d(h, 2).relu()',
        'h.flatten(1).relu()',
        'F.relu(F.dropout(h, 0.5, training=False))',
        'torch.cat([h, h], 1).relu()',
        'F.pad(h, (1, 1)).relu()',
        'h.permute(0, 2, 3, 1).contiguous().relu()',
        'h[:, :2].relu()',
        'h.relu() + h.relu()',
        'sum(part.relu() for part in h.chunk(3, 1))',
    ],
)
def test_a_relu_behind_what_only_moves_values_gates(code):
    between = eval(f"lambda m, h: {code}")
    found = traced(lambda m, x: between(m, m.conv(x)), conv=conv())
    assert found.layers == {"conv": LayerUse(None, "relu")}


@pytest.mark.parametrize(
    "code",
    [
        'h',
        'h.mean((2, 3)).relu()',
        'F.avg_pool2d(h, 2).relu()',
        '(h + 1).relu()',
        '(h + h.flip(1)).relu()',
        '(2 * h).relu()',
        'h.relu() + h',
        'torch.cat([h.relu(), h], 1)',
        'm.other(h).relu()',
        '(-h).relu()',
        '(h.relu(), h)[1]',
    ],
)
def test_where_something_else_takes_the_output_nothing_gates(code):
    between = eval(f"lambda m, h: {code}")
    found = traced(lambda m, x: between(m, m.conv(x)), conv=conv(), other=conv(3, 3))
    assert found.layers["conv"].gate is None


@pytest.mark.parametrize(
    "code",
    [
        'F.leaky_relu(h)',
        'm.prelu(h)',
        'F.rrelu(h, training=False)',
        'h.relu() + F.leaky_relu(h)',
    ],
)
def test_a_gate_that_lets_something_pass_is_leaky(code):
    between = eval(f"lambda m, h: {code}")
    found = traced(lambda m, x: between(m, m.conv(x)), conv=conv(), prelu=nn.PReLU())
    assert found.layers["conv"].gate == "leaky"


# Heads.


@pytest.mark.parametrize(
    "head",
    [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid(), nn.LogSigmoid(), nn.Softmax2d()],
    ids=lambda head: type(head).__name__,
)
def test_a_softmax_module_at_the_end_is_the_head(head):
    x = torch.rand(2, 2, 6, 6)
    found = traced(lambda m, x: m.head(m.conv(x)), x, conv=conv(), head=head)
    assert found == Structure({"conv": LayerUse()}, head="head")


WITHOUT_RULE = (
    "patterns are defined for networks of linear layers and ReLU, and this one has {}; explain it "
    "by another method, or pass allow_non_relu=True to take the gradient there. A softmax at the "
    "end is taken off if it is a module of its own"
)


def test_a_functional_softmax_is_refused():
    with refused(WITHOUT_RULE.format("softmax in 'the model itself'")):
        traced(lambda m, x: F.softmax(m.conv(x), 1), conv=conv())


def test_a_softmax_in_the_middle_is_refused_with_its_path():
    with refused(WITHOUT_RULE.format("softmax in 'inner.0' (Softmax)")):
        traced(lambda m, x: m.inner(m.conv(x)) + 1, conv=conv(), inner=nn.Sequential(nn.Softmax(1)))


def test_a_head_that_also_runs_inside_the_network_is_not_taken_off():
    # BUG: one Sigmoid module as a gate inside and at the end: taking it off changes the inside.
    with pytest.raises(LayerError, match="sigmoid in 'act'"):
        traced(lambda m, x: m.act(m.conv(m.act(x))), conv=conv(), act=nn.Sigmoid())


# Refusals and warnings.


@pytest.mark.parametrize(
    ("act", "name"),
    [
        (nn.GELU(), "gelu"),
        (nn.SiLU(), "silu"),
        (nn.Tanh(), "tanh"),
        (nn.Sigmoid(), "sigmoid"),
        (nn.ELU(), "elu"),
        (nn.SELU(), "selu"),
        (nn.Softplus(), "softplus"),
        (nn.Hardswish(), "hardswish"),
        (nn.Hardtanh(), "hardtanh"),
        (nn.Mish(), "mish"),
        (nn.Threshold(0.1, 0.0), "threshold"),
    ],
    ids=str,
)
def test_an_activation_without_a_rule_is_refused_with_its_path(act, name):
    with refused(WITHOUT_RULE.format(f"{name} in 'block.1' ({type(act).__name__})")):
        traced(lambda m, x: m.block(x).mean((2, 3)), block=nn.Sequential(conv(), act))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: x.clamp(min=0), "clamp"),
        (lambda x: x**2, "pow"),
        (lambda x: x.exp(), "exp"),
        (lambda x: x.sigmoid_(), "sigmoid"),
        (lambda x: 1 / x.sqrt(), "sqrt"),
    ],
    ids=["clamp", "square", "exp", "in place", "sqrt"],
)
def test_a_function_without_a_rule_is_refused(function, name):
    with refused(WITHOUT_RULE.format(f"{name} in 'the model itself'")):
        traced(lambda m, x: function(m.conv(x)).mean((2, 3)), conv=conv())


def test_five_of_many_refusals_are_named_each_once():
    net = nn.Sequential(conv(), *[nn.GELU() for _ in range(7)], nn.Flatten())
    names = ", ".join(f"gelu in '{i}' (GELU)" for i in range(1, 6))
    with refused(WITHOUT_RULE.format(f"{names} and 2 more")):
        trace(net, IMAGE)


def test_what_has_no_rule_can_be_allowed_with_a_warning():
    message = "no rule is known for gelu in 'act' (GELU): the gradient is passed there"
    with warned(message):
        found = traced(lambda m, x: m.act(m.conv(x)), conv=conv(), act=nn.GELU(), allow_non_relu=True)
    assert found == Structure({"conv": LayerUse()})


@pytest.mark.parametrize(
    ("forward_of", "what"),
    [
        (lambda m, x: m.conv(x).relu() * m.conv(x).relu(), "mul in 'the model itself'"),
        (lambda m, x: m.conv(x) / (1 + m.conv(x).relu()), "truediv in 'the model itself'"),
        (lambda m, x: m.conv(x).abs(), "abs in 'the model itself'"),
        (lambda m, x: m.conv(x) @ torch.ones(6, 2), "matmul in 'the model itself'"),
        (lambda m, x: m.norm(m.conv(x)), "layer_norm in 'norm' (LayerNorm)"),
    ],
    ids=["product", "quotient", "abs", "matmul", "layer norm"],
)
def test_what_mixes_without_a_rule_is_warned_of(forward_of, what):
    with warned(f"no rule is known for {what}: the gradient is passed there"):
        traced(forward_of, conv=conv(), norm=nn.LayerNorm(6))


@pytest.mark.parametrize(
    "code",
    [
        '2 * m.conv(x) / 3 - 1',
        '(x.mean() * 2, m.conv(x))[1]',
        'm.conv(x) * m.scale',
        'm.conv(x).view(x.size(0), -1)',
        'F.interpolate(m.conv(x), scale_factor=2)',
        'm.conv(x - x.mean())',
        'm.conv(x.float())',
    ],
)
def test_what_is_linear_in_one_activation_passes_silently(code):
    model = Chain(eval(f"lambda m, x: {code}"), conv=conv())
    model.scale = nn.Parameter(torch.ones(3, 1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(trace(model, IMAGE).layers) == {"conv"}


def test_a_functional_layer_with_a_weight_of_its_own_is_warned_of():
    model = Chain(lambda m, x: F.linear(m.conv(x).flatten(1), m.weight), conv=conv())
    model.weight = nn.Parameter(torch.rand(4, 108))
    with warned(
        "no rule is known for linear without a layer in 'the model itself': the gradient is "
        "passed there"
    ):
        found = trace(model, IMAGE)
    assert set(found.layers) == {"conv"}


class Standardised(nn.Conv2d):
    """A convolution that standardises its weight in each forward pass."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, 3 * weight, self.bias, padding=self.padding)


def test_a_layer_that_runs_with_another_weight_than_its_own_is_not_taken_for_a_plain_one():
    # BUG: the pattern is normalised by module.weight, which is not what the layer multiplies by.
    model = Chain(lambda m, x: m.conv(x).relu(), conv=Standardised(2, 3, 3, padding=1))
    try:
        with pytest.warns(ExplanationWarning, match="conv2d without a layer"):
            trace(model, IMAGE)
    except LayerError:
        pass


def test_a_parametrised_layer_is_a_layer():
    parametrised = nn.utils.parametrizations.weight_norm(conv())
    found = traced(lambda m, x: m.conv(x).relu(), conv=parametrised)
    assert found == Structure({"conv": LayerUse(None, "relu")})


def test_local_response_normalization_is_passed():
    found = traced(lambda m, x: m.lrn(m.conv(x).relu()), conv=conv(), lrn=nn.LocalResponseNorm(2))
    assert found == Structure({"conv": LayerUse(None, "relu")}, skipped=("lrn",))


def test_a_scripted_network_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()))
    with pytest.raises(LayerError, match="is it scripted, or computed with NumPy"):
        trace(scripted, IMAGE)


def test_an_output_made_by_numpy_is_refused():
    with refused(
        "the output of Chain does not come from its input by functions of torch that can be "
        "watched; is it scripted, or computed with NumPy?"
    ):
        traced(lambda m, x: torch.from_numpy(m.conv(x).numpy() + 1), conv=conv())


def test_an_output_that_is_no_tensor_is_refused():
    with refused(
        "Chain must return one tensor of scores, got a tuple; wrap it in a module that returns "
        "the scores"
    ):
        traced(lambda m, x: (m.conv(x), x), conv=conv())


def test_a_network_without_a_layer_is_refused():
    with refused(
        "Chain runs no Linear and no convolution on what comes from its input, so there is "
        "nothing that has a pattern; give the module that holds the layers"
    ):
        traced(lambda m, x: x.relu(), conv=conv())


def test_layers_that_do_not_run_on_the_input_have_no_pattern():
    found = traced(
        lambda m, x: m.conv(x) + m.side(torch.ones_like(IMAGE[:1, :, :, :]).detach() * 0 + 1),
        conv=conv(),
        side=conv(),
        never=conv(),
    )
    assert set(found.layers) == {"conv"} and found.sums == ()


# Sums.


@pytest.mark.parametrize(
    "add",
    [lambda a, b: a + b, torch.add, torch.Tensor.add, statement_add, augmented_add],
    ids=["+", "torch.add", "Tensor.add", "statement", "+="],
)
def test_the_addition_of_two_branches_is_a_sum_however_it_is_written(add):
    found = trace(Residual(add).eval(), IMAGE)
    assert found.sums == (":0",)
    assert found.layers["conv"] == LayerUse("norm", None)
    assert found.layers["stem"] == LayerUse(None, "relu")


def test_sums_are_numbered_within_their_module():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(3, 3)

        def forward(self, x):
            constant = torch.ones_like(IMAGE[:1]) + torch.ones_like(IMAGE[:1])  # no branch, counted
            h = self.conv(x)
            return (h + x) + h.relu() + constant.mean()

    found = traced(
        lambda m, x: m.two(m.one(m.stem(x))) + x.mean(), stem=conv(), one=Block(), two=Block()
    )
    assert found.sums == ("one:1", "one:2", "two:1", "two:2")


def test_additions_of_a_number_of_other_shapes_and_with_alpha_are_no_sums():
    found = traced(
        lambda m, x: torch.add(m.conv(x) + 1.0, m.conv(x), alpha=2) + m.conv(x).mean((2, 3), True),
        conv=conv(),
    )
    assert found.sums == ()


# What is left behind.


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_model_that_is_interrupted_is_no_longer_watched(error):
    # BUG: torch runs always_call hooks for Exception only; Ctrl-C leaves the mode switched on.
    def broken(m, x):
        m.conv(x)
        raise error

    model = Chain(lambda m, x: m.inner(x), inner=Chain(broken, conv=conv()))
    try:
        with pytest.raises(error):
            trace(model, IMAGE)
        assert _get_current_function_mode_stack() == []
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    finally:
        for mode in reversed(_get_current_function_mode_stack()):  # not to harm other tests
            mode.__exit__(None, None, None)


def test_additional_arguments_are_passed_on():
    found = traced(lambda m, x, scale: m.conv(x) * scale, IMAGE, 3.0, conv=conv())
    assert set(found.layers) == {"conv"}


def test_a_structure_survives_json():
    structure = trace(with_statistics(Residual()), IMAGE)
    assert Structure.from_json(structure.to_json()) == structure
    assert set(structure.only(["head"]).layers) == {"head"}


# Networks of torchvision, at their full depth.

torchvision = pytest.importorskip("torchvision")


@pytest.mark.parametrize(
    ("name", "layers", "folded", "gated", "norms", "sums", "skipped"),
    [
        ("alexnet", 8, 0, 7, 0, 0, 0),
        ("vgg11_bn", 11, 8, 10, 0, 0, 0),
        ("resnet18", 21, 20, 9, 0, 8, 0),
        ("squeezenet1_0", 26, 0, 26, 0, 0, 0),
        ("mobilenet_v2", 53, 52, 35, 0, 10, 0),
        ("densenet121", 121, 59, 59, 62, 0, 0),
    ],
)
def test_networks_of_torchvision_are_understood(name, layers, folded, gated, norms, sums, skipped):
    model = torchvision.models.get_model(name, weights=None)
    found = trace(model, torch.rand(1, 3, 64, 64))
    uses = list(found.layers.values())
    assert len(uses) == layers
    assert sum(use.norm is not None for use in uses) == folded
    assert sum(use.gate == "relu" for use in uses) == gated
    assert (len(found.norms), len(found.sums), len(found.skipped)) == (norms, sums, skipped)
    assert found.head is None


def test_patterns_are_fitted_to_every_layer_found():
    model = with_statistics(Residual())
    patterns = Patterns.fit(model, torch.rand(20, 2, 6, 6), show_progress=False)
    assert list(patterns) == list(trace(model, IMAGE).layers)
