"""Concepts whose annotations belong to other images: what comes about by chance."""

import torch
from torch import Tensor

from captum_blackbox.concepts.concepts import Annotation, Concepts
from captum_blackbox.concepts.image_files import digest_of


class ShuffledConcepts(Concepts):
    """Give every image the annotations of another one.

    A dissection with these tells which IoU a unit reaches by chance, through the sizes of the
    masks and where in an image they tend to lie. The images follow each other in one random cycle,
    so that none keeps its own annotations, as long as there are at least two.

    Args:
        concepts: Any; they are left as they are.
        seed: Of the cycle.

    Example:
        >>> from captum_blackbox.concepts import SceneConcepts
        >>> scenes = SceneConcepts(2)
        >>> shuffled = ShuffledConcepts(scenes)
        >>> torch.equal(shuffled.image(0), scenes.image(0))
        True
        >>> annotations = shuffled.annotations(0)["part"].pixels
        >>> torch.equal(annotations, scenes.annotations(1)["part"].pixels)
        True
    """

    def __init__(self, concepts: Concepts, seed: int = 0) -> None:
        self._concepts = concepts
        self._seed = seed
        generator = torch.Generator().manual_seed(seed)
        cycle = torch.randperm(len(concepts), generator=generator)
        source = torch.empty_like(cycle)
        source[cycle] = cycle.roll(-1)
        self._source = source.tolist()
        super().__init__(
            concepts.categories, concepts.labels, concepts.image_size, concepts.mask_size
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._concepts)

    def image(self, index: int) -> Tensor:
        """Return an image, ``(3, H, W)`` float32 in [0, 1]."""
        return self._concepts.image(index)

    def annotations(self, index: int) -> dict[str, Annotation]:
        """Return what is labelled in the image that follows in the cycle."""
        return self._concepts.annotations(self._source[index])

    def digest(self) -> str:
        """Return a hash of the concepts and the seed."""
        return digest_of("shuffled", self._concepts.digest(), self._seed)
