"""What methods are made from."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from captum_blackbox.black_box import BlackBox


@dataclass(frozen=True)
class Setup:
    """A model and what is needed to make methods for it.

    Attributes:
        box: The model as a black box.
        model: The model itself; ``None`` if it can only be called.
        example: One of the images, ``(1, C, H, W)``.
        num_classes: Of the model.
        data: Images that methods are fitted to; ``None`` if there are none.
        seed: For whatever is drawn.
    """

    box: BlackBox
    model: nn.Module | None
    example: Tensor
    num_classes: int
    data: Any
    seed: int

    @property
    def network(self) -> nn.Module | None:
        """The network whose answers count, also where it stands in a black box."""
        return self.box.fn if isinstance(self.box.fn, nn.Module) else None

    def for_model(self, model: nn.Module) -> "Setup":
        """Return the same for another model."""
        box = BlackBox(model, output=self.box.output, batch_size=self.box.batch_size)
        return replace(self, box=box, model=model)
