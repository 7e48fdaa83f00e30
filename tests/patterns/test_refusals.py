"""What tracing refuses or warns of, and the head that it takes off."""

import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from pattern_networks import (
    Chain,
)
from torch import nn

from captum_blackbox.errors import ExplanationWarning, LayerError
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
    "by another method, or pass allow_non_relu=True to take the gradient there; a softmax at the "
    "end is taken off where it is a module"
)


def test_a_functional_softmax_is_refused():
    with refused(WITHOUT_RULE.format("softmax in 'the model itself'")):
        traced(lambda m, x: F.softmax(m.conv(x), 1), conv=conv())


def test_a_softmax_in_the_middle_is_refused_with_its_path():
    with refused(WITHOUT_RULE.format("softmax in 'inner.0' (Softmax)")):
        traced(lambda m, x: m.inner(m.conv(x)) + 1, conv=conv(), inner=nn.Sequential(nn.Softmax(1)))


def test_a_head_that_also_runs_inside_the_network_is_not_taken_off():
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
        (lambda x: x.clamp(min=-1), "clamp"),
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
        found = traced(
            lambda m, x: m.act(m.conv(x)), conv=conv(), act=nn.GELU(), allow_non_relu=True
        )
    assert found == Structure({"conv": LayerUse()})


@pytest.mark.parametrize(
    ("forward_of", "what"),
    [
        (lambda m, x: m.conv(x).relu() * m.conv(x).relu(), "mul in 'the model itself'"),
        (lambda m, x: m.conv(x) / (1 + m.conv(x).relu()), "div in 'the model itself'"),
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
        "2 * m.conv(x) / 3 - 1",
        "(x.mean() * 2, m.conv(x))[1]",
        "m.conv(x).clamp(min=0)",
        "m.conv(x).view(x.size(0), -1)",
        "F.interpolate(m.conv(x), scale_factor=2)",
        "m.conv(x - x.mean())",
        "m.conv(x.float())",
    ],
)
def test_what_is_linear_in_one_activation_passes_silently(code):
    model = Chain(eval(f"lambda m, x: {code}"), conv=conv())
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
    with pytest.raises(
        LayerError, match="is scripted, and its layers cannot be watched; give the module"
    ):
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
        lambda m, x: m.conv(x) + m.side(torch.ones(2, 2, 6, 6)),
        conv=conv(),
        side=conv(),
        never=conv(),
    )
    assert set(found.layers) == {"conv"} and found.sums == ()
