"""Explanations that a user writes as a function."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from captum_blackbox.fragility.victims.attributions import at_image_size
from captum_blackbox.fragility.victims.gradients import own_leaf
from captum_blackbox.fragility.victims.victim import Explained, Victim
from captum_blackbox.shapes import Labels


class FunctionVictim(Victim):
    """A function ``(model, inputs, target, *extra, **settings)`` that returns maps on the graph.

    Args:
        name: Of the explanation.
        network: The module explained, its first argument.
        function: The function.
        settings: Passed to it by name.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        function: Callable[..., Tensor],
        settings: Mapping[str, Any],
    ) -> None:
        super().__init__(name, network)
        self.function, self.settings = function, dict(settings)

    def explain(
        self,
        images: Tensor,
        target: Labels,
        extra: tuple[Any, ...] = (),
        *,
        create_graph: bool = False,
    ) -> Explained:
        """Return what the function returns."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = own_leaf(images, create_graph)
            maps = self.function(self.network, leaf, target, *extra, **self.settings)
            maps = at_image_size(maps, leaf, self.name)
        return Explained(maps if create_graph else maps.detach())
