"""What tracing finds in networks: layers, folded BatchNorms, gates, sums."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
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

from captum_blackbox.errors import LayerError
from captum_blackbox.patterns import Patterns
from captum_blackbox.patterns.structure import LayerUse, Structure
from captum_blackbox.patterns.tracing import trace

NAMES = {"F": F, "nn": nn, "torch": torch}
IMAGE = torch.rand(2, 2, 6, 6)


def conv(units=3, channels=2):
    return nn.Conv2d(channels, units, 3, padding=1)


def traced(forward_of, x=IMAGE, *args, allow_non_relu=False, **parts):
    return trace(Chain(forward_of, **parts), x, args or None, allow_non_relu=allow_non_relu)


WITHOUT_RULE = (
    "patterns are defined for networks of linear layers and ReLU, and this one has {}; explain it "
    "by another method, or pass allow_non_relu=True to take the gradient there; a softmax at the "
    "end is taken off where it is a module"
)


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


def test_a_batch_norm_without_running_statistics_is_refused():
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    with pytest.raises(LayerError, match="layer 'norm' .BatchNorm2d. has no running statistics"):
        traced(lambda m, x: m.norm(m.conv(x)).relu(), conv=conv(), norm=norm)


def test_a_layer_that_runs_twice_with_its_batch_norm_is_one():
    assert trace(SharedLayer(), IMAGE) == Structure(
        {"conv": LayerUse("norm", "relu"), "head": LayerUse()}
    )


# Gates.


@pytest.mark.parametrize(
    "code",
    [
        "F.relu(h)",
        "h.relu_()",
        "torch.relu(h)",
        "F.relu6(h)",
        "nn.ReLU6(inplace=True)(h)",
        "F.hardtanh(h, 0.0, 6.0)",
        "F.hardtanh(h, min_val=0.0, max_val=6.0)",
        "F.max_pool2d(h, 2).relu()",
        "F.adaptive_max_pool2d(h, 2).relu()",
        "h.flatten(1).relu()",
        "F.relu(F.dropout(h, 0.5, training=False))",
        "torch.cat([h, h], 1).relu()",
        "F.pad(h, (1, 1)).relu()",
        "h.permute(0, 2, 3, 1).contiguous().relu()",
        "h[:, :2].relu()",
        "h.relu() + h.relu()",
        "sum(part.relu() for part in h.chunk(3, 1))",
    ],
)
def test_a_relu_behind_what_only_moves_values_gates(code):
    between = eval(f"lambda m, h: {code}", NAMES)
    found = traced(lambda m, x: between(m, m.conv(x)), conv=conv())
    assert found.layers == {"conv": LayerUse(None, "relu")}


@pytest.mark.parametrize(
    "code",
    [
        "h",
        "h.mean((2, 3)).relu()",
        "F.avg_pool2d(h, 2).relu()",
        "(h + 1).relu()",
        "(h + h.flip(1)).relu()",
        "(2 * h).relu()",
        "h.relu() + h",
        "torch.cat([h.relu(), h], 1)",
        "m.other(h).relu()",
        "(-h).relu()",
        "(h.relu(), h)[1]",
    ],
)
def test_where_something_else_takes_the_output_nothing_gates(code):
    between = eval(f"lambda m, h: {code}", NAMES)
    found = traced(lambda m, x: between(m, m.conv(x)), conv=conv(), other=conv(3, 3))
    assert found.layers["conv"].gate is None


@pytest.mark.parametrize(
    "code",
    [
        "F.leaky_relu(h)",
        "m.prelu(h)",
        "F.rrelu(h, training=False)",
        "h.relu() + F.leaky_relu(h)",
    ],
)
def test_a_gate_that_lets_something_pass_is_leaky(code):
    between = eval(f"lambda m, h: {code}", NAMES)
    found = traced(lambda m, x: between(m, m.conv(x)), conv=conv(), prelu=nn.PReLU())
    assert found.layers["conv"].gate == "leaky"


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
            constant = torch.ones(2, 2) + torch.ones(2, 2)  # counted, but no branch
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
