"""How a scene is painted: textures, tints, places, clutter and light.

Everything random comes from the generator that is passed in, and no draw looks at the class.
"""

from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from skimage import data
from skimage.color import rgb2gray
from skimage.draw import ellipse
from skimage.transform import resize
from skimage.util import img_as_float32

from captum_blackbox.concepts.scene_objects import GRID, OBJECT_NAMES, PART_NAMES, stencil

Floats: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]

FINE = 3
"""Cells per pixel side: edges become smooth, and masks know how much of a pixel is covered."""

SAMPLES = tuple((row, column) for row in range(FINE) for column in range(FINE))
"""The offsets of a pixel's cells."""

TEXTURE_NAMES = ("brick", "grass", "gravel", "text", "wood")
"""Backgrounds: the photographs that scikit-image ships, so none is downloaded."""

SCENE_COLORS: dict[str, tuple[float, float, float]] = {
    "black": (0.07, 0.07, 0.08),
    "blue": (0.16, 0.34, 0.86),
    "brown": (0.45, 0.27, 0.12),
    "green": (0.15, 0.60, 0.22),
    "grey": (0.52, 0.52, 0.53),
    "orange": (0.96, 0.53, 0.08),
    "pink": (0.97, 0.58, 0.75),
    "purple": (0.50, 0.18, 0.66),
    "red": (0.84, 0.11, 0.12),
    "white": (0.95, 0.95, 0.94),
    "yellow": (0.96, 0.87, 0.16),
}
"""The eleven basic colour names and the red, green and blue, in [0, 1], each is painted with."""

CATEGORIES = ("object", "part", "color", "texture")
"""The order of the rows of ``Canvas.names``."""

_COLOR_VALUES = np.array(list(SCENE_COLORS.values()), dtype=np.float32)
_INK_SHADE = 0.45  # of an outline: too dark for its colour's name, so it carries none
_MIN_COLOR_DISTANCE = 0.45  # between the two colours of an object: its parts stand out


class Canvas(NamedTuple):
    """A painted scene, three times finer than its picture.

    Attributes:
        cells: Paint number per cell, shape (3 size, 3 size); 0 shows the background.
        paint: Red, green, blue and cover in [0, 1] per paint number, shape (paints, 4).
        names: Mask value per category and paint number, shape (4, paints).
    """

    cells: Bytes
    paint: Floats
    names: Bytes


@lru_cache
def _texture(name: str, side: int) -> Floats:
    """Return a texture as contrast around 0, its shorter side resized to ``side`` pixels."""
    if name == "wood":
        picture = rgb2gray(data.coffee())[20:380, 482:600]  # the table beside the cup
    else:
        loaders = {"brick": data.brick, "grass": data.grass, "gravel": data.gravel}
        picture = img_as_float32(loaders.get(name, data.page)())
    scale = side / min(picture.shape)
    shape = [max(side, round(length * scale)) for length in picture.shape]
    resized = resize(picture, shape, anti_aliasing=True)
    contrast = (resized - resized.mean()) / resized.std()
    return np.asarray(contrast.clip(-2.5, 2.5), dtype=np.float32)


def _background(rng: Generator, paints: Floats, size: int) -> tuple[int, Floats]:
    """Return which texture was drawn, and its tinted random crop, shape (size, size, 3)."""
    choice = int(rng.integers(len(TEXTURE_NAMES)))
    name = TEXTURE_NAMES[choice]
    zoom = 1.6 if name == "wood" else rng.choice([2.0, 3.0, 4.0])
    texture = _texture(name, round(zoom * size))
    top, left = (rng.random(2) * (np.array(texture.shape) - size + 1)).astype(int)
    crop = texture[top : top + size, left : left + size]
    crop = np.rot90(crop, int(rng.integers(4)))
    tints = rng.uniform(0.12, 0.92, (6, 3)).astype(np.float32)
    tints = 0.45 * tints + 0.55 * tints.mean(axis=1, keepdims=True)
    distance = np.linalg.norm(tints[:, None] - paints[None], axis=2).min(axis=1)
    tint = tints[distance.argmax()]  # the object must be visible whatever colours it has
    return choice, tint * (1 + rng.uniform(0.12, 0.22) * crop[..., None]).astype(np.float32)


def _two_colors(rng: Generator) -> tuple[list[int], Floats]:
    """Return two well distinguishable colours: positions in the names, and painted values."""
    first = int(rng.integers(len(_COLOR_VALUES)))
    distance = np.linalg.norm(_COLOR_VALUES - _COLOR_VALUES[first], axis=1)
    second = int(rng.choice(np.flatnonzero(distance > _MIN_COLOR_DISTANCE)))
    chosen = [first, second]
    return chosen, _jittered(rng, chosen)


def _jittered(rng: Generator, colors: list[int]) -> Floats:
    values = _COLOR_VALUES[colors] + rng.uniform(-0.03, 0.03, (len(colors), 3))
    return np.asarray(values.clip(0, 1), dtype=np.float32)


def _placed(rng: Generator, cells: Bytes, fine: int) -> Bytes:
    """Return a stencil's cells at a random place, scale, tilt and flip, shape (fine, fine)."""
    tilt = np.deg2rad(rng.uniform(-15, 15))
    stretch = rng.uniform(0.55, 0.80) * rng.uniform(0.92, 1.08, 2) * (rng.choice([-1, 1]), 1)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    matrix = turn * stretch
    reach = np.minimum(0.5 * np.abs(matrix).sum(axis=1), 0.5)
    center = reach + rng.random(2) * (1 - 2 * reach)
    inverse = (np.linalg.inv(matrix) * GRID).astype(np.float32)
    at = ((np.arange(fine) + 0.5) / fine).astype(np.float32)
    x, y = at[None, :] - np.float32(center[0]), at[:, None] - np.float32(center[1])
    column, row = ((i * x + j * y + GRID / 2).astype(np.int32) for i, j in inverse)
    # the stencil's border is empty, so a cell beyond it can take the nearest border cell's value
    placed: Bytes = cells[row.clip(0, GRID - 1), column.clip(0, GRID - 1)]
    return placed


def _add_clutter(rng: Generator, cells: Bytes, first_paint: int) -> list[int]:
    """Paint a few blobs where the object is not; return the colour drawn for each paint number."""
    fine = len(cells)
    colors: list[int] = rng.integers(len(_COLOR_VALUES), size=rng.integers(3, 7)).tolist()
    for paint, _ in enumerate(colors, start=first_paint):
        y, x = rng.random(2) * fine
        radii = rng.uniform(0.025, 0.055, 2) * fine
        turn = rng.uniform(0, np.pi)
        reach = radii.max() + FINE
        top, left = max(0, int(y - reach)), max(0, int(x - reach))
        if not cells[top : int(y + reach) + 1, left : int(x + reach) + 1].any():
            cells[ellipse(y, x, radii[0], radii[1], cells.shape, turn)] = paint
    return colors


def _object_paints(label: int, colors: list[int], values: Floats) -> tuple[Floats, Bytes]:
    """Return ``Canvas.paint`` and ``Canvas.names`` for the cell values of an object's stencil."""
    drawn = stencil(OBJECT_NAMES[label])
    which = list(drawn.paints)
    inked = np.array(drawn.inked)
    paint = np.ones((len(which), 4), dtype=np.float32)
    paint[:, :3] = values[which] * np.where(inked, _INK_SHADE, 1)[:, None]
    names = np.zeros((len(CATEGORIES), len(which)), dtype=np.uint8)
    names[0] = label + 1
    names[1] = [PART_NAMES.index(part) + 1 if part else 0 for part in drawn.parts]
    names[2] = np.where(inked, 0, np.array(colors)[which] + 1)
    paint[0], names[:, 0] = 0, 0  # cell value 0 shows the background
    return paint, names


def compose(rng: Generator, label: int, size: int) -> tuple[Canvas, Floats]:
    """Draw an object of a class with random looks, among clutter, on a random background.

    Args:
        rng: Source of everything that varies.
        label: Position of the object in ``OBJECT_NAMES``.
        size: Height and width of the picture in pixels.

    Returns:
        The canvas, and the background, shape (size, size, 3).

    Example:
        >>> canvas, background = compose(np.random.default_rng(0), label=2, size=64)
        >>> canvas.cells.shape, background.shape
        ((192, 192), (64, 64, 3))
    """
    colors, values = _two_colors(rng)
    paint, names = _object_paints(label, colors, values)
    texture, background = _background(rng, values, size)
    names[3, 0] = texture + 1
    cells = _placed(rng, stencil(OBJECT_NAMES[label]).cells, FINE * size)
    blobs = _add_clutter(rng, cells, len(paint))
    blob_paint = np.ones((len(blobs), 4), dtype=np.float32)
    blob_paint[:, :3] = _jittered(rng, blobs)
    blob_names = np.zeros((len(CATEGORIES), len(blobs)), dtype=np.uint8)
    blob_names[2] = np.array(blobs) + 1
    paint = np.concatenate([paint, blob_paint])
    return Canvas(cells, paint, np.concatenate([names, blob_names], axis=1)), background


def mix(canvas: Canvas, background: Floats) -> Floats:
    """Lay a canvas over its background; every pixel is the mean of its cells.

    Args:
        canvas: What ``compose`` returned.
        background: Shape (size, size, 3).

    Returns:
        The picture, shape (size, size, 3).

    Example:
        >>> mix(*compose(np.random.default_rng(0), label=2, size=64)).shape
        (64, 64, 3)
    """
    total = sum(canvas.paint.take(canvas.cells[i::FINE, j::FINE], axis=0) for i, j in SAMPLES)
    mean = np.asarray(total / np.float32(len(SAMPLES)))
    return np.asarray(mean[..., :3] + (1 - mean[..., 3:]) * background)


def name_pixels(canvas: Canvas) -> dict[str, Bytes]:
    """Name each pixel by the cell at its centre, where that fills most of the pixel.

    Args:
        canvas: What ``compose`` returned.

    Returns:
        For each category the mask values, shape (size, size); 0 where there is no name.

    Example:
        >>> canvas, _ = compose(np.random.default_rng(0), label=2, size=64)
        >>> np.unique(name_pixels(canvas)["object"]).tolist()
        [0, 3]
    """
    masks = {}
    for category, names in zip(CATEGORIES, canvas.names, strict=True):
        cells = names.take(canvas.cells)
        center = cells[FINE // 2 :: FINE, FINE // 2 :: FINE]
        same = sum((cells[i::FINE, j::FINE] == center).view(np.uint8) for i, j in SAMPLES)
        masks[category] = np.where(same > len(SAMPLES) // 2, center, np.uint8(0))
    return masks


def lit(rng: Generator, picture: Floats) -> Floats:
    """Apply a random brightness, a gentle slope of light and pixel noise.

    Args:
        rng: Source of everything that varies.
        picture: Shape (size, size, 3), red, green and blue in [0, 1].

    Returns:
        The lit picture, same shape and range.

    Example:
        >>> grey = np.full((16, 16, 3), 0.5, dtype=np.float32)
        >>> lit(np.random.default_rng(0), grey).dtype
        dtype('float32')
    """
    slope = rng.uniform(-0.08, 0.08, 2)
    at = np.linspace(-1, 1, len(picture))
    light = rng.uniform(0.9, 1.06) + slope[0] * at[:, None] + slope[1] * at[None, :]
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    bright = picture * light[..., None].astype(np.float32) + np.float32(0.015) * noise
    return np.asarray(bright.clip(0, 1), dtype=np.float32)
