"""Saliency and input times gradient, with their derivative."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_blackbox._compat import select_targets
from captum_blackbox.fragility.victims.victim import Explained, Victim
from captum_blackbox.shapes import Labels


class GradientVictim(Victim):
    """A map that is made of the images and the gradient of the explained score.

    Args:
        name: Of the explanation.
        network: The module explained.
        forward: Images → scores.
        map_of: Images and gradient → maps.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        forward: Callable[..., Tensor],
        map_of: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__(name, network, forward)
        self.map_of = map_of

    def made(
        self, images: Tensor, target: Labels, extra: tuple[Any, ...], *, create_graph: bool
    ) -> Explained:
        """Return the maps by one forward and one backward pass, and the scores."""
        scores = self.forward(images, *extra)
        gradient = input_gradient(scores, target, images, create_graph=create_graph)
        return Explained(self.map_of(images, gradient), scores)


def input_gradient(
    scores: Tensor, target: Labels | None, images: Tensor, *, create_graph: bool
) -> Tensor:
    """Return the gradient of the explained score of each image, 0 where there is none."""
    by_class = scores[:, None] if scores.dim() == 1 else scores
    explained = select_targets(by_class, target).sum()
    if not explained.requires_grad:
        return torch.zeros_like(images)
    (gradient,) = torch.autograd.grad(
        explained, images, create_graph=create_graph, allow_unused=True
    )
    return torch.zeros_like(images) if gradient is None else gradient
