"""The images of an audit, and how they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.shapes import check_images


@dataclass(frozen=True)
class AuditImages:
    """Images, and what is known of them.

    Attributes:
        inputs: As the model takes them, ``(N, C, H, W)``: pixels in [0, 1], less ``mean``, divided
            by ``std``.
        mean: Of each channel; by default 0, for models that take pixels in [0, 1].
        std: Of each channel; by default 1.
        names: Of the images; by default their numbers.
        class_names: Of the classes; a class beyond them is called by its number.
        truth: True classes ``(N,)``, if known.
        objects: Where the true cause lies, ``(N, H, W)`` of 0 and 1, if known.

    Raises:
        ShapeError: These are no images, or something has another number of them.
        InputError: A std is not positive.

    Example:
        >>> images = AuditImages(torch.zeros(2, 3, 8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> images.names, float(images.pictures.max()), images.class_name(3)
        (('image 0', 'image 1'), 0.5, 'class 3')
    """

    inputs: Tensor
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    names: Sequence[str] = ()
    class_names: Sequence[str] = ()
    truth: Tensor | None = None
    objects: Tensor | None = None

    def __post_init__(self) -> None:
        """Check everything, and fill in what was not said."""
        check_images(self.inputs)
        count, channels = self.inputs.shape[:2]
        if channels not in {1, 3}:
            raise ShapeError(
                f"an audit shows its images, with 1 channel or 3; got {channels} channels"
            )
        fill = object.__setattr__  # the class is frozen
        fill(self, "inputs", self.inputs.detach())
        fill(self, "mean", tuple(self.mean) or (0.0,) * channels)
        fill(self, "std", tuple(self.std) or (1.0,) * channels)
        fill(self, "names", tuple(self.names) or tuple(f"image {i}" for i in range(count)))
        for name in ("mean", "std"):
            if len(getattr(self, name)) != channels:
                raise InputError(
                    f"{name} has one number for each of {channels} channels, got "
                    f"{len(getattr(self, name))}"
                )
        if not all(each > 0 for each in self.std):
            raise InputError(f"std is positive for every channel, got {self.std}")
        for name in ("names", "truth", "objects"):
            value = getattr(self, name)
            if value is not None and len(value) != count:
                raise ShapeError(f"there are {count} images and {len(value)} {name}")

    @property
    def pictures(self) -> Tensor:
        """As a person sees them, in [0, 1]."""
        return self.pictured(self.inputs)

    def pictured(self, inputs: Tensor) -> Tensor:
        """Return inputs of the model as pictures in [0, 1]."""
        mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (self.mean, self.std))
        return (inputs.cpu() * std + mean).clamp(0, 1)

    def class_name(self, index: int) -> str:
        """Return the name of a class."""
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"

    def rows(self, rows: Sequence[int]) -> "AuditImages":
        """Return some of the images."""
        index = torch.tensor(list(rows), dtype=torch.long)
        return replace(
            self,
            inputs=self.inputs[index.to(self.inputs.device)],
            names=[self.names[row] for row in rows],
            truth=None if self.truth is None else self.truth[index],
            objects=None if self.objects is None else self.objects[index],
        )

    def on(self, device: torch.device) -> "AuditImages":
        """Return the same with the inputs on a device."""
        return replace(self, inputs=self.inputs.to(device))
