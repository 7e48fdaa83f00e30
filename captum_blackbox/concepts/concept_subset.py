"""Some of the images of a collection of concepts."""

import operator
from collections.abc import Iterable
from typing import SupportsIndex

import torch
from torch import Tensor

from captum_blackbox.concepts.concepts import Annotation, Concepts
from captum_blackbox.concepts.image_files import digest_of
from captum_blackbox.errors import InputError


class SubsetConcepts(Concepts):
    """Keep some of the images, with all labels.

    Args:
        concepts: Any; they are left as they are.
        indices: Which images, by number and in which order; one may be there twice.

    Raises:
        InputError: There is no index, or one is beyond the images or no number but true or false.

    Example:
        >>> from captum_blackbox.concepts import SceneConcepts
        >>> len(SubsetConcepts(SceneConcepts(8), range(0, 8, 2)))
        4
    """

    def __init__(self, concepts: Concepts, indices: Iterable[SupportsIndex]) -> None:
        self._concepts = concepts
        self._indices = [_index(index) for index in indices]
        beyond = [index for index in self._indices if not 0 <= index < len(concepts)]
        if beyond or not self._indices:
            raise InputError(
                f"expected at least one index within 0 … {len(concepts) - 1}, got {beyond[:8]}"
            )
        super().__init__(
            concepts.categories, concepts.labels, concepts.image_size, concepts.mask_size
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Annotation]]:
        """Return an image and its annotations.

        Raises:
            IndexError: There is no such image.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} images, got index {index}")
        return self._concepts[self._indices[index]]

    def image(self, index: int) -> Tensor:
        """Return an image, ``(3, H, W)`` float32 in [0, 1]."""
        return self._concepts.image(self._indices[index])

    def annotations(self, index: int) -> dict[str, Annotation]:
        """Return what is labelled in an image."""
        return self._concepts.annotations(self._indices[index])

    def digest(self) -> str:
        """Return a hash of the concepts and the indices."""
        return digest_of("subset", self._concepts.digest(), self._indices)


def _index(index: SupportsIndex) -> int:
    # True counts as 1, so that a mask would silently mean the first two images.
    if isinstance(index, bool) or (isinstance(index, Tensor) and index.dtype == torch.bool):
        raise InputError(
            "indices are the numbers of images, got true and false; give "
            "mask.nonzero().flatten() of a mask"
        )
    return operator.index(index)
