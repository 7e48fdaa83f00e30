"""Captum's methods as victims: Captum's value, and the derivative of that value."""

import captum.attr as captum
import pytest
import torch
from networks import State
from torch import nn
from torch.testing import assert_close
from victim_networks import (
    BETA,
    CAPTUM_CASES,
    captum_case,
    captums_own,
    images,
    residual,
    targets,
)

from captum_blackbox.fragility.surrogate import softened
from captum_blackbox.fragility.victims import derivative_error, victim_of

each_case = pytest.mark.parametrize("name", CAPTUM_CASES)
KINDS = [
    "Saliency",
    "IntegratedGradients rows",
    "IntegratedGradients chunked",
    "DeepLift local",
    "GuidedBackprop",
    "GuidedGradCam",
    "LayerGradCam small",
]
each_kind = pytest.mark.parametrize("name", KINDS)
ON_RELU = ["InputXGradient", *[name for name in CAPTUM_CASES if name.startswith(("Int", "Deep"))]]


@each_case
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("beta", [None, BETA])
def test_the_value_is_captums_own(name, inplace, beta):
    model = residual(inplace)
    attribution, settings, victim = captum_case(name, model)
    x, target = images(), targets()
    with softened(model, beta):
        expected = captums_own(attribution, x, target, **settings)
        found = victim.explain(x, target)
        on_graph = victim.explain(x.clone().requires_grad_(), target, create_graph=True)
    exactly = {"atol": 0, "rtol": 0} if "chunked" not in name else {}
    assert_close(found.maps, expected, **exactly)
    assert_close(on_graph.maps.detach(), expected, atol=1e-15, rtol=1e-12)
    assert not found.maps.requires_grad
    if found.scores is not None:
        with softened(model, beta):
            assert_close(found.scores, victim.scores(x))
    assert_close(victim.scores(x), model(x).detach())


@each_case
def test_the_derivative_is_that_of_the_value_on_the_softened_network(name):
    model = residual(inplace=True)
    *_, victim = captum_case(name, model)
    with softened(model, BETA):
        error = derivative_error(victim, images(), targets())
        moved = victim.direction(images(), targets(), lambda maps: maps.square().flatten(1).sum(1))
    assert (error < 1e-6).all()
    # Deconvolution does not look at the activations, so its map is constant in pieces.
    assert bool(moved.any()) == (name != "Deconvolution")


@pytest.mark.parametrize("name", ON_RELU)
def test_the_derivative_is_right_on_the_rectifier_network_where_there_is_one(name):
    model = residual()
    *_, victim = captum_case(name, model)
    assert (derivative_error(victim, images(), targets(), step=1e-7) < 1e-5).all()


@each_kind
def test_images_do_not_influence_each_other(name):
    model = residual()
    attribution, settings, victim = captum_case(name, model)
    x, target = images(), targets()

    def loss(maps):
        return maps.square().flatten(1).sum(1) / (1 + maps.abs().flatten(1).sum(1))

    with softened(model, BETA):
        maps = victim.explain(x, target).maps
        direction = victim.direction(x, target, loss)
        for i in range(len(x)):
            own = dict(settings)
            if "row" in name or "local" in name:
                own["baselines"] = _row(own["baselines"], i)
            alone = victim_of(attribution, attribute_kwargs=own)
            one = slice(i, i + 1)
            assert_close(alone.explain(x[one], target[one]).maps, maps[one], atol=1e-14, rtol=1e-9)
            assert_close(alone.direction(x[one], target[one], loss), direction[one])


def _row(baselines, i):
    rows = baselines[0] if isinstance(baselines, tuple) else baselines
    return rows[i : i + 1] if torch.is_tensor(rows) and len(rows) > 1 else rows


@each_kind
def test_the_model_and_the_attribution_are_left_as_they_were(name):
    model = residual(inplace=True).train()
    model.conv1.weight.requires_grad_(False)
    model.norm.eval()
    model(images()).sum().backward()
    attribution, _, victim = captum_case(name, model)
    own, before, x = dict(vars(attribution)), State(model), images()
    with victim.ready(), softened(model, BETA):
        victim.explain(x, targets())
        victim.direction(x, targets(), lambda maps: maps.abs().flatten(1).sum(1))
    assert not before.differences(State(model))
    assert vars(attribution) == own
    assert not x.requires_grad

    def broken(maps):
        raise RuntimeError("a loss broke")

    with pytest.raises(RuntimeError, match="a loss broke"), victim.ready():
        victim.direction(x, targets(), broken)
    assert not before.differences(State(model))


@each_kind
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_switched_off(name, mode):
    *_, victim = captum_case(name, residual())
    expected = victim.explain(images(), targets()).maps
    with mode():  # what is made here cannot be kept for a backward pass
        assert_close(victim.explain(images(), targets()).maps, expected)
        direction = victim.direction(images(), targets(), lambda maps: maps.flatten(1).sum(1))
    assert direction.shape == images().shape


@each_kind
def test_further_arguments_reach_the_network(name):
    model = residual()
    attribution, settings, victim = captum_case(name, model)
    x, target = images(), targets()
    shift = torch.linspace(0, 1, 4, dtype=torch.float64).view(4, 1, 1, 1)
    expected = captums_own(attribution, x, target, additional_forward_args=(shift,), **settings)
    assert_close(victim.explain(x, target, (shift,)).maps, expected)
    assert_close(victim.scores(x, (shift,)), model(x, shift).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["Saliency", "DeepLift", "IntegratedGradients chunked"])
def test_other_precisions(name, dtype, device):
    model = residual().to(device, dtype)
    *_, victim = captum_case(name, model)
    x, target = images().to(device, dtype), targets().to(device)
    with softened(model, BETA):
        maps = victim.explain(x, target).maps
        direction = victim.direction(x, target, lambda maps: maps.abs().flatten(1).sum(1))
    assert maps.dtype == direction.dtype == dtype
    assert maps.device.type == direction.device.type == device
    assert direction.any()


def test_a_class_derived_from_captums_is_taken_if_it_explains_as_captums_does():
    class Renamed(captum.Saliency):
        @classmethod
        def get_name(cls):
            return "mine"

    model = residual()
    victim = victim_of(Renamed(model))
    assert victim.name == "mine"
    own = captums_own(captum.Saliency(model), images(), targets())
    assert torch.equal(victim.explain(images(), targets()).maps, own)


def test_a_compiled_or_wrapped_model_is_explained_by_what_is_in_it():
    model = residual()
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        victim = victim_of(captum.Saliency(wrapped))
        assert victim.network is model
        with softened(victim.network, BETA) as seen:
            victim.explain(images(), targets())
        assert seen.activations == 3


def test_a_function_around_the_model_is_called_and_the_model_softened():
    model = residual()
    attribution = captum.Saliency(lambda x: model(x).tanh())
    victim = victim_of(attribution, model=model)
    own = captums_own(attribution, images(), targets())
    assert torch.equal(victim.explain(images(), targets()).maps, own)
    assert_close(victim.scores(images()), model(images()).detach().tanh())
    with softened(victim.network, BETA):
        assert (derivative_error(victim, images(), targets()) < 1e-6).all()
