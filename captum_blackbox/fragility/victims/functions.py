"""Explanations that a user writes as a function."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from captum_blackbox.fragility.victims.attributions import at_image_size
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

    def made(
        self,
        images: Tensor,
        target: Labels,
        extra: tuple[Any, ...],
        *,
        create_graph: bool,  # noqa: ARG002 - the function decides
    ) -> Explained:
        """Return what the function returns."""
        maps = self.function(self.network, images, target, *extra, **self.settings)
        return Explained(at_image_size(maps, images, self.name))
