"""Integrated gradients and smoothed maps: their definition, in bounded memory."""

import captum.attr as captum
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from victim_networks import BETA, captums_own, images, residual, targets

from captum_blackbox.errors import InputError
from captum_blackbox.fragility.surrogate import softened
from captum_blackbox.fragility.victims import derivative_error, victim_of
from captum_blackbox.hooks import on_output

KINDS = ["smoothgrad", "smoothgrad_sq", "vargrad"]


def loss(maps):
    """Of the normalised map, as an attack has it."""
    flat = maps.abs().flatten(1)
    return (flat / flat.sum(1, keepdim=True)).square().sum(1)


def integrated(model, x, target, steps):
    """The sum of the paper's section 5, one step and one image at a time."""
    maps = torch.zeros_like(x)
    for n in range(len(x)):
        for k in range(1, steps + 1):
            point = (x[n : n + 1] * k / steps).requires_grad_()
            (gradient,) = torch.autograd.grad(model(point)[0, target[n]], point)
            maps[n] += x[n] * gradient[0] / steps
    return maps


@pytest.mark.parametrize("at_once", [None, 4, 11])
def test_integrated_gradients_follow_the_definition_and_add_up(at_once):
    model, x, target = residual(), images(), targets()
    settings = {"method": "riemann_right", "internal_batch_size": at_once}
    victim = victim_of(
        captum.IntegratedGradients(model), attribute_kwargs=settings | {"n_steps": 8}
    )
    with softened(model, BETA):
        assert_close(
            victim.explain(x, target).maps, integrated(model, x, target, 8), rtol=1e-6, atol=1e-9
        )
        fine = victim_of(captum.IntegratedGradients(model), attribute_kwargs={"n_steps": 60})
        change = (model(x) - model(torch.zeros_like(x))).gather(1, target[:, None])[:, 0]
        total = fine.explain(x, target).maps.sum((1, 2, 3))
    assert_close(total, change.detach(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("at_once", [1, 4, 8, 13, 28, 100])
def test_the_direction_in_chunks_is_the_one_of_all_steps_at_once(at_once):
    model, x, target = residual(), images(), targets()
    ig = captum.IntegratedGradients(model)
    whole = victim_of(ig, attribute_kwargs={"n_steps": 7})
    chunked = victim_of(ig, attribute_kwargs={"n_steps": 7, "internal_batch_size": at_once})
    with softened(model, BETA):
        leaf = x.clone().requires_grad_()
        maps = whole.explain(leaf, target, create_graph=True).maps
        (expected,) = torch.autograd.grad(loss(maps).sum(), leaf)
        assert_close(whole.direction(x, target, loss), expected)
        assert_close(chunked.direction(x, target, loss), expected)
        assert expected.any()


def graph_bytes(victim, x, target):
    """The most that a graph kept alive in one call of ``direction``."""
    held, most = [0], [0]

    class Kept:
        def __init__(self, tensor):
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            held[0] += self.size
            most[0] = max(most[0], held[0])

        def __del__(self):
            held[0] -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        victim.direction(x, target, loss)
    return most[0]


def test_memory_does_not_grow_with_the_steps():
    model, x, target = residual(), images(), targets()
    ig = captum.IntegratedGradients(model)

    def needed(steps, at_once):
        settings = {"n_steps": steps, "internal_batch_size": at_once}
        return graph_bytes(victim_of(ig, attribute_kwargs=settings), x, target)

    with softened(model, BETA):
        few, many, whole = needed(4, 8), needed(40, 8), needed(40, None)
    assert many < 1.1 * few
    assert whole > 10 * many


def test_the_last_chunk_is_not_computed_again():
    model, x, target = residual(), images(), targets()
    seen = []
    handle = on_output(model, lambda _module, given, _output: seen.append(len(given[0])))
    settings = {"n_steps": 6, "internal_batch_size": 8}
    victim_of(captum.IntegratedGradients(model), attribute_kwargs=settings).direction(
        x, target, loss
    )
    handle.remove()
    assert seen == [8, 8, 8, 8, 8]


def inner_of(name, model):
    return {
        "Saliency": (captum.Saliency(model), {}),
        "IntegratedGradients": (
            captum.IntegratedGradients(model),
            {"n_steps": 3, "baselines": images(4, seed=8)},
        ),
        "DeepLift": (captum.DeepLift(model), {}),
        "LayerGradCam": (captum.LayerGradCam(model, model.conv1), {}),
    }[name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["Saliency", "IntegratedGradients", "DeepLift", "LayerGradCam"])
def test_a_noise_tunnel_equals_captums_for_the_same_noise(kind, name, monkeypatch):
    model, x, target = residual(), images(), targets()
    inner, settings = inner_of(name, model)
    settings = settings | {"nt_type": kind, "nt_samples": 5, "stdevs": 0.2}
    tunnel = captum.NoiseTunnel(inner)
    victim = victim_of(tunnel, attribute_kwargs=settings)
    noise = victim.noise(x)
    assert noise.std() == pytest.approx(0.2, rel=0.1)
    monkeypatch.setattr(torch, "normal", lambda *_: noise.repeat(len(x), 1, 1, 1))
    with softened(model, BETA):
        own = captums_own(tunnel, x, target, **settings)
        # Captum's fallback under max pooling mixes images, see DeepLiftVictim.
        assert_close(victim.explain(x, target).maps, own, atol=1e-12, rtol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at_once", [None, 2])
def test_the_derivative_of_a_smoothed_map_is_right_and_the_same_in_chunks(kind, at_once):
    model, x, target = residual(), images(), targets()
    settings = {"nt_type": kind, "nt_samples": 5, "stdevs": (0.2,)}
    tunnel = captum.NoiseTunnel(captum.Saliency(model))
    whole = victim_of(tunnel, attribute_kwargs=settings)
    victim = victim_of(tunnel, attribute_kwargs=settings | {"nt_samples_batch_size": at_once})
    with softened(model, BETA):
        assert (derivative_error(victim, x, target) < 1e-6).all()
        assert_close(victim.explain(x, target), whole.explain(x, target))
        assert_close(victim.direction(x, target, loss), whole.direction(x, target, loss))
        one = victim.direction(x[2:3], target[2:3], loss)
        assert_close(victim.direction(x, target, loss)[2:3], one)
    assert victim.name == f"{kind} of Saliency"
    assert_close(victim.scores(x), model(x).detach())


def test_a_smoothed_map_is_a_function_of_the_image():
    model, x, target = residual(), images(), targets()
    victim = victim_of(captum.NoiseTunnel(captum.Saliency(model)))
    torch.manual_seed(1)
    first, state = victim.explain(x, target).maps, torch.get_rng_state()
    torch.rand(3)
    assert torch.equal(victim.explain(x, target).maps, first)
    torch.manual_seed(1)
    victim.explain(x, target)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stdevs": 1}, "stdevs is a float"),
        ({"stdevs": -1.0}, "stdevs is a float"),
        ({"nt_samples": 0}, "at least 1"),
        ({"nt_samples_batch_size": 0}, "at least 1"),
        ({"nt_type": "smooth"}, "nt_type is one of 'smoothgrad'"),
        ({"draw_baseline_from_distrib": True}, "no fixed map to attack"),
        ({"nt_sample": 3}, "did you mean 'nt_samples'"),
    ],
)
def test_a_noise_tunnel_refuses_what_it_cannot_use(settings, message, as_users_call):
    tunnel = captum.NoiseTunnel(captum.Saliency(nn.Flatten()))
    with pytest.raises(InputError, match=message):
        victim_of(tunnel, attribute_kwargs=settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_steps": 0}, "n_steps is at least 1"),
        ({"n_steps": 1, "method": "riemann_left"}, "n_steps is at least 2"),
        ({"n_steps": 2.5}, "n_steps is at least 1"),
        ({"method": "simpson"}, "method is one of 'gausslegendre'"),
        ({"internal_batch_size": 0}, "internal_batch_size is at least 1"),
    ],
)
def test_integrated_gradients_refuse_what_they_cannot_use(settings, message, as_users_call):
    with pytest.raises(InputError, match=message):
        victim_of(captum.IntegratedGradients(nn.Flatten()), attribute_kwargs=settings)
