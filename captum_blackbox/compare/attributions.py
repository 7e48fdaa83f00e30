"""Attributions with the settings they are called with: one recipe for whoever names a method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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

from captum_blackbox.compare.context import content_seeds
from captum_blackbox.errors import InputError, LayerError
from captum_blackbox.hooks import captured, evaluating, find_layers
from captum_blackbox.student import LayerSumGradCAM

NOISE = 0.15
"""Of the range of values of an image, for SmoothGrad, as published."""

# Images in one pass of methods that make many of one: more take memory, and on a CPU no less time.
_AT_ONCE = 8
_WINDOWS = 8  # along a side, for occlusion


@dataclass(frozen=True)
class Configured:
    """An attribution, and what else its ``attribute`` is called with.

    Attributes:
        attribution: With a method ``attribute(inputs, target=…)``.
        settings: Such as ``n_steps`` or ``baselines``.

    Raises:
        InputError: It is a class, or has no method ``attribute``; or the settings name the inputs
            or the target, which each call brings.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> method = Configured(IntegratedGradients(model), {"n_steps": 8})
        >>> method.attribute(torch.rand(2, 3, 2, 2), target=1).shape
        torch.Size([2, 3, 2, 2])
    """

    attribution: Any
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be called."""
        given = self.attribution
        if isinstance(given, type) or not hasattr(given, "attribute"):
            name = given.__name__ if isinstance(given, type) else type(given).__name__
            what = f"the class {name}" if isinstance(given, type) else f"a {name}"
            raise InputError(
                f"Configured takes an attribution, an object with a method attribute, got {what}; "
                "for a class write lambda model: Configured(Class(model), {…})"
            )
        brought = sorted({"inputs", "target"} & set(self.settings))
        if brought:
            raise InputError(f"each call brings its {brought[0]}; leave it out of the settings")

    def attribute(self, inputs: Tensor, target: Any = None) -> Any:  # noqa: ANN401
        """Return what the attribution returns with these settings."""
        return self.attribution.attribute(inputs, target=target, **self.settings)


def without_settings(given: Any) -> Any:  # noqa: ANN401
    """Return the attribution that settings go with; anything else as it is."""
    return given.attribution if isinstance(given, Configured) else given


@dataclass(frozen=True)
class Explained:
    """A network, and how its explanations are made.

    Attributes:
        network: The network.
        example: An image that it takes, ``(1, C, H, W)``, on its device.
        std: By which the channels of an image with values in [0, 1] were divided.
        passes: Steps of integrated gradients, and noisy copies of SmoothGrad.
        at_once: Images explained together.
    """

    network: nn.Module
    example: Tensor
    std: Sequence[float]
    passes: int
    at_once: int


class RandomMaps:
    """Maps that know nothing: what every method has to beat."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def attribute(self, inputs: Tensor, target: Any = None) -> Tensor:  # noqa: ANN401, ARG002
        """Return maps ``(N, 1, H, W)`` that depend on the images and the seed alone."""
        maps = [
            torch.rand(1, *inputs.shape[2:], generator=torch.Generator().manual_seed(seed))
            for seed in content_seeds(inputs, self._seed)
        ]
        return torch.stack(maps).to(inputs.device)


def integrated_gradients(network: nn.Module, *, steps: int, images: int) -> Configured:
    """Return integrated gradients from 0 of so many images together."""
    settings = {"n_steps": steps, "internal_batch_size": max(_AT_ONCE, images)}
    return Configured(IntegratedGradients(network), settings)


def smoothgrad(
    scores: Callable[[Tensor], Any], *, copies: int, stdev: float, images: int
) -> Configured:
    """Return the mean absolute gradient of noisy copies of so many images together."""
    settings = {
        "nt_type": "smoothgrad",
        "nt_samples": copies,
        "nt_samples_batch_size": max(1, _AT_ONCE // images),
        "stdevs": stdev,
    }
    return Configured(NoiseTunnel(Saliency(scores)), settings)


def grad_cam(network: nn.Module, example: Tensor) -> Configured:
    """Return Grad-CAM of the convolution that runs last."""
    layer = last_convolution(network, example)
    return Configured(LayerGradCam(network, layer), {"relu_attributions": True})


def guided_grad_cam(network: nn.Module, example: Tensor) -> Configured:
    """Return guided Grad-CAM of the convolution that runs last."""
    return Configured(GuidedGradCam(network, last_convolution(network, example)))


def occlusion(scores: Callable[[Tensor], Any], example: Tensor, *, images: int) -> Configured:
    """Return occlusion by windows of an eighth of each side, half overlapping."""
    channels, *size = example.shape[1:]
    window = [max(1, side // _WINDOWS) for side in size]
    settings = {
        "sliding_window_shapes": (channels, *window),
        "strides": (channels, *(max(1, side // 2) for side in window)),
        "perturbations_per_eval": max(1, _AT_ONCE // images),
    }
    return Configured(Occlusion(scores), settings)


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


def _of(method: Callable[[nn.Module], Any]) -> Callable[[Explained], Configured]:
    return lambda explained: Configured(method(explained.network))


def _integrated_gradients(explained: Explained) -> Configured:
    return integrated_gradients(explained.network, steps=explained.passes, images=explained.at_once)


def _smoothgrad(explained: Explained) -> Configured:
    stdev = NOISE / (sum(explained.std) / len(explained.std))
    return smoothgrad(
        explained.network, copies=explained.passes, stdev=stdev, images=explained.at_once
    )


BY_GRADIENT: Mapping[str, Callable[[Explained], Configured]] = {
    "gradient": _of(Saliency),
    "input-x-gradient": _of(InputXGradient),
    "ig": _integrated_gradients,
    "deeplift": _of(DeepLift),
    "smoothgrad": _smoothgrad,
    "guided-backprop": _of(GuidedBackprop),
    "deconvnet": _of(Deconvolution),
    "grad-cam": lambda explained: grad_cam(explained.network, explained.example),
    "guided-grad-cam": lambda explained: guided_grad_cam(explained.network, explained.example),
    "layer-sum": _of(LayerSumGradCAM),
}
"""Name of an audit and of an attack → what makes the method for a network."""
