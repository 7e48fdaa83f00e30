"""Many questions out of a few images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.student.distillation.random_state import generator_from


class TransferSet(Dataset[Tensor]):
    """Variations of images, to ask a black box about: cropped, mixed, and with parts deleted.

    A student learns from answers, so any image is a question, and the answer to a strange one is
    as true as to another. Questions with parts deleted matter most: deletion and insertion games,
    and RISE, ask about such images, and a student that never saw one differs from its box there.

    Question ``i`` is a function of ``(seed, i)`` alone, made from image ``i`` modulo their number:
    the same in every epoch, so that a box with a cache answers it once. The steps, in order:

    1. a crop of random size, shape and place, scaled back to the image's size, perhaps flipped;
    2. contrast and brightness moved, each channel on its own, inside the image's own range;
    3. a blend with another image;
    4. blanked out: cells of a random grid (hard edges) or its smooth version, as in RISE.

    The first ``len(images)`` questions are the images themselves.

    Args:
        images: ``(N, C, H, W)``, in any range of values, normalised or not, or a map-style data set
            of images or pairs (image, label), all of one size.
        size: How many questions.
        seed: Not negative.
        crop: Smallest share of the image's area that a crop keeps; 1 for no crops.
        flip: Whether to mirror left and right; not for digits or text.
        jitter: Largest relative change of contrast and, in units of a channel's standard deviation,
            of brightness; 0 for none.
        mix: Share of questions that blend two images.
        blank: Share of questions with parts blanked out.
        blank_value: What is put there: a number, or one per channel ``(C,)``. The default, zero, is
            the mean colour of normalised images.

    Raises:
        InputError: A setting is out of range or there is no image.
        ShapeError: The images have the wrong shape.

    Example:
        >>> questions = TransferSet(torch.rand(2, 3, 8, 8), size=100)
        >>> len(questions), questions[99].shape
        (100, torch.Size([3, 8, 8]))
        >>> torch.equal(questions[99], questions[99])
        True
    """

    def __init__(
        self,
        images: Tensor | Dataset[Any] | Sequence[Any],
        size: int,
        *,
        seed: int = 0,
        crop: float = 0.4,
        flip: bool = True,
        jitter: float = 0.2,
        mix: float = 0.2,
        blank: float = 0.5,
        blank_value: float | Tensor = 0.0,
    ) -> None:
        for name, share in (("crop", crop), ("mix", mix), ("blank", blank)):
            if not 0 <= share <= 1:
                raise InputError(f"{name} must be from 0 to 1, got {share}")
        for name, value in (("size", size), ("seed", seed), ("jitter", jitter)):
            if value < 0:
                raise InputError(f"{name} must not be negative, got {value}")
        self._images: Any = images
        self._count = len(images)  # type: ignore[arg-type]  # map-style
        if self._count == 0:
            raise InputError("there is no image to vary; give at least one")
        self._size, self._seed = size, seed
        self._crop, self._flip, self._jitter = crop, flip, jitter
        self._mix, self._blank = mix, blank
        self._blank_value = torch.as_tensor(blank_value).reshape(-1, 1, 1)

    def __len__(self) -> int:
        """Return the number of questions."""
        return self._size

    def __getitem__(self, index: int) -> Tensor:
        """Return question ``index``, ``(C, H, W)``."""
        if not 0 <= index < self._size:
            raise IndexError(f"question {index} is out of range for {self._size} questions")
        image = self._image(index % self._count)
        if index < self._count:
            return image.clone()
        draw = _Draw(generator_from(self._seed, index))
        low, high = image.amin(), image.amax()
        varied = image if self._crop == 1 else _cropped(image, self._crop, draw)
        if self._flip and draw.chance(0.5):
            varied = varied.flip(-1)
        if self._jitter > 0:
            varied = _jittered(varied, self._jitter, draw).clamp(low, high)
        if draw.chance(self._mix):
            other = self._image(draw.integer(self._count))
            if other.shape != image.shape:
                raise ShapeError(
                    f"images of one size can be mixed, got {tuple(image.shape)} and "
                    f"{tuple(other.shape)}; give mix=0.0 or scale them to one size"
                )
            varied = torch.lerp(varied, other, draw.uniform())
        if draw.chance(self._blank):
            kept = _mask(varied.shape[-2:], draw).to(varied)
            varied = torch.lerp(self._blank_value.to(varied).expand_as(varied), varied, kept)
        return varied.contiguous()

    def _image(self, index: int) -> Tensor:
        item = self._images[index]
        image = item[0] if isinstance(item, tuple | list) else item
        if not isinstance(image, Tensor) or image.dim() != 3 or not image.is_floating_point():
            got = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else None
            raise ShapeError(
                "expected floating-point images (C, H, W), got "
                f"{got or type(image).__name__} for image {index}"
            )
        return image


class _Draw:
    """Random numbers of one question, one after the other."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def integer(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability


def _cropped(image: Tensor, smallest: float, draw: _Draw) -> Tensor:
    height, width = image.shape[-2:]
    side = draw.uniform(smallest, 1.0) ** 0.5
    stretch = draw.uniform(0.75, 4 / 3) ** 0.5
    rows = min(height, max(1, round(height * side * stretch)))
    columns = min(width, max(1, round(width * side / stretch)))
    top, left = draw.integer(height - rows + 1), draw.integer(width - columns + 1)
    part = image[None, :, top : top + rows, left : left + columns]
    return F.interpolate(part, size=(height, width), mode="bilinear", align_corners=False)[0]


def _jittered(image: Tensor, strength: float, draw: _Draw) -> Tensor:
    mean, spread = image.mean((1, 2), keepdim=True), image.std((1, 2), correction=0, keepdim=True)
    changes = torch.rand(2, len(image), 1, 1, generator=draw.generator).to(image) * 2 - 1
    contrast, brightness = strength * changes
    jittered: Tensor = mean + (image - mean) * (1 + contrast) + spread * brightness
    return jittered


def _mask(size: torch.Size, draw: _Draw) -> Tensor:
    """Return what is kept, ``(H, W)`` from 0 to 1: some cells of a grid, never all, never none."""
    side = 2 + draw.integer(7)
    cells = side * side
    kept = 1 + draw.integer(cells - 1)
    grid = (torch.randperm(cells, generator=draw.generator) < kept).float().view(1, 1, side, side)
    if draw.chance(0.5):
        return F.interpolate(grid, size=size, mode="nearest")[0, 0]
    return F.interpolate(grid, size=size, mode="bilinear", align_corners=False)[0, 0]
