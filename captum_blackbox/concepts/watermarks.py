"""Small marks that are laid over a picture: two texts on plates, of which one may matter.

A plate lets some of the picture through. Its letters are light and the plate is dark, or the other
way round, so a mark can be read on any background.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Picture: TypeAlias = Float[Tensor, "3 height width"]
Region: TypeAlias = Bool[Tensor, "height width"]


class Mark(NamedTuple):
    """A text on a plate.

    Attributes:
        letters: Where the letters are, shape (7, 13).
        ink: Brightness of the letters, in [0, 1].
        paper: Brightness of the plate.
    """

    letters: NDArray[np.bool_]
    ink: float
    paper: float


class Place(NamedTuple):
    """Where the upper left corner of a plate is: row and column."""

    row: int
    column: int


_LIGHT, _DARK = 0.97, 0.05
_INK_OPACITY, _PAPER_OPACITY = 1.0, 0.8
_CLEARANCE = 2  # pixels between a plate and what it must not cover


def _letters(*rows: str) -> NDArray[np.bool_]:
    return np.pad(np.array([[cell == "#" for cell in row] for row in rows]), 1)


WATERMARK = Mark(
    _letters(
        "##. ### #.#",
        "#.# .#. #.#",
        "##. .#. .#.",
        "#.. .#. #.#",
        "#.. ### #.#",
    ),
    ink=_LIGHT,
    paper=_DARK,
)
"""Reads PIX, light on dark."""

DECOY = Mark(
    _letters(
        "#.. ### ###",
        "#.. #.# .#.",
        "#.. #.# .#.",
        "#.. #.# .#.",
        "### ### .#.",
    ),
    ink=_DARK,
    paper=_LIGHT,
)
"""Reads LOT, dark on light."""

_PLATE = WATERMARK.letters.shape  # both marks are equally large


def stamped(picture: Picture, mark: Mark, place: Place, strength: float) -> Picture:
    """Return a picture with a mark laid over it.

    Args:
        picture: Shape (3, H, W) in [0, 1].
        mark: ``WATERMARK`` or ``DECOY``.
        place: The plate's upper left corner; the plate has to fit.
        strength: Share of the full opacity, in [0, 1].

    Returns:
        The new picture; it differs from the old one on the plate only.

    Example:
        >>> grey = torch.full((3, 16, 16), 0.5)
        >>> marked = stamped(grey, WATERMARK, Place(2, 1), 1.0)
        >>> bool(((marked != grey).all(0) == covered(Place(2, 1), 16)).all())
        True
    """
    letters = torch.from_numpy(mark.letters)
    paint = torch.where(letters, mark.ink, mark.paper)
    opacity = strength * torch.where(letters, _INK_OPACITY, _PAPER_OPACITY)
    result = picture.clone()
    height, width = _PLATE
    under = result[:, place.row : place.row + height, place.column : place.column + width]
    under += opacity * (paint - under)
    return result


def covered(place: Place, size: int) -> Region:
    """Return which pixels of a picture a plate covers.

    Args:
        place: The plate's upper left corner.
        size: Height and width of the picture.

    Returns:
        Shape (size, size).

    Example:
        >>> covered(Place(0, 0), 16).sum().item()
        91
    """
    region = torch.zeros(size, size, dtype=torch.bool)
    height, width = _PLATE
    region[place.row : place.row + height, place.column : place.column + width] = True
    return region


def free_places(rng: Generator, taken: Region, count: int) -> list[Place] | None:
    """Draw places for plates that keep clear of what is taken and of each other.

    Args:
        rng: Source of randomness.
        taken: What must not be covered, shape (size, size).
        count: How many places.

    Returns:
        The places, each drawn uniformly from those that are left, or ``None`` if one finds no room.

    Example:
        >>> empty = torch.zeros(64, 64, dtype=torch.bool)
        >>> len(free_places(np.random.default_rng(0), empty, 3))
        3
        >>> free_places(np.random.default_rng(0), ~empty, 1) is None
        True
    """
    places: list[Place] = []
    for _ in range(count):
        near = _grown(taken)
        room = (F.max_pool2d(near[None].float(), _PLATE, stride=1)[0] == 0).nonzero()
        if len(room) == 0:
            return None
        row, column = room[int(rng.integers(len(room)))].tolist()
        places.append(Place(row, column))
        taken = taken | covered(places[-1], len(taken))
    return places


def _grown(region: Region) -> Region:
    window = 2 * _CLEARANCE + 1
    return F.max_pool2d(region[None].float(), window, stride=1, padding=_CLEARANCE)[0] > 0
