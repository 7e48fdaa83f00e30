"""What a method is: something that explains images, and what it runs through."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import InputError
from captum_blackbox.metrics.full_size import full_size_maps

Explain: TypeAlias = Callable[[Tensor, Tensor], object]
"""Images ``(N, C, H, W)`` and classes ``(N,)`` → maps."""


@dataclass(frozen=True)
class Method:
    """A method that is ready to explain.

    Attributes:
        name: In tables.
        explain: From images and classes to maps of any form.
        networks: Modules whose passes are its cost.
        boxes: Black boxes whose answers are its cost.
        remade: Model → the same method for it; ``None`` if it is bound to its model.
    """

    name: str
    explain: Explain
    networks: tuple[nn.Module, ...] = ()
    boxes: tuple[BlackBox, ...] = ()
    remade: Callable[[nn.Module], "Method"] | None = None

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return maps ``(N, channels, H, W)`` at the size of the images.

        Raises:
            ShapeError: The method gave something else.
        """
        # Metrics may ask under no_grad.
        with torch.enable_grad():
            given = self.explain(images.detach().clone(), targets)
        return full_size_maps(given, images)

    def attribute(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Return the same, called as Captum's methods are."""
        return self(inputs, target)

    def for_model(self, model: nn.Module) -> "Method":
        """Return the same method for another model.

        Raises:
            InputError: It is an object that was made for one model.
        """
        if self.remade is None:
            raise InputError(
                f"{self.name!r} is bound to its model, and this metric explains others, such as "
                "copies with random weights; give a class or a function of the model instead"
            )
        return self.remade(model)
