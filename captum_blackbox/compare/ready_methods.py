"""Methods that are ready by name, with settings that suit a comparison."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from captum.attr import DeepLift, InputXGradient, Saliency
from torch import Tensor, nn

from captum_blackbox.compare.attributions import (
    NOISE,
    RandomMaps,
    grad_cam,
    guided_grad_cam,
    integrated_gradients,
    occlusion,
    smoothgrad,
)
from captum_blackbox.compare.fitted_methods import distilled_layer_sum, pattern_attribution
from captum_blackbox.compare.method import Explain
from captum_blackbox.compare.setup import Setup
from captum_blackbox.patterns.peers import deconvnet, guided_backprop, lrp
from captum_blackbox.student import RISE, LayerSumGradCAM

_STEPS = 32  # of integrated gradients
_NOISY = 16  # copies, for SmoothGrad
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


def _integrated_gradients(setup: Setup) -> Explain:
    def explain(images: Tensor, targets: Tensor) -> object:
        method = integrated_gradients(_model(setup), steps=_STEPS, images=len(images))
        return method.attribute(images, targets)

    return explain


def _smoothgrad(setup: Setup) -> Explain:
    model, kept = _model(setup), setup.example.dtype

    def scores(noisy: Tensor) -> object:
        return model(noisy.to(kept))  # Captum's noise is float32

    def explain(images: Tensor, targets: Tensor) -> object:
        # It draws, and so it is called for one image at a time.
        stdev = NOISE * float(images.max() - images.min())
        method = smoothgrad(scores, copies=_NOISY, stdev=stdev, images=len(images))
        return method.attribute(images, targets)

    return explain


def _occlusion(setup: Setup) -> Explain:
    scores = setup.box if setup.model is None else setup.model

    def explain(images: Tensor, targets: Tensor) -> object:
        return occlusion(scores, images, images=len(images)).attribute(images, targets)

    return explain


def _peer(method: Callable[..., Tensor], setup: Setup) -> Explain:
    return partial(method, _model(setup))


def _of_model(method: Callable[[nn.Module], Any], setup: Setup) -> Any:  # noqa: ANN401
    return method(_model(setup))


READY: Mapping[str, ReadyMethod] = {
    "random": ReadyMethod(lambda setup: RandomMaps(setup.seed), needs_gradients=False),
    "saliency": ReadyMethod(partial(_of_model, Saliency)),
    "input_x_gradient": ReadyMethod(partial(_of_model, InputXGradient)),
    "integrated_gradients": ReadyMethod(_integrated_gradients),
    "smoothgrad": ReadyMethod(_smoothgrad),
    "deeplift": ReadyMethod(partial(_of_model, DeepLift)),
    "guided_backprop": ReadyMethod(partial(_peer, guided_backprop)),
    "deconvnet": ReadyMethod(partial(_peer, deconvnet)),
    "lrp": ReadyMethod(partial(_peer, lrp)),
    "grad_cam": ReadyMethod(lambda setup: grad_cam(_model(setup), setup.example)),
    "guided_grad_cam": ReadyMethod(lambda setup: guided_grad_cam(_model(setup), setup.example)),
    "layer_sum": ReadyMethod(partial(_of_model, LayerSumGradCAM)),
    "pattern_attribution": ReadyMethod(pattern_attribution, is_fitted=True),
    "pattern_attribution_centred": ReadyMethod(
        partial(pattern_attribution, regime_centering=True), is_fitted=True
    ),
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
``"pattern_attribution"`` (as published), ``"pattern_attribution_centred"`` (with
``regime_centering``, for networks with BatchNorm) and ``"distilled_layer_sum"``.
"""
