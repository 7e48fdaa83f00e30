"""The attacks that ``attack`` names: each on one explanation of a network, with its settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

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
    Saliency,
)
from torch import Tensor, nn

from captum_blackbox.cli.images import Preparation
from captum_blackbox.errors import LayerError
from captum_blackbox.fragility import InterpretationAttack
from captum_blackbox.fragility.surrogate import DEFAULT_BETA
from captum_blackbox.hooks import captured, evaluating, find_layers
from captum_blackbox.student import LayerSumGradCAM

_AT_ONCE = 32  # images in one pass of methods that make many of one
_NOISE = 0.15  # of the range of values of an image, as published for SmoothGrad


@dataclass(frozen=True)
class Attackers:
    """Makes the attack on an explanation of a network.

    Attributes:
        network: The network.
        preparation: How it takes images.
        example: An image that it takes, ``(1, C, H, W)``, on its device.
        passes: Steps of integrated gradients, and noisy copies of SmoothGrad.
        at_once: Images in an attack.
        beta: Of the surrogate; ``None`` for the attack's own default.
    """

    network: nn.Module
    preparation: Preparation
    example: Tensor
    passes: int
    at_once: int
    beta: float | None

    def attack(self, method: str) -> InterpretationAttack:
        """Return the attack on a method, one of ``attack_options.METHODS``.

        Raises:
            CaptumBlackboxError: The network has no such explanation, or none that can be attacked.
        """
        attribution, settings = _MAKERS[method](self)
        return InterpretationAttack.normalized(
            attribution,
            mean=self.preparation.mean,
            std=self.preparation.std,
            attribute_kwargs=settings,
            beta=DEFAULT_BETA if self.beta is None else self.beta,
        )


Made: TypeAlias = tuple[Any, dict[str, Any]]
"""An attribution, and what its ``attribute`` is called with."""


def _of(method: Callable[[nn.Module], Any]) -> Callable[[Attackers], Made]:
    return lambda attackers: (method(attackers.network), {})


def _integrated_gradients(attackers: Attackers) -> Made:
    settings = {
        "n_steps": attackers.passes,
        "internal_batch_size": max(_AT_ONCE, attackers.at_once),
    }
    return IntegratedGradients(attackers.network), settings


def _smoothgrad(attackers: Attackers) -> Made:
    spread = sum(attackers.preparation.std) / len(attackers.preparation.std)
    settings = {
        "nt_type": "smoothgrad",
        "nt_samples": attackers.passes,
        "nt_samples_batch_size": max(1, _AT_ONCE // attackers.at_once),
        "stdevs": _NOISE / spread,
    }
    return NoiseTunnel(Saliency(attackers.network)), settings


def _grad_cam(attackers: Attackers) -> Made:
    return LayerGradCam(attackers.network, _last_layer(attackers)), {"relu_attributions": True}


def _guided_grad_cam(attackers: Attackers) -> Made:
    return GuidedGradCam(attackers.network, _last_layer(attackers)), {}


def _last_layer(attackers: Attackers) -> nn.Module:
    """Return the convolution that runs last."""
    network = attackers.network
    layers = find_layers(network, None)
    with torch.no_grad(), evaluating(network), captured(layers) as seen:
        network(attackers.example)
    if not seen:
        raise LayerError(f"no Conv2d of this {type(network).__name__} runs")
    return layers[list(seen)[-1]]


_MAKERS: Mapping[str, Callable[[Attackers], Made]] = {
    "gradient": _of(Saliency),
    "input-x-gradient": _of(InputXGradient),
    "ig": _integrated_gradients,
    "deeplift": _of(DeepLift),
    "smoothgrad": _smoothgrad,
    "guided-backprop": _of(GuidedBackprop),
    "deconvnet": _of(Deconvolution),
    "grad-cam": _grad_cam,
    "guided-grad-cam": _guided_grad_cam,
    "layer-sum": _of(LayerSumGradCAM),
}
