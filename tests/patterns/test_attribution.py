"""The two methods as users of Captum call them; beyond what every explainer promises."""

import copy
import re

import pytest
import torch
from networks import State
from pattern_networks import Chain, Residual, centred, with_statistics
from torch import nn
from torch.testing import assert_close

from captum_blackbox.errors import ArtifactError, InputError, LayerError, ShapeError, TargetError
from captum_blackbox.patterns import PatternAttribution, PatternNet, Patterns

pytestmark = pytest.mark.filterwarnings("ignore:.* have patterns that are huge or turned around")
METHODS = [PatternNet, PatternAttribution]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


def fit(model, data, regime="linear", **settings):
    return Patterns.fit(model, data, regime=regime, show_progress=False, **settings)


def network(head=None):
    parts = [nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), *([head] if head else [])]
    model, data = nn.Sequential(*parts).double().eval(), torch.randn(60, 4, dtype=torch.float64)
    return centred(model, data, "2") if head is None else model, data


def residual():
    model = with_statistics(Residual()).double()
    data = torch.randn(30, 2, 6, 6, dtype=torch.float64)
    return centred(model, data), data


# What is sent back.


@each_method
def test_maps_are_linear_in_what_is_sent(method):
    model, data = network()
    made, x = method(model, fit(model, data)), data[:6]
    scores = model(x).detach()
    one = made.attribute(x, target=2, output_seed="one")
    assert one.abs().flatten(1).amax(1).min() > 0 and (scores[:, 2] < 0).any()
    assert_close(made.attribute(x, target=2), one * scores[:, 2:], rtol=1e-10, atol=1e-12)
    found = made.attribute(x, target=2, output_seed="probability")
    assert_close(found, one * scores.softmax(1)[:, 2:], rtol=1e-10, atol=1e-12)


@each_method
def test_different_targets_in_a_batch_are_not_mixed(method):
    model, data = network()
    made, x = method(model, fit(model, data)), data[:5]
    targets = [0, 2, 1, 2, 0]
    together = made.attribute(x, target=targets)
    for i, target in enumerate(targets):
        assert_close(together[i : i + 1], made.attribute(x[i : i + 1], target=target))


@each_method
def test_without_a_target_the_prediction_is_explained(method):
    model, data = network()
    made = method(model, fit(model, data))
    expected = made.attribute(data[:6], target=model(data[:6]).argmax(1))
    assert_close(made.attribute(data[:6]), expected, rtol=0, atol=0)


@each_method
@pytest.mark.parametrize("flat", [False, True])
def test_a_single_score_needs_no_target(method, flat):
    model = Chain(lambda m, x: m.fc(x)[:, 0] if flat else m.fc(x), fc=nn.Linear(4, 1)).double()
    data = torch.randn(40, 4, dtype=torch.float64)
    patterns = fit(model, data)
    w, a = model.fc.weight.detach(), patterns["fc"]
    expected = model.fc(data[:3]).detach() * (a if method is PatternNet else a * w)
    assert_close(method(model, patterns).attribute(data[:3]), expected)


@each_method
@pytest.mark.parametrize("head", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()], ids=str)
def test_the_logit_is_explained_where_a_head_follows(method, head):
    model, data = network(head)
    bare = nn.Sequential(*list(model)[:3])
    x = data[:5]
    patterns, expected = fit(model, data), method(bare, fit(bare, data))
    assert patterns.structure.head == "3"
    made = method(model, patterns)
    seeds = ["logit", "one"] if isinstance(head, nn.Sigmoid) else ["logit", "one", "probability"]
    for seed in seeds:
        found = made.attribute(x, target=1, output_seed=seed)
        assert_close(found, expected.attribute(x, target=1, output_seed=seed))
    assert_close(made.attribute(x), expected.attribute(x))
    if method is PatternAttribution:
        _, delta = made.attribute(x, target=1, return_convergence_delta=True)
        _, other = expected.attribute(x, target=1, return_convergence_delta=True)
        assert_close(delta, other)
    assert not head._forward_hooks


@pytest.mark.parametrize("seed", ["logit", "one", "probability"])
def test_delta_is_what_was_sent_less_what_arrived(seed):
    model, data = residual()
    made, x = PatternAttribution(model, fit(model, data)), data[:4]
    maps, delta = made.attribute(
        x, target=[0, 1, 1, 0], return_convergence_delta=True, output_seed=seed
    )
    scores = model(x).detach()
    sent = {
        "logit": scores,
        "one": torch.ones_like(scores),
        "probability": scores.softmax(1),
    }[seed][range(4), [0, 1, 1, 0]]
    assert_close(delta, sent - maps.sum((1, 2, 3)))
    assert_close(made.compute_convergence_delta((maps,), sent), delta)
    assert delta.shape == (4,) and not delta.requires_grad
    several, again = made.attribute(
        (x,), target=[0, 1, 1, 0], return_convergence_delta=True, output_seed=seed
    )
    assert (
        isinstance(several, tuple) and torch.equal(several[0], maps) and torch.equal(again, delta)
    )


def test_has_a_delta_and_does_not_multiply_by_inputs():
    model, data = network()
    patterns = fit(model, data)
    assert PatternAttribution(model, patterns).has_convergence_delta() is True
    assert PatternNet(model, patterns).has_convergence_delta() is False
    for method in METHODS:
        assert method(model, patterns).multiplies_by_inputs is False


# Invariances.


@pytest.mark.parametrize("regime", ["linear", "positive", "two_component"])
def test_scaling_a_hidden_unit_changes_no_map(regime):
    model, data = network()
    other, scale = copy.deepcopy(model), torch.tensor([0.2, 1.0, 5.0, 3.0, 0.7, 10.0]).double()
    with torch.no_grad():
        other[0].weight *= scale[:, None]
        other[0].bias *= scale
        other[2].weight /= scale
    assert_close(other(data), model(data))
    for method in METHODS:
        expected = method(model, fit(model, data, regime)).attribute(data[:5], target=1)
        found = method(other, fit(other, data, regime)).attribute(data[:5], target=1)
        assert_close(found, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("regime", ["linear", "positive"])
def test_scaling_the_input_scales_the_signal_and_leaves_the_attribution(regime):
    model, data = network()
    other, scale = copy.deepcopy(model), torch.tensor([2.0, 0.1, 7.0, 1.0]).double()
    with torch.no_grad():
        other[0].weight /= scale
    one, two = fit(model, data, regime), fit(other, data * scale, regime)
    assert_close(two["0"], one["0"] * scale, rtol=1e-8, atol=1e-9)
    x = data[:5]
    found = PatternNet(other, two).attribute(x * scale, target=1)
    expected = PatternNet(model, one).attribute(x, target=1) * scale
    assert_close(found, expected, rtol=1e-8, atol=1e-9)
    found = PatternAttribution(other, two).attribute(x * scale, target=1)
    expected = PatternAttribution(model, one).attribute(x, target=1)
    assert_close(found, expected, rtol=1e-8, atol=1e-9)


def test_of_a_linear_model_the_map_is_the_pattern_times_the_score():
    model = nn.Sequential(nn.Linear(4, 3)).double()
    data = torch.randn(50, 4, dtype=torch.float64)
    patterns = fit(model, data)
    score, a, w = model(data[:4])[:, 1:2].detach(), patterns["0"][1], model[0].weight[1].detach()
    assert_close(PatternNet(model, patterns).attribute(data[:4], target=1), score * a)
    assert_close(PatternAttribution(model, patterns).attribute(data[:4], target=1), score * a * w)


# State.


@each_method
def test_the_model_and_its_outputs_are_the_same_after_a_call_and_parameters_hold_no_patterns(
    method,
):
    model, data = residual()
    patterns = fit(model, data)
    made = method(model, patterns, residual="pattern")
    before, outputs = State(model), model(data)
    first = made.attribute(data[:3], target=1)
    assert torch.equal(made.attribute(data[:3], target=1), first)
    assert State(model).differences(before) == []
    assert torch.equal(model(data), outputs)
    assert torch.overrides._get_current_function_mode_stack() == []


@each_method
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_call_that_breaks_leaves_the_model_as_it_was(method, error):
    model, data = residual()
    made = method(model, fit(model, data), residual="pattern")
    expected = made.attribute(data[:3], target=1)

    def broken(*_):
        raise error("broken")

    handle = model.head.register_forward_pre_hook(broken)
    before = State(model)
    try:
        with pytest.raises(error):
            made.attribute(data[:3], target=1)
        assert State(model).differences(before) == []
        handle.remove()
        assert torch.equal(made.attribute(data[:3], target=1), expected)
        assert torch.overrides._get_current_function_mode_stack() == []
    finally:
        for mode in reversed(torch.overrides._get_current_function_mode_stack()):
            mode.__exit__(None, None, None)


@each_method
def test_a_layer_that_was_exchanged_is_refused_without_a_trace(method):
    model, data = network()
    made = method(model, fit(model, data))
    model[2] = nn.Linear(6, 5).double()
    with pytest.raises((LayerError, ArtifactError), match="'2'"):
        made.attribute(data[:3], target=1)
    assert not any(module._forward_hooks for module in model.modules())


@each_method
def test_a_copy_is_independent_also_after_a_call(method):
    model, data = residual()
    made = method(model, fit(model, data), residual="pattern")
    expected = made.attribute(data[:3], target=1)
    copied = copy.deepcopy(made)
    assert copied.model is not made.model
    with torch.no_grad():
        model.head.weight.zero_()
        model.conv.weight.mul_(3)
    assert torch.equal(copied.attribute(data[:3], target=1), expected)


@each_method
def test_a_wrapped_model_gives_the_maps_of_the_model_inside(method):
    model, data = residual()
    patterns = fit(model, data)
    expected = method(model, patterns).attribute(data[:3], target=1)
    compiled = torch.compile(model, backend="eager")
    compiled(data[:3])
    for wrapped in (nn.DataParallel(model), compiled, nn.DataParallel(compiled)):
        assert torch.equal(method(wrapped, patterns).attribute(data[:3], target=1), expected)


@each_method
def test_additional_arguments_are_passed_on(method):
    model = Chain(lambda m, x, scale, shift: scale * m.fc(x) + shift, fc=nn.Linear(4, 3)).double()
    data = torch.randn(40, 4, dtype=torch.float64)
    plain = Chain(lambda m, x: m.fc(x), fc=model.fc)
    patterns = fit(plain, data)
    one = method(plain, patterns).attribute(data[:3], target=1, output_seed="one")
    made = method(model, patterns)
    x, score = data[:3], plain(data[:3])[:, 1:2].detach()
    found = made.attribute(x, 1, (2.0, torch.tensor(5.0, dtype=torch.float64)))
    assert_close(found, 2 * one * (2 * score + 5))
    with pytest.raises(TypeError):
        made.attribute(x, target=1)


@each_method
def test_a_graph_is_kept_only_where_asked_for(method):
    model, data = network()
    made = method(model, fit(model, data))
    x = data[:3].clone().requires_grad_()
    assert not made.attribute(x, target=1).requires_grad
    assert made.attribute(x, target=1, grad_kwargs={"create_graph": True}).requires_grad
    assert x.grad is None and all(p.grad is None for p in model.parameters())


@each_method
def test_inputs_of_other_sizes_than_those_fitted_to_are_explained(method):
    model, data = residual()
    made = method(model, fit(model, data))
    assert made.attribute(torch.randn(2, 2, 9, 7).double(), target=1).shape == (2, 2, 9, 7)


@each_method
def test_it_works_under_autocast(method):
    model = with_statistics(Residual())
    data = torch.randn(30, 2, 6, 6)
    centred(model, data)
    made = method(model, fit(model, data), residual="pattern")
    expected = made.attribute(data[:3], target=1, output_seed="one")
    with torch.autocast("cpu", torch.bfloat16):
        found = made.attribute(data[:3], target=1, output_seed="one")
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.2 * expected.norm()


# Errors.


@each_method
def test_something_else_than_a_model_and_patterns_is_refused(as_users_call, method):
    model, data = network()
    patterns = fit(model, data)
    name = method.__name__
    for given, got in (
        ((model, dict(patterns)), "Sequential and dict"),
        ((patterns, model), "Patterns and Sequential"),
        ((model.forward, patterns), "method and Patterns"),
    ):
        message = (
            f"{name} needs an nn.Module and its Patterns, got {got}; fit them with "
            "Patterns.fit(model, loader)"
        )
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            method(*given)


@each_method
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda x: x.float(),
            InputError,
            "the model has torch.float64 weights on cpu, and the inputs are torch.float32 on cpu; "
            "move them there with inputs.to(...)",
        ),
        (
            lambda x: x.long(),
            ShapeError,
            "expected floating-point inputs, got torch.int64; for images: images.float() / 255",
        ),
        (
            lambda x: x[0],
            ShapeError,
            "expected at least one input like (N, 2, 6, 6), as the patterns were fitted to, got "
            "shape (2, 6, 6)",
        ),
        (
            lambda x: x[:0],
            ShapeError,
            "expected at least one input like (N, 2, 6, 6), as the patterns were fitted to, got "
            "shape (0, 2, 6, 6)",
        ),
    ],
    ids=["dtype", "integers", "axes", "empty"],
)
def test_inputs_of_another_kind_are_refused(as_users_call, method, change, error, message):
    model, data = residual()
    made = method(model, fit(model, data))
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        made.attribute(change(data[:2]), target=1)


def test_inputs_on_another_device_are_refused(as_users_call):
    model, data = network()
    made = PatternNet(model, fit(model, data))
    message = (
        "the model has torch.float64 weights on cpu, and the inputs are torch.float64 on meta; "
        "move them there with inputs.to(...)"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        made.attribute(data[:2].to("meta"), target=1)


def test_settings_that_do_not_exist_are_refused(as_users_call):
    model, data = network()
    patterns = fit(model, data)
    with pytest.raises(InputError, match="^residual is one of 'gradient', 'pattern', got 'no'$"):
        PatternNet(model, patterns, residual="no")
    message = "^output_seed is one of 'logit', 'one', 'probability', got 'half'$"
    with pytest.raises(InputError, match=message):
        PatternNet(model, patterns).attribute(data[:2], target=1, output_seed="half")


@each_method
def test_a_map_that_is_not_finite_is_refused_and_one_that_is_zero_warned_of(method):
    model, data = network()
    made = method(model, fit(model, data))
    x = data[:3].clone()
    x[1, 0] = float("nan")
    with pytest.raises(InputError, match="^the map of image 1 is not finite in torch.float64; "):
        made.attribute(x, target=1)
    off = copy.deepcopy(model)
    with torch.no_grad():
        off[0].bias.fill_(-100)
    with pytest.warns(UserWarning, match="have no pattern"):
        patterns = fit(off, data)
    with pytest.warns(UserWarning, match="no unit that the target depends on is active"):
        assert (method(off, patterns).attribute(data[:2], target=1) == 0).all()


def test_a_target_out_of_range_is_refused():
    model, data = network()
    with pytest.raises(TargetError, match="^target 3 is out of range for 3 classes"):
        PatternNet(model, fit(model, data)).attribute(data[:2], target=3)
