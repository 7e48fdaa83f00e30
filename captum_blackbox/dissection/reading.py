"""Images and labels of concepts, batch by batch; what is broken is left out or ends the run."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from captum_blackbox.concepts.concepts import Annotation, Concepts
from captum_blackbox.errors import DataError

OnError: TypeAlias = Literal["raise", "skip"]
"""What a broken image or annotation does: end the run, or stay out of it."""


class ImageBatch(NamedTuple):
    """Images that can be read.

    Attributes:
        numbers: Of the images, ``(N,)`` int64.
        images: ``(N, 3, H, W)`` in [0, 1].
        broken: Number of an image → why it is left out.
    """

    numbers: Tensor
    images: Tensor
    broken: dict[int, str]


class LabelBatch(NamedTuple):
    """Labels of images; where they cannot be read there are none.

    Attributes:
        pixels: Label numbers, ``(N, K, h * w)`` int32.
        whole: ``(N, labels)`` bool.
        broken: Number of an image → why it has none.
    """

    pixels: Tensor
    whole: Tensor
    broken: dict[int, str]


def image_batches(
    concepts: Concepts, batches: Sequence[Sequence[int]], on_error: OnError, workers: int
) -> Iterator[ImageBatch]:
    """Yield the images of batches of numbers.

    Raises:
        DataError: One is broken, and ``on_error`` is ``"raise"``.
    """
    return _read(concepts, "image", batches, on_error, workers, _collated_images)


def label_batches(
    concepts: Concepts, batches: Sequence[Sequence[int]], on_error: OnError, workers: int
) -> Iterator[LabelBatch]:
    """Yield the labels of batches of numbers.

    Raises:
        DataError: Some are broken, and ``on_error`` is ``"raise"``.
    """
    collate = partial(_collated_labels, concepts.mask_size, len(concepts.labels))
    return _read(concepts, "annotations", batches, on_error, workers, collate)


def _read(
    concepts: Concepts,
    what: str,
    batches: Sequence[Sequence[int]],
    on_error: OnError,
    workers: int,
    collate: Any,  # noqa: ANN401
) -> Iterator[Any]:
    loader = DataLoader(
        _Items(concepts, what),
        batch_sampler=[list(batch) for batch in batches],
        collate_fn=collate,
        num_workers=workers,
        generator=torch.Generator(),  # not the global one: reading draws nothing
    )
    for found in loader:
        if found.broken and on_error == "raise":
            # Here, since an error that leaves a worker process has a traceback for a message.
            raise DataError(next(iter(found.broken.values())))
        yield found


class _Items(Dataset[tuple[int, Any]]):
    """Number and image, or number and annotations; a message in place of what is broken."""

    def __init__(self, concepts: Concepts, what: str) -> None:
        self._concepts, self._what = concepts, what

    def __getitem__(self, number: int) -> tuple[int, Any]:
        try:
            found = getattr(self._concepts, self._what)(number)
            self._check(number, found)
        except DataError as error:
            return number, str(error)
        return number, found

    def _check(self, number: int, found: Any) -> None:  # noqa: ANN401
        concepts = self._concepts
        if self._what == "image":
            expected: tuple[int, ...] = (3, *concepts.image_size)
            if tuple(found.shape) != expected:
                raise DataError(
                    f"image {number} has shape {tuple(found.shape)}, expected {expected}"
                )
            return
        for category, annotation in found.items():
            _check_annotation(f"image {number}, {category!r}", annotation, concepts)


def _check_annotation(name: str, annotation: Annotation, concepts: Concepts) -> None:
    pixels, size, labels = annotation.pixels, concepts.mask_size, len(concepts.labels)
    if pixels.dim() != 3 or tuple(pixels.shape[1:]) != size:
        raise DataError(
            f"{name}: the masks have shape {tuple(pixels.shape)}, expected (K, *{size})"
        )
    numbers = [*annotation.whole]
    if pixels.numel():
        numbers += [int(end) for end in torch.aminmax(pixels)]
    outside = [number for number in numbers if not 0 <= number <= labels]
    if outside:
        raise DataError(
            f"{name}: label {outside[0]} is not in the table of {labels} labels (1 ... {labels}, "
            "0 for none)"
        )


def _collated_images(items: list[tuple[int, Any]]) -> ImageBatch:
    found = [(number, item) for number, item in items if isinstance(item, Tensor)]
    return ImageBatch(
        torch.tensor([number for number, _ in found], dtype=torch.int64),
        torch.stack([image for _, image in found]) if found else torch.empty(0),
        {number: item for number, item in items if isinstance(item, str)},
    )


def _collated_labels(
    size: tuple[int, int], labels: int, items: list[tuple[int, Any]]
) -> LabelBatch:
    annotations = [item.values() if isinstance(item, dict) else () for _, item in items]
    layers = [sum(len(each.pixels) for each in several) for several in annotations]
    pixels = torch.zeros(len(items), max(layers), size[0] * size[1], dtype=torch.int32)
    whole = torch.zeros(len(items), labels, dtype=torch.bool)
    for position, several in enumerate(annotations):
        first = 0
        for each in several:
            pixels[position, first : first + len(each.pixels)] = each.pixels.flatten(1)
            first += len(each.pixels)
            for number in each.whole:
                if number:
                    whole[position, number - 1] = True
    return LabelBatch(
        pixels, whole, {number: item for number, item in items if isinstance(item, str)}
    )
