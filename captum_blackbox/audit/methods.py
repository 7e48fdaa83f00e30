"""The methods that an audit names, each with what it is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from captum.attr import (
    Deconvolution,
    DeepLift,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from torch import Tensor, nn

from captum_blackbox.audit.workplace import Workplace
from captum_blackbox.compare.context import content_seeds
from captum_blackbox.compare.names import check_known
from captum_blackbox.errors import InputError, LayerError
from captum_blackbox.hooks import captured, evaluating, find_layers
from captum_blackbox.student import RISE, LayerSumGradCAM

_AT_ONCE = 32  # images in one pass of methods that make many of one
_NOISE = 0.15  # of the range of values of an image, as published for SmoothGrad
_WINDOWS = 8  # along a side, for occlusion


@dataclass(frozen=True)
class Made:
    """A method for one model.

    Attributes:
        attribution: With a method ``attribute(inputs, target=…)``.
        settings: What else that is called with.
    """

    attribution: Any
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditMethod:
    """What an audit knows of a method.

    Attributes:
        name: For the reader.
        make: Makes it.
        opens: Whether it needs the model itself.
        is_attacked: Whether it has a derivative that an attack can follow.
        floor: Which value of its maps means no importance.
    """

    name: str
    make: Callable[[Workplace], Made]
    opens: bool = True
    is_attacked: bool = True
    floor: Literal["zero", "minimum"] = "zero"


class RandomMaps:
    """Maps that know nothing: what every method has to beat."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def attribute(self, inputs: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
        """Return maps ``(N, 1, H, W)`` that depend on the images and the seed alone."""
        maps = [
            torch.rand(1, *inputs.shape[2:], generator=torch.Generator().manual_seed(seed))
            for seed in content_seeds(inputs, self._seed)
        ]
        return torch.stack(maps).to(inputs.device)


def _of(method: Callable[[nn.Module], Any]) -> Callable[[Workplace], Made]:
    return lambda place: Made(method(place.network))


def _integrated_gradients(place: Workplace) -> Made:
    settings = {
        "n_steps": place.budget.passes,
        "internal_batch_size": max(_AT_ONCE, place.batch_size),
    }
    return Made(IntegratedGradients(place.network), settings)


def _smoothgrad(place: Workplace) -> Made:
    std = place.images.std
    settings = {
        "nt_type": "smoothgrad",
        "nt_samples": place.budget.passes,
        "nt_samples_batch_size": max(1, _AT_ONCE // place.batch_size),
        "stdevs": _NOISE / (sum(std) / len(std)),
    }
    return Made(NoiseTunnel(Saliency(place.network)), settings)


def _grad_cam(place: Workplace) -> Made:
    layer = last_convolution(place.network, place.example)
    return Made(LayerGradCam(place.network, layer), {"relu_attributions": True})


def _guided_grad_cam(place: Workplace) -> Made:
    return Made(GuidedGradCam(place.network, last_convolution(place.network, place.example)))


def _occlusion(place: Workplace) -> Made:
    channels, *size = place.example.shape[1:]
    window = [max(1, side // _WINDOWS) for side in size]
    settings = {
        "sliding_window_shapes": (channels, *window),
        "strides": (channels, *(max(1, side // 2) for side in window)),
        "perturbations_per_eval": max(1, _AT_ONCE // place.batch_size),
    }
    return Made(Occlusion(place.box if place.model is None else place.model), settings)


def _rise(place: Workplace) -> Made:
    return Made(RISE(place.box, masks=place.budget.masks, seed=place.seed))


METHODS: Mapping[str, AuditMethod] = {
    "gradient": AuditMethod("Gradient", _of(Saliency)),
    "input-x-gradient": AuditMethod("Gradient × input", _of(InputXGradient)),
    "ig": AuditMethod("Integrated gradients", _integrated_gradients),
    "deeplift": AuditMethod("DeepLIFT", _of(DeepLift)),
    "smoothgrad": AuditMethod("SmoothGrad", _smoothgrad),
    "guided-backprop": AuditMethod("Guided Backprop", _of(GuidedBackprop)),
    "deconvnet": AuditMethod("DeConvNet", _of(Deconvolution)),
    "grad-cam": AuditMethod("Grad-CAM", _grad_cam),
    "guided-grad-cam": AuditMethod("Guided Grad-CAM", _guided_grad_cam),
    "layer-sum": AuditMethod("Layer sum", _of(LayerSumGradCAM)),
    "pattern-attribution": AuditMethod(
        "PatternAttribution", lambda place: Made(place.pattern_attribution())
    ),
    "distilled": AuditMethod(
        "Distilled layer sum", lambda place: Made(place.distilled()), opens=False
    ),
    "occlusion": AuditMethod("Occlusion", _occlusion, opens=False, is_attacked=False),
    "rise": AuditMethod("RISE", _rise, opens=False, is_attacked=False, floor="minimum"),
    "random": AuditMethod(
        "Random", lambda place: Made(RandomMaps(place.seed)), opens=False, is_attacked=False
    ),
}
"""Name → method. ``"random"`` is in every audit: it is what the others have to beat."""

RANDOM = "random"


def default_methods(*, is_open: bool, has_data: bool) -> tuple[str, ...]:
    """Return the methods of an audit that names none.

    Args:
        is_open: Whether the model is a network that can be looked into.
        has_data: Whether there are images to fit to.

    Example:
        >>> default_methods(is_open=False, has_data=False)
        ('distilled', 'rise', 'random')
    """
    if not is_open:
        return ("distilled", "rise", RANDOM)
    fitted = ("pattern-attribution",) if has_data else ()
    return ("gradient", "ig", "grad-cam", "layer-sum", *fitted, "rise", RANDOM)


def chosen_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Return methods in the order of :data:`METHODS`, ``"random"`` among them.

    Raises:
        InputError: One is not known; the nearest names are offered. One stands twice.

    Example:
        >>> chosen_methods(["rise", "ig"])
        ('ig', 'rise', 'random')
    """
    for name in names:
        check_known("method", name, METHODS)
        if list(names).count(name) > 1:
            raise InputError(f"method {name!r} stands twice")
    if set(names) <= {RANDOM}:
        raise InputError(f"an audit judges methods against random maps; name one of {_others()}")
    return tuple(name for name in METHODS if name in names or name == RANDOM)


def last_convolution(network: nn.Module, example: Tensor) -> nn.Module:
    """Return the convolution that runs last.

    Raises:
        LayerError: None runs.
    """
    layers = find_layers(network, None)
    with torch.no_grad(), evaluating(network), captured(layers) as seen:
        network(example)
    if not seen:
        raise LayerError(f"no Conv2d of this {type(network).__name__} runs")
    return layers[list(seen)[-1]]


def _others() -> str:
    return ", ".join(name for name in METHODS if name != RANDOM)
