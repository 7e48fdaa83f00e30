"""Guided backpropagation, deconvolution and guided Grad-CAM, with their derivative."""

from typing import Any

import torch
import torch.nn.functional as F
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn

from captum_blackbox.fragility.victims.gradients import own_leaf
from captum_blackbox.fragility.victims.rerouting import Call, Rule, Signal, rerouted_gradient
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

    def __init__(self, name: str, network: nn.Module, rule: Rule) -> None:
        super().__init__(name, network)
        self.rule = rule

    def explain(
        self,
        images: Tensor,
        target: Labels,
        extra: tuple[Any, ...] = (),
        *,
        create_graph: bool = False,
    ) -> Explained:
        """Return the maps and the scores."""
        rules = {each: self.rule for each in self.network.modules() if isinstance(each, nn.ReLU)}
        with torch.inference_mode(False), torch.enable_grad():
            leaf = own_leaf(images, create_graph)
            maps, scores = rerouted_gradient(
                self.network, self.forward, rules, leaf, target, extra, create_graph=create_graph
            )
        return Explained(maps if create_graph else maps.detach(), scores.detach())


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

    def explain(
        self,
        images: Tensor,
        target: Labels,
        extra: tuple[Any, ...] = (),
        *,
        create_graph: bool = False,
    ) -> Explained:
        """Return the maps and the scores."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = own_leaf(images, create_graph)
            guided_maps, scores = super().explain(leaf, target, extra, create_graph=create_graph)
            layer_maps = self.grad_cam.attribute(
                leaf,
                target=target,
                additional_forward_args=extra or None,
                attribute_to_layer_input=self.attribute_to_layer_input,
                relu_attributions=True,
                grad_kwargs={"create_graph": create_graph},
            )
            size = tuple(leaf.shape[2:])
            maps = guided_maps * LayerAttribution.interpolate(
                layer_maps, size, interpolate_mode=self.interpolate_mode
            )
        return Explained(maps if create_graph else maps.detach(), scores)


def guided(call: Call, create_graph: bool) -> Signal:
    """Send on the positive part of the gradient."""
    slope = call.slope(create_graph=create_graph)
    return lambda arriving: F.relu(arriving * slope)


def deconvolved(_call: Call, _create_graph: bool) -> Signal:
    """Send on the positive part of what arrives, whether the unit was active or not."""
    return F.relu
