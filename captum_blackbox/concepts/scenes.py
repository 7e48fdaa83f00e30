"""Pictures whose every pixel is accounted for: which object, part, colour and texture it shows.

An explanation can only be checked where the true cause of a prediction is known. A scene shows one
object on a real texture, among a few coloured blobs. The object's class is the label; its colours,
place, size and tilt, the background and the blobs are all drawn independently of the class, so only
the object's shape tells the label.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor
from torch.utils.data import Dataset

from captum_blackbox.concepts.scene_objects import OBJECT_NAMES, PART_NAMES
from captum_blackbox.concepts.scene_painting import (
    CATEGORIES,
    SCENE_COLORS,
    TEXTURE_NAMES,
    compose,
    lit,
    mix,
    name_pixels,
)
from captum_blackbox.errors import InputError
from captum_blackbox.shapes import Images, Labels

Picture: TypeAlias = Float[Tensor, "3 size size"]
Mask: TypeAlias = Integer[Tensor, "size size"]
Masks: TypeAlias = Int64[Tensor, "batch size size"]

SCENE_CLASSES: tuple[str, ...] = OBJECT_NAMES
"""The object classes; a scene's label is a position in this tuple."""

SCENE_CONCEPTS: dict[str, tuple[str, ...]] = dict(
    zip(CATEGORIES, (SCENE_CLASSES, PART_NAMES, tuple(SCENE_COLORS), TEXTURE_NAMES), strict=True)
)
"""Names per category; value k of a mask means name k - 1, and 0 means unlabelled."""

_MIN_SIZE = 16


@dataclass(frozen=True)
class Scene:
    """One rendered scene.

    A pixel carries a name when its centre and most of its area show it. The thin outlines of an
    object belong to the object and to its part, but have no colour name. Of the background only the
    texture is named, and a blob has nothing but a colour.

    Attributes:
        image: Shape (3, size, size), float32 in [0, 1].
        label: Position of the object's class in ``SCENE_CLASSES``.
        masks: A mask for each category of ``SCENE_CONCEPTS``, shape (size, size), int64: 0 where
            the pixel is unlabelled, otherwise one more than the position of its name.
    """

    image: Picture
    label: int
    masks: dict[str, Mask]


def render_scene(seed: int, index: int, size: int = 64) -> Scene:
    """Render one scene; it depends on the three arguments and on nothing else.

    Args:
        seed: Which collection of scenes, at least 0.
        index: Which scene of the collection, at least 0.
        size: Height and width of the picture in pixels, at least 16. Except for the noise, the
            same scene is drawn at every size.

    Returns:
        The picture, its label and its masks.

    Raises:
        InputError: If ``seed`` or ``index`` is negative or ``size`` is below 16.

    Example:
        >>> scene = render_scene(seed=0, index=3)
        >>> scene.image.shape
        torch.Size([3, 64, 64])
        >>> scene.masks["object"].max().item() == scene.label + 1
        True
    """
    if index < 0:
        msg = f"index must be at least 0, got {index}"
        raise InputError(msg)
    _check(seed, size)
    rng = np.random.default_rng((seed, index))
    label = int(rng.integers(len(SCENE_CLASSES)))
    canvas, background = compose(rng, label, size)
    picture = lit(rng, mix(canvas, background))
    return Scene(
        image=torch.from_numpy(picture).permute(2, 0, 1).contiguous(),
        label=label,
        masks={name: torch.from_numpy(m).long() for name, m in name_pixels(canvas).items()},
    )


class Scenes(Dataset[tuple[Tensor, int]]):
    """A collection of scenes, each rendered when it is first asked for and then kept.

    Scene ``i`` is the same however many scenes the collection has. A scene of the default size
    takes about 64 KiB once rendered.

    Args:
        count: How many scenes, at least 1.
        seed: Which collection, at least 0. Collections with different seeds share no scene.
        size: Height and width of the pictures in pixels, at least 16.

    Raises:
        InputError: If an argument is too small.

    Example:
        >>> scenes = Scenes(8)
        >>> image, label = scenes[0]
        >>> SCENE_CLASSES[label]
        'key'
        >>> scenes.images.shape, scenes.labels.shape, scenes.masks("part").shape
        (torch.Size([8, 3, 64, 64]), torch.Size([8]), torch.Size([8, 64, 64]))
    """

    def __init__(self, count: int, seed: int = 0, size: int = 64) -> None:
        if count < 1:
            msg = f"count must be at least 1, got {count}"
            raise InputError(msg)
        _check(seed, size)
        self.count = count
        self.seed = seed
        self.size = size
        self._rendered: dict[int, Scene] = {}

    def __len__(self) -> int:
        """Return the number of scenes."""
        return self.count

    def __getitem__(self, index: int) -> tuple[Picture, int]:
        """Return the image, shape (3, size, size) in [0, 1], and the label of one scene.

        Raises:
            IndexError: If there is no such scene; negative positions count from the end.
        """
        scene = self._kept(index)
        return scene.image.clone(), scene.label

    def scene(self, index: int) -> Scene:
        """Return one scene with its masks.

        Args:
            index: Position; negative positions count from the end.

        Returns:
            The scene.

        Raises:
            IndexError: If there is no such scene.

        Example:
            >>> sorted(Scenes(2).scene(1).masks)
            ['color', 'object', 'part', 'texture']
        """
        scene = self._kept(index)
        masks = {name: mask.long() for name, mask in scene.masks.items()}
        return replace(scene, image=scene.image.clone(), masks=masks)

    @property
    def images(self) -> Images:
        """All pictures, shape (count, 3, size, size), float32 in [0, 1]."""
        return torch.stack([self._kept(index).image for index in range(self.count)])

    @property
    def labels(self) -> Labels:
        """All labels, shape (count,), int64."""
        return torch.tensor([self._kept(index).label for index in range(self.count)])

    def masks(self, category: str) -> Masks:
        """Return the masks of one category.

        Args:
            category: A key of ``SCENE_CONCEPTS``.

        Returns:
            Shape (count, size, size), int64; 0 is unlabelled, k is name k - 1 of the category.

        Raises:
            InputError: If there is no such category.

        Example:
            >>> Scenes(2).masks("object").amax((1, 2)) - 1 == Scenes(2).labels
            tensor([True, True])
        """
        if category not in SCENE_CONCEPTS:
            msg = f"category must be one of {', '.join(SCENE_CONCEPTS)}; got {category!r}"
            raise InputError(msg)
        return torch.stack([self._kept(i).masks[category] for i in range(self.count)]).long()

    def _kept(self, index: int) -> Scene:
        if not -self.count <= index < self.count:
            msg = f"there are {self.count} scenes, got index {index}"
            raise IndexError(msg)
        index %= self.count
        if index not in self._rendered:
            scene = render_scene(self.seed, index, self.size)
            narrow = {name: mask.byte() for name, mask in scene.masks.items()}  # an eighth as big
            self._rendered[index] = replace(scene, masks=narrow)
        return self._rendered[index]


def _check(seed: int, size: int) -> None:
    if seed < 0:
        msg = f"seed must be at least 0, got {seed}"
        raise InputError(msg)
    if size < _MIN_SIZE:
        msg = f"size must be at least {_MIN_SIZE} pixels, got {size}"
        raise InputError(msg)
