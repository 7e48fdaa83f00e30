"""Methods that are ready by name, with settings that suit a comparison."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from captum.attr import (
    DeepLift,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from torch import Tensor, nn

from captum_blackbox.compare.context import content_seeds
from captum_blackbox.compare.fitted_methods import distilled_layer_sum, pattern_attribution
from captum_blackbox.compare.method import Explain
from captum_blackbox.compare.setup import Setup
from captum_blackbox.errors import LayerError
from captum_blackbox.hooks import captured, evaluating, find_layers
from captum_blackbox.patterns.peers import deconvnet, guided_backprop, lrp
from captum_blackbox.student import RISE, LayerSumGradCAM

_STEPS = 32  # of integrated gradients
_AT_ONCE = 32  # images in one pass of methods that make many of one
_NOISY = 16  # copies, for SmoothGrad
_NOISE = 0.15  # of the range of values in the image, as published
_WINDOWS = 8  # along a side, for occlusion
_MASKS = 2000  # of RISE


@dataclass(frozen=True)
class ReadyMethod:
    """How to make a method.

    Attributes:
        make: From a model to an attribution, or to a function of images and classes.
        needs_gradients: Whether it needs the model itself.
        is_fitted: Whether it needs images to be fitted to.
    """

    make: Callable[[Setup], Any]
    needs_gradients: bool = True
    is_fitted: bool = False


def _model(setup: Setup) -> nn.Module:
    return cast(nn.Module, setup.model)  # there is one: methods that need it are refused before


def _last_layer(setup: Setup) -> nn.Module:
    """Return the convolution that runs last."""
    model = _model(setup)
    layers = find_layers(model, None)
    with torch.no_grad(), evaluating(model), captured(layers) as seen:
        model(setup.example)
    if not seen:
        raise LayerError(f"no Conv2d of this {type(model).__name__} runs")
    return layers[list(seen)[-1]]


def _grad_cam(setup: Setup) -> Explain:
    method = LayerGradCam(_model(setup), _last_layer(setup))
    return lambda images, targets: method.attribute(images, targets, relu_attributions=True)


def _integrated_gradients(setup: Setup) -> Explain:
    method = IntegratedGradients(_model(setup))

    def explain(images: Tensor, targets: Tensor) -> object:
        at_once = max(_AT_ONCE, len(images))
        return method.attribute(images, target=targets, n_steps=_STEPS, internal_batch_size=at_once)

    return explain


def _smoothgrad(setup: Setup) -> Explain:
    model, kept = _model(setup), setup.example.dtype

    def scores(noisy: Tensor) -> object:
        return model(noisy.to(kept))  # Captum's noise is float32

    method = NoiseTunnel(Saliency(scores))

    def explain(images: Tensor, targets: Tensor) -> object:
        # It draws, and so it is called for one image at a time.
        spread = float(images.max() - images.min())
        return method.attribute(
            images, nt_type="smoothgrad", nt_samples=_NOISY, stdevs=_NOISE * spread, target=targets
        )

    return explain


def _occlusion(setup: Setup) -> Explain:
    method = Occlusion(setup.box if setup.model is None else setup.model)

    def explain(images: Tensor, targets: Tensor) -> object:
        channels, *size = images.shape[1:]
        window = [max(1, side // _WINDOWS) for side in size]
        return method.attribute(
            images,
            sliding_window_shapes=(channels, *window),
            strides=(channels, *(max(1, side // 2) for side in window)),
            target=targets,
            perturbations_per_eval=max(1, _AT_ONCE // len(images)),
        )

    return explain


def _random(setup: Setup) -> Explain:
    def explain(images: Tensor, targets: Tensor) -> object:  # noqa: ARG001 - it knows nothing
        maps = [
            torch.rand(images.shape[2:], generator=torch.Generator().manual_seed(seed))
            for seed in content_seeds(images, setup.seed)
        ]
        return torch.stack(maps).to(images.device)

    return explain


def _peer(method: Callable[..., Tensor], setup: Setup) -> Explain:
    return partial(method, _model(setup))


def _of_model(method: Callable[[nn.Module], Any], setup: Setup) -> Any:  # noqa: ANN401
    return method(_model(setup))


READY: Mapping[str, ReadyMethod] = {
    "random": ReadyMethod(_random, needs_gradients=False),
    "saliency": ReadyMethod(partial(_of_model, Saliency)),
    "input_x_gradient": ReadyMethod(partial(_of_model, InputXGradient)),
    "integrated_gradients": ReadyMethod(_integrated_gradients),
    "smoothgrad": ReadyMethod(_smoothgrad),
    "deeplift": ReadyMethod(partial(_of_model, DeepLift)),
    "guided_backprop": ReadyMethod(partial(_peer, guided_backprop)),
    "deconvnet": ReadyMethod(partial(_peer, deconvnet)),
    "lrp": ReadyMethod(partial(_peer, lrp)),
    "grad_cam": ReadyMethod(_grad_cam),
    "guided_grad_cam": ReadyMethod(lambda setup: GuidedGradCam(_model(setup), _last_layer(setup))),
    "layer_sum": ReadyMethod(partial(_of_model, LayerSumGradCAM)),
    "pattern_attribution": ReadyMethod(pattern_attribution, is_fitted=True),
    "distilled_layer_sum": ReadyMethod(distilled_layer_sum, needs_gradients=False, is_fitted=True),
    "occlusion": ReadyMethod(_occlusion, needs_gradients=False),
    "rise": ReadyMethod(
        lambda setup: RISE(setup.box, masks=_MASKS, seed=setup.seed), needs_gradients=False
    ),
}
"""Name → method.

``"random"`` is the floor that every other has to beat. Of Captum: ``"saliency"`` (the absolute
gradient), ``"input_x_gradient"``, ``"integrated_gradients"`` (32 steps from 0), ``"smoothgrad"``
(16 copies with noise of 0.15 of the range), ``"deeplift"`` (from 0), ``"guided_backprop"``,
``"deconvnet"``, ``"grad_cam"`` and ``"guided_grad_cam"`` (for the convolution that runs last), and
``"occlusion"`` (windows of an eighth of each side, half overlapping). Of Zennit: ``"lrp"`` (flat,
z-plus, epsilon). Ours: ``"layer_sum"``, ``"rise"`` (2000 masks), and, fitted to ``data``,
``"pattern_attribution"`` and ``"distilled_layer_sum"``.
"""
