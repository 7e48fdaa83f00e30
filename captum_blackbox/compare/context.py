"""What a comparison is about: images, the classes explained, and whom to ask."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from captum_blackbox._compat import class_targets
from captum_blackbox.artifacts import tensor_bytes
from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import (
    BlackBoxError,
    CaptumBlackboxError,
    InputError,
    QueryBudgetError,
    ShapeError,
)
from captum_blackbox.shapes import Target, check_images


class NotApplicableError(CaptumBlackboxError):
    """A method or a metric makes no sense for this model; the table says so, nothing failed."""


@dataclass(frozen=True)
class Context:
    """Some images and everything that a metric may need to judge their maps.

    Attributes:
        box: The model as a black box, for whoever needs scores.
        model: The model itself, in evaluation mode; ``None`` if it can only be called.
        images: ``(N, C, H, W)``.
        targets: The class explained for each, ``(N,)``.
        masks: Where the truth lies, ``(N, H, W)``, bool; ``None`` if unknown.
        seed: For whatever is drawn.
    """

    box: BlackBox
    model: nn.Module | None
    images: Tensor
    targets: Tensor
    masks: Tensor | None
    seed: int

    def rows(self, rows: Sequence[int]) -> "Context":
        """Return the same for some of the images."""
        index = torch.as_tensor(rows, device=self.images.device)
        return replace(
            self,
            images=self.images[index],
            targets=self.targets[index],
            masks=None if self.masks is None else self.masks[index],
        )


def content_seeds(images: Tensor, seed: int) -> list[int]:
    """Return a seed for each image that depends on its content and on nothing beside it.

    Example:
        >>> images = torch.rand(3, 1, 2, 2)
        >>> content_seeds(images[1:], 5) == content_seeds(images, 5)[1:]
        True
    """
    return [content_number(image, str(seed)) for image in images]


def content_number(tensor: Tensor, salt: str = "") -> int:
    """Return a number of 62 bits that tells the content of a tensor, shape and dtype included."""
    digest = hashlib.sha256(f"{salt} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
    digest.update(tensor_bytes(tensor))
    return int.from_bytes(digest.digest()[:8], "big") >> 2


def checked_masks(masks: Tensor | None, images: Tensor) -> Tensor | None:
    """Return masks as bool ``(N, H, W)``.

    Raises:
        ShapeError: There is not one mask at full size for each image.
        InputError: All masks are empty.
    """
    if masks is None:
        return None
    expected = (len(images), *images.shape[2:])
    given = masks[:, 0] if masks.dim() == 4 and masks.shape[1] == 1 else masks
    if tuple(given.shape) != expected:
        raise ShapeError(
            f"expected masks {expected} or {(expected[0], 1, *expected[1:])}, one at the size of "
            f"each image, got shape {tuple(masks.shape)}"
        )
    inside = (given != 0).to(images.device)
    if not bool(inside.any()):
        raise InputError(
            "every mask is empty, so no map can point at anything; give masks that are not 0 where "
            "the truth lies, or leave out masks and the metrics that need them"
        )
    return inside


def checked_names(names: Sequence[str] | None, images: int) -> tuple[str, ...]:
    """Return the names of the images, none if they are only numbered.

    Raises:
        InputError: There is not one text for each image.

    Example:
        >>> checked_names(["cat.png", "dog.png"], images=2), checked_names(None, images=2)
        (('cat.png', 'dog.png'), ())
    """
    if names is None:
        return ()
    found = (names,) if isinstance(names, str) else tuple(names)
    other = [type(each).__name__ for each in found if not isinstance(each, str)]
    if isinstance(names, str) or other or len(found) != images:
        got = names if isinstance(names, str) else f"{len(found)} of {other[0] if other else 'str'}"
        raise InputError(f"names is a list of {images} texts, one for each image, got {got!r}")
    return found


def checked_images(inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the images of a call, detached.

    Raises:
        ShapeError: They are no images, or there is none.
    """
    if isinstance(inputs, tuple) and len(inputs) == 1:
        inputs = inputs[0]
    check_images(inputs)
    images: Tensor = inputs.detach()  # type: ignore[union-attr]
    return images


def explained_classes(
    box: BlackBox, images: Tensor, target: Target, batch_size: int
) -> tuple[Tensor, dict[int, str]]:
    """Return the class explained for each image, and image → error where the model has no answer.

    Args:
        box: Whom to ask.
        images: ``(N, C, H, W)``.
        target: In any of Captum's forms; ``None`` for the prediction on each image, which costs
            ``N`` queries. Otherwise at most a few images are asked for the number of classes.
        batch_size: Images asked at a time.

    Raises:
        InputError: There is one class only, whose probability is always 1.
        TargetError: ``target`` does not fit.
        BlackBoxError: The model answers for no image at all.
    """
    errors: dict[int, str] = {}
    if target is None:
        targets = _predictions(box, images, batch_size, errors)
    else:
        for row in range(len(images)):
            if box.num_classes is not None or _asked(box, images, [row], errors) is not None:
                break
        errors = {} if box.num_classes is not None else errors
        targets = torch.zeros(len(images), dtype=torch.long, device=images.device)
    if len(errors) == len(images):
        raise BlackBoxError(f"the model answers for no image: {errors[0]}")
    classes = box.num_classes
    if classes is None or classes < 2:
        raise InputError(
            "the model tells one class only, so its probability is always 1 and no map can change "
            "it; give a model with two outputs or more"
        )
    if target is not None:
        targets = class_targets(target, len(images), classes, images.device)
    return targets, errors


def _predictions(box: BlackBox, images: Tensor, batch_size: int, errors: dict[int, str]) -> Tensor:
    found = torch.zeros(len(images), dtype=torch.long, device=images.device)
    for first in range(0, len(images), batch_size):
        rows = list(range(first, min(first + batch_size, len(images))))
        scores = _asked(box, images, rows, {})
        if scores is not None:
            found[rows] = scores.argmax(1)
            continue
        for row in rows:
            scores = _asked(box, images, [row], errors)
            if scores is not None:
                found[row] = scores.argmax(1)
    return found


def _asked(box: BlackBox, images: Tensor, rows: list[int], errors: dict[int, str]) -> Tensor | None:
    try:
        return box(images[rows])
    except QueryBudgetError:
        raise
    except Exception as error:  # whatever a model raises is reported
        errors.update(dict.fromkeys(rows, " ".join(str(error).split())))
        return None
