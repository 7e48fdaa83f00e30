"""Images and what their pixels show: what every collection of concepts can be asked."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_blackbox.errors import InputError


class Label(NamedTuple):
    """A concept.

    Attributes:
        name: As people call it.
        category: The one it counts for, such as ``"object"``.
    """

    name: str
    category: str


class Annotation(NamedTuple):
    """What is labelled in one image, in one category.

    Attributes:
        pixels: ``(K, h, w)`` int32: label numbers, 0 where there is none. A pixel may carry up to
            ``K`` labels; carrying one twice changes nothing.
        whole: Label numbers that hold for the image as a whole, and so for each of its pixels.
    """

    pixels: Tensor
    whole: tuple[int, ...] = ()


class Concepts(ABC, Dataset[tuple[Tensor, dict[str, Annotation]]]):
    """Images whose pixels carry labels; number ``n`` stands for ``labels[n - 1]``, 0 for none.

    A subclass reads images and annotations apart, so that neither waits for the other, and sets
    the attributes through this class's ``__init__``.

    Args:
        categories: Names, in the order in which ties are decided: the later one wins.
        labels: Name and category of each concept.
        image_size: Height and width of every image.
        mask_size: Height and width of every annotation.

    Raises:
        InputError: There is no label, a label's category is not among the categories, a category
            has no label, or a size is no size.
    """

    def __init__(
        self,
        categories: Sequence[str],
        labels: Sequence[Label],
        image_size: tuple[int, int],
        mask_size: tuple[int, int],
    ) -> None:
        used = {label.category for label in labels}
        empty = [category for category in categories if category not in used]
        unknown = sorted(used - set(categories))
        if not labels or empty or unknown or len(set(categories)) != len(categories):
            raise InputError(
                f"every category needs a label, and every label one of the categories "
                f"{list(categories)}; without a label: {empty}, not among them: {unknown}"
            )
        if min(*image_size, *mask_size) < 1:
            raise InputError(f"sizes are at least 1, got {image_size} and {mask_size}")
        self.categories = tuple(categories)
        self.labels = tuple(labels)
        self.image_size = image_size
        self.mask_size = mask_size

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """Return an image, ``(3, H, W)`` float32 in [0, 1].

        Raises:
            DataError: Its file is missing or broken; it is named.
        """

    @abstractmethod
    def annotations(self, index: int) -> dict[str, Annotation]:
        """Return category → what is labelled in it; categories without a label may be absent.

        Raises:
            DataError: A file is missing or broken, or has another size or an unknown label.
        """

    @abstractmethod
    def digest(self) -> str:
        """Return a hash of which images and annotations these are, for what is kept of them."""

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Annotation]]:
        """Return an image and its annotations.

        Raises:
            IndexError: There is no such image.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} images, got index {index}")
        return self.image(index), self.annotations(index)

    def label_categories(self) -> Tensor:
        """Return the position of each label's category, ``(labels,)`` int64."""
        place = {category: position for position, category in enumerate(self.categories)}
        return torch.tensor([place[label.category] for label in self.labels])
