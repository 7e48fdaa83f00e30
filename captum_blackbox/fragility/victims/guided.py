"""Guided backpropagation, deconvolution and guided Grad-CAM, with their derivative."""

from typing import Any

import torch.nn.functional as F
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn

from captum_blackbox.fragility.victims.gradients import input_gradient
from captum_blackbox.fragility.victims.rerouting import Signal, SignalRule, rerouted
from captum_blackbox.fragility.victims.victim import Explained, Victim
from captum_blackbox.shapes import Labels


class GuidedVictim(Victim):
    """The gradient, of which ReLU modules let only what is positive pass.

    It equals Captum's value. As there, ReLUs that are no modules send their gradient.

    Args:
        name: Of the explanation.
        network: The module explained.
        rule: :func:`guided` or :func:`deconvolved`.
    """

    def __init__(self, name: str, network: nn.Module, rule: SignalRule) -> None:
        super().__init__(name, network)
        self.rule = rule

    def made(
        self, images: Tensor, target: Labels, extra: tuple[Any, ...], *, create_graph: bool
    ) -> Explained:
        """Return the maps and the scores."""
        rules: dict[nn.Module, SignalRule] = {
            each: self.rule for each in self.network.modules() if isinstance(each, nn.ReLU)
        }
        with rerouted(rules):
            scores = self.forward(images, *extra)
            maps = input_gradient(scores, target, images, create_graph=create_graph)
        return Explained(maps, scores)


class GuidedGradCamVictim(GuidedVictim):
    """Guided backpropagation times the enlarged, rectified Grad-CAM of a layer.

    Args:
        name: Of the explanation.
        network: The module explained.
        grad_cam: Captum's, for the layer.
        interpolate_mode: How the map of the layer is enlarged.
        attribute_to_layer_input: Whether the layer's input is meant instead of its output.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        grad_cam: LayerGradCam,
        *,
        interpolate_mode: str,
        attribute_to_layer_input: bool,
    ) -> None:
        super().__init__(name, network, guided)
        self.grad_cam = grad_cam
        self.interpolate_mode = interpolate_mode
        self.attribute_to_layer_input = attribute_to_layer_input

    def made(
        self, images: Tensor, target: Labels, extra: tuple[Any, ...], *, create_graph: bool
    ) -> Explained:
        """Return the maps and the scores."""
        guided_maps, scores = super().made(images, target, extra, create_graph=create_graph)
        layer_maps = self.grad_cam.attribute(
            images,
            target=target,
            additional_forward_args=extra or None,
            attribute_to_layer_input=self.attribute_to_layer_input,
            relu_attributions=True,
            grad_kwargs={"create_graph": create_graph},
        )
        size = tuple(images.shape[2:])
        maps = guided_maps * LayerAttribution.interpolate(
            layer_maps, size, interpolate_mode=self.interpolate_mode
        )
        return Explained(maps, scores)


def guided(_module: nn.Module, _given: Tensor, _made: Tensor) -> Signal:
    """Send on the positive part of the gradient."""
    return lambda going, _arriving: F.relu(going)


def deconvolved(_module: nn.Module, _given: Tensor, _made: Tensor) -> Signal:
    """Send on the positive part of what arrives, whether the unit was active or not."""
    return lambda _going, arriving: F.relu(arriving)
