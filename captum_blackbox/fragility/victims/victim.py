"""What can be attacked: an explanation as a differentiable function of the images."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_blackbox.errors import VictimError
from captum_blackbox.hooks import evaluating
from captum_blackbox.shapes import Labels

LossOfMaps = Callable[[Tensor], Tensor]
"""Maps ``(N, …)`` on the graph → a loss per image ``(N,)``."""


class Explained(NamedTuple):
    """An explanation, and the scores that came with it.

    Attributes:
        maps: ``(N, C, H, W)`` or ``(N, 1, H, W)`` at the size of the images, as the method returns
            them: signed, not normalised.
        scores: ``(N, classes)`` of the network that was explained, where the explanation needed
            them anyway; ``None`` otherwise.
    """

    maps: Tensor
    scores: Tensor | None = None


class Victim(ABC):
    """An explanation method as a function of images that can be differentiated.

    A victim is stateless between calls. Its methods run the network as it stands: whoever wants
    ReLUs softened calls them inside :func:`~captum_blackbox.fragility.softened`, and
    evaluation mode is set by :meth:`ready`.

    Args:
        name: Of the explanation, for tables and messages.
        network: The module that is explained, whose ReLUs a surrogate softens.
        forward: Images → scores ``(N, classes)``; by default ``network`` itself.
    """

    def __init__(
        self, name: str, network: nn.Module, forward: Callable[..., Tensor] | None = None
    ) -> None:
        self.name = name
        self.network = network
        self.forward: Callable[..., Tensor] = network if forward is None else forward

    @abstractmethod
    def made(
        self, images: Tensor, target: Labels, extra: tuple[Any, ...], *, create_graph: bool
    ) -> Explained:
        """Return maps of images that require gradients, with the graph if asked to keep it."""

    def explain(
        self,
        images: Tensor,
        target: Labels,
        extra: tuple[Any, ...] = (),
        *,
        create_graph: bool = False,
    ) -> Explained:
        """Return the explanation of one class per image.

        Args:
            images: ``(N, C, H, W)``; with ``create_graph`` they require gradients, and the maps
                hang on them by their true derivative.
            target: The class explained, ``(N,)``.
            extra: Passed to the network after the images.
            create_graph: Whether the maps will be differentiated. Without it the value is the
                same, detached.
        """
        with torch.inference_mode(False), torch.enable_grad():
            keep = create_graph and images.requires_grad
            leaf = images if keep else images.detach().clone().requires_grad_()
            # What was made in inference mode cannot be kept for a backward pass.
            maps, scores = self.made(
                leaf, usable(target), tuple(map(usable, extra)), create_graph=create_graph
            )
        return Explained(
            maps if create_graph else maps.detach(), None if scores is None else scores.detach()
        )

    def scores(self, images: Tensor, extra: tuple[Any, ...] = ()) -> Tensor:
        """Return the scores ``(N, classes)`` that decide which label an image has, detached."""
        with torch.no_grad():
            return self.forward(images, *extra)

    def ready(self) -> AbstractContextManager[None]:
        """Put the network in evaluation mode for a block."""
        return evaluating(self.network)

    def direction(
        self, images: Tensor, target: Labels, loss: LossOfMaps, extra: tuple[Any, ...] = ()
    ) -> Tensor:
        """Return the gradient of ``loss`` of the maps with respect to the images, detached.

        Args:
            images: ``(N, C, H, W)``.
            target: The class explained, ``(N,)``.
            loss: Of the maps; a number per image. Images do not influence each other's gradient.
            extra: Passed to the network after the images.

        Raises:
            VictimError: The maps do not hang on the images.
        """
        with torch.inference_mode(False), torch.enable_grad():
            leaf = images.detach().clone().requires_grad_()
            maps = self.explain(leaf, target, extra, create_graph=True).maps
            if not maps.requires_grad:
                self._check_constant(maps, leaf, target, extra)
                return torch.zeros_like(images)
            return gradient_of(loss(maps), leaf)

    def _check_constant(
        self, maps: Tensor, images: Tensor, target: Labels, extra: tuple[Any, ...]
    ) -> None:
        """Tell maps that do not depend on the images from maps that lost their graph."""
        moved = images.detach() * 0.9 + 0.05
        if not torch.allclose(self.explain(moved, target, extra).maps, maps, rtol=1e-4):
            raise VictimError(
                f"the maps of {self.name} change with the images but hang on no graph, so there is "
                "no direction to move them in; return them without detach(), made with "
                "create_graph=True"
            )


def gradient_of(values: Tensor, leaf: Tensor) -> Tensor:
    """Return the gradient of the sum of ``values``; 0 where they are constant in ``leaf``."""
    (gradient,) = torch.autograd.grad(values.sum(), leaf, allow_unused=True)
    return torch.zeros_like(leaf) if gradient is None else gradient.detach()


def usable(argument: Any) -> Any:  # noqa: ANN401 - further arguments are anything
    """Return what can be kept for a backward pass: a copy of what was made in inference mode."""
    is_inference = isinstance(argument, Tensor) and argument.is_inference()
    return argument.clone() if is_inference else argument
