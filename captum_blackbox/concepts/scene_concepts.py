"""The built-in scenes as concepts."""

from collections.abc import Collection

import torch
from torch import Tensor

from captum_blackbox.concepts.concepts import Annotation, Concepts, Label
from captum_blackbox.concepts.image_files import digest_of
from captum_blackbox.concepts.scenes import SCENE_CONCEPTS, Scenes
from captum_blackbox.errors import check_choice


class SceneConcepts(Concepts):
    """Ask the rendered scenes for what each pixel shows; masks are as large as the images.

    Args:
        count: How many scenes, at least 1.
        seed: Which collection, at least 0.
        size: Height and width of images and masks in pixels, at least 16.
        categories: Some of ``SCENE_CONCEPTS``: ``"object"``, ``"part"``, ``"color"`` and
            ``"texture"``; by default all, and always in this order.

    Raises:
        InputError: There is no such category, or a number is too small.

    Example:
        >>> concepts = SceneConcepts(2, categories=["object"])
        >>> image, annotations = concepts[0]
        >>> concepts.labels[annotations["object"].pixels.max() - 1].name
        'key'
    """

    def __init__(
        self,
        count: int,
        seed: int = 0,
        *,
        size: int = 64,
        categories: Collection[str] | None = None,
    ) -> None:
        for category in categories or ():
            check_choice("a category", category, list(SCENE_CONCEPTS))
        chosen = [name for name in SCENE_CONCEPTS if categories is None or name in categories]
        self._scenes = Scenes(count, seed, size)
        labels = [Label(name, kind) for kind in chosen for name in SCENE_CONCEPTS[kind]]
        self._before = {kind: _count(chosen[:place]) for place, kind in enumerate(chosen)}
        super().__init__(chosen, labels, (size, size), (size, size))

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self._scenes)

    def image(self, index: int) -> Tensor:
        """Return a scene, ``(3, size, size)`` float32 in [0, 1]; it is rendered once and kept."""
        return self._scenes[index][0]

    def annotations(self, index: int) -> dict[str, Annotation]:
        """Return the names of the scene's pixels, one layer for each category."""
        masks = self._scenes.scene(index).masks
        return {kind: _shifted(masks[kind], self._before[kind]) for kind in self.categories}

    def digest(self) -> str:
        """Return a hash of the first scene, the arguments and the names."""
        scenes = self._scenes
        first = [scenes.scene(0).masks[kind].tolist() for kind in self.categories]
        return digest_of("scenes", len(scenes), scenes.seed, scenes.size, self.labels, first)


def _count(categories: list[str]) -> int:
    return sum(len(SCENE_CONCEPTS[category]) for category in categories)


def _shifted(mask: Tensor, before: int) -> Annotation:
    numbers = torch.where(mask > 0, mask + before, 0).int()
    return Annotation(numbers[None])
