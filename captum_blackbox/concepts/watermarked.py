"""Scenes with a planted shortcut: a watermark that goes with one class, and one that means nothing.

Photographs of horses in a well-known data set carried a photographer's mark, and classifiers
learned the mark. Here the same is done on purpose, so that it is known which pixels a network that
has learned the shortcut looks at.

References:
    Lapuschkin et al., "Unmasking Clever Hans predictors and assessing what machines really learn",
    Nature Communications 2019.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from captum_blackbox.concepts.scenes import SCENE_CLASSES, Scene, render_scene
from captum_blackbox.concepts.watermarks import (
    DECOY,
    WATERMARK,
    Place,
    covered,
    free_places,
    stamped,
)
from captum_blackbox.errors import InputError, check_choice
from captum_blackbox.shapes import Images, Labels

Region: TypeAlias = Bool[Tensor, "size size"]
Regions: TypeAlias = Bool[Tensor, "batch size size"]
Shown: TypeAlias = Literal["drawn", "always", "never"]

WATERMARK_REGIONS = ("object", "watermark", "distractor")
"""What the masks of a watermarked scene tell apart; they share no pixel."""

_SIZE = 64
_DECOYS = 0.5  # share of scenes with the mark that means nothing
_NEXT = 2**32  # to another scene, where a scene has no room for marks
_WEAKEST = 0.75  # opacity of the faintest mark, of the strongest's


@dataclass(frozen=True)
class WatermarkedScene:
    """One scene with its marks.

    Attributes:
        image: Shape (3, 64, 64), float32 in [0, 1].
        label: Position of the object's class in ``SCENE_CLASSES``.
        watermarked: Whether the watermark is shown.
        masks: A mask for each of ``WATERMARK_REGIONS``, shape (64, 64), bool. The distractor is
            everything that was put there and tells nothing: the other mark, and the blobs.
    """

    image: Float[Tensor, "3 size size"]
    label: int
    watermarked: bool
    masks: dict[str, Region]


class WatermarkedScenes(Dataset[tuple[Tensor, int]]):
    """Scenes of which one class carries a watermark, mostly or always, and the others seldom.

    The watermark is a text on a small plate, half transparent, at a random place where it does not
    cover the object. Half of the scenes, whatever their class, carry a decoy: a plate of the same
    size with another text. Whether and where the watermark is shown changes nothing else, so that
    pairs of scenes differ in the watermark alone.

    Each scene is rendered when it is first asked for and then kept.

    Args:
        count: How many scenes, at least 1.
        seed: Which collection, at least 0. Scene ``i`` is the same however many there are.
        rate: Share of the watermarked class that carries the watermark, in [0, 1].
        others: Share of the other classes that carries it. With ``others=rate`` the watermark tells
            nothing.
        watermarked: Name of the class, one of ``SCENE_CLASSES``.

    Raises:
        InputError: An argument is out of range or there is no such class.

    Example:
        >>> scenes = WatermarkedScenes(8, seed=2, rate=1.0)
        >>> bool((scenes.watermarked == (scenes.labels == scenes.watermarked_class)).all())
        True
        >>> changed = (scenes.marked().images != scenes.unmarked().images).any(1)
        >>> bool((changed & ~scenes.marked().masks("watermark")).any())
        False
    """

    def __init__(
        self,
        count: int,
        seed: int = 0,
        *,
        rate: float = 0.95,
        others: float = 0.0,
        watermarked: str = "key",
    ) -> None:
        for name, value, least in (("count", count, 1), ("seed", seed, 0)):
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        for name, share in (("rate", rate), ("others", others)):
            if not 0 <= share <= 1:
                raise InputError(f"{name} must be from 0 to 1, got {share}")
        check_choice("watermarked", watermarked, SCENE_CLASSES)
        self.count = count
        self.seed = seed
        self.rate = rate
        self.others = others
        self.watermarked_class = SCENE_CLASSES.index(watermarked)
        self._shown: Shown = "drawn"
        self._elsewhere = False
        self._bare: dict[int, _Bare] = {}

    def marked(self) -> "WatermarkedScenes":
        """Return the same scenes, with the watermark on every one."""
        return self._variant(shown="always")

    def unmarked(self) -> "WatermarkedScenes":
        """Return the same scenes, without the watermark; the decoys stay."""
        return self._variant(shown="never")

    def moved(self) -> "WatermarkedScenes":
        """Return the same scenes, with the watermark at another place, where they carry it.

        The two places share no pixel. Moved twice, it is back.
        """
        return self._variant(elsewhere=not self._elsewhere)

    def __len__(self) -> int:
        """Return the number of scenes."""
        return self.count

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "3 size size"], int]:
        """Return the image, shape (3, 64, 64) in [0, 1], and the label of one scene.

        Raises:
            IndexError: If there is no such scene; negative positions count from the end.
        """
        scene = self.scene(index)
        return scene.image, scene.label

    def scene(self, index: int) -> WatermarkedScene:
        """Return one scene with its masks.

        Args:
            index: Position; negative positions count from the end.

        Raises:
            IndexError: If there is no such scene.

        Example:
            >>> sorted(WatermarkedScenes(2).scene(1).masks)
            ['distractor', 'object', 'watermark']
        """
        if not -self.count <= index < self.count:
            raise IndexError(f"there are {self.count} scenes, got index {index}")
        index %= self.count
        if index not in self._bare:
            self._bare[index] = _prepare(self.seed, index)
        return self._finished(self._bare[index])

    @property
    def images(self) -> Images:
        """All pictures, shape (count, 3, 64, 64), float32 in [0, 1]."""
        return torch.stack([self.scene(index).image for index in range(self.count)])

    @property
    def labels(self) -> Labels:
        """All labels, shape (count,), int64."""
        return torch.tensor([self.scene(index).label for index in range(self.count)])

    @property
    def watermarked(self) -> Bool[Tensor, " batch"]:
        """Which scenes show the watermark, shape (count,)."""
        return torch.tensor([self.scene(index).watermarked for index in range(self.count)])

    def masks(self, region: str) -> Regions:
        """Return the masks of one region.

        Args:
            region: One of ``WATERMARK_REGIONS``.

        Returns:
            Shape (count, 64, 64), bool; empty where a scene has nothing of it.

        Raises:
            InputError: If there is no such region.

        Example:
            >>> WatermarkedScenes(2).marked().masks("watermark").sum((1, 2))
            tensor([91, 91])
        """
        check_choice("region", region, WATERMARK_REGIONS)
        return torch.stack([self.scene(index).masks[region] for index in range(self.count)])

    def _variant(
        self, *, shown: Shown | None = None, elsewhere: bool | None = None
    ) -> "WatermarkedScenes":
        same = WatermarkedScenes(
            self.count,
            self.seed,
            rate=self.rate,
            others=self.others,
            watermarked=SCENE_CLASSES[self.watermarked_class],
        )
        same._shown = self._shown if shown is None else shown
        same._elsewhere = self._elsewhere if elsewhere is None else elsewhere
        same._bare = self._bare  # rendered once for all variants
        return same

    def _finished(self, bare: "_Bare") -> WatermarkedScene:
        share = self.rate if bare.label == self.watermarked_class else self.others
        shown = {"drawn": bare.luck < share, "always": True, "never": False}[self._shown]
        place = bare.places[int(self._elsewhere)]
        # What is kept is handed out as copies.
        image, watermark = bare.image.clone(), torch.zeros(_SIZE, _SIZE, dtype=torch.bool)
        if shown:
            image = stamped(image, WATERMARK, place, bare.strength)
            watermark = covered(place, _SIZE)
        masks = {
            "object": bare.objects.clone(),
            "watermark": watermark,
            "distractor": bare.distractor & ~watermark,
        }
        return WatermarkedScene(image, bare.label, shown, masks)


@dataclass(frozen=True)
class _Bare:
    """A scene without its watermark, and whether, how and where that would be shown."""

    image: Float[Tensor, "3 size size"]
    label: int
    objects: Region
    distractor: Region
    luck: float
    strength: float
    places: tuple[Place, Place]


def _prepare(seed: int, index: int) -> _Bare:
    # Two numbers draw the scene, three the marks: neither knows of the other.
    rng = np.random.default_rng((seed, index, 1))
    luck, decoy_luck = rng.random(2).tolist()
    strength, decoy_strength = rng.uniform(_WEAKEST, 1.0, 2).tolist()
    scene, places = _with_room(rng, seed, index)
    image, objects = scene.image, scene.masks["object"] > 0
    distractor = (scene.masks["color"] > 0) & ~objects
    if decoy_luck < _DECOYS:
        image = stamped(image, DECOY, places[2], decoy_strength)
        distractor = distractor | covered(places[2], _SIZE)
    return _Bare(image, scene.label, objects, distractor, luck, strength, (places[0], places[1]))


def _with_room(rng: np.random.Generator, seed: int, index: int) -> tuple[Scene, list[Place]]:
    """Return the first scene in which three marks find room, with their places."""
    while True:
        scene = render_scene(seed, index, _SIZE)
        places = free_places(rng, scene.masks["object"] > 0, 3)
        if places is not None:
            return scene, places
        index += _NEXT
