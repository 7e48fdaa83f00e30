"""The objects that scenes show, as cartoons made of named parts.

A cartoon is a list of shapes in a unit square (x to the right, y down), painted in order, so a
later shape covers an earlier one. A shape has one of two paints; which colours these are is drawn
per scene, so nothing about an object's colour is fixed here.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon
from skimage.morphology import disk, erosion

GRID = 256
"""Cells along one side of a stencil."""

_INK_CELLS = 5
_FIRST, _SECOND = 0, 1
_HOLE = ""


class Shape(NamedTuple):
    """One painted polygon of a cartoon.

    Attributes:
        part: Name of the part it belongs to; empty for a hole, which shows the background.
        paint: 0 for the first paint of the object, 1 for the second.
        points: Corners (x, y) in the unit square, shape (corners, 2).
    """

    part: str
    paint: int
    points: NDArray[np.float64]


class Stencil(NamedTuple):
    """A cartoon drawn on a grid, with what each of its cell values means.

    Attributes:
        cells: Shape (GRID, GRID) uint8; 0 where there is no object, otherwise a position in the
            three tuples below. A shape's inside and its outline have different values.
        parts: Part name per value.
        paints: Paint, 0 or 1, per value.
        inked: Whether the value is an outline, per value.
    """

    cells: NDArray[np.uint8]
    parts: tuple[str, ...]
    paints: tuple[int, ...]
    inked: tuple[bool, ...]


def _poly(*points: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(points, dtype=np.float64)


def _box(left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
    return _poly((left, top), (right, top), (right, bottom), (left, bottom))


def _oval(
    x: float, y: float, across: float, down: float, turn: float = 0.0, span: float = 360.0
) -> NDArray[np.float64]:
    """Return an ellipse, or with a ``span`` in degrees its upper arc, turned clockwise."""
    angle = np.deg2rad(np.linspace(180, 180 + span, 48))
    at = np.stack([across * np.cos(angle), down * np.sin(angle)], axis=1)
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    turned: NDArray[np.float64] = at @ np.array([[cos, sin], [-sin, cos]]) + np.array([x, y])
    return turned


def _mirrored(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points * (-1, 1) + (1, 0)


def _house() -> list[Shape]:
    return [
        Shape("chimney", _FIRST, _box(0.68, 0.10, 0.80, 0.40)),
        Shape("wall", _FIRST, _box(0.14, 0.42, 0.86, 0.95)),
        Shape("roof", _SECOND, _poly((0.02, 0.47), (0.5, 0.05), (0.98, 0.47))),
        Shape("door", _SECOND, _box(0.57, 0.60, 0.75, 0.95)),
        Shape("window", _SECOND, _box(0.24, 0.58, 0.45, 0.78)),
    ]


def _car() -> list[Shape]:
    cabin = [(0.20, 0.50), (0.32, 0.26), (0.66, 0.26), (0.80, 0.50)]
    front = [(0.97, 0.54), (0.99, 0.74), (0.01, 0.74), (0.02, 0.52)]
    body = _poly(*cabin, *front)
    wheels = [Shape("wheel", _SECOND, _oval(x, 0.73, 0.13, 0.13)) for x in (0.24, 0.76)]
    return [
        Shape("body", _FIRST, body),
        Shape("window", _SECOND, _poly((0.28, 0.50), (0.36, 0.32), (0.47, 0.32), (0.47, 0.50))),
        Shape("window", _SECOND, _poly((0.53, 0.50), (0.53, 0.32), (0.63, 0.32), (0.72, 0.50))),
        *wheels,
    ]


def _tree() -> list[Shape]:
    left = [(0.5, 0.02), (0.27, 0.31), (0.37, 0.31), (0.18, 0.56), (0.30, 0.56), (0.08, 0.82)]
    right = [(1 - x, y) for x, y in reversed(left[1:])]
    return [
        Shape("trunk", _SECOND, _box(0.41, 0.78, 0.59, 0.98)),
        Shape("crown", _FIRST, _poly(*left, *right)),
    ]


def _fish() -> list[Shape]:
    tail = _poly((0.26, 0.5), (0.02, 0.24), (0.08, 0.5), (0.02, 0.76))
    fins = [
        Shape("fin", _SECOND, _poly((0.40, 0.35), (0.46, 0.10), (0.72, 0.17), (0.74, 0.35))),
        Shape("fin", _SECOND, _poly((0.46, 0.66), (0.44, 0.86), (0.64, 0.80), (0.64, 0.66))),
    ]
    return [
        Shape("tail", _SECOND, tail),
        *fins,
        Shape("body", _FIRST, _oval(0.58, 0.5, 0.39, 0.24)),
        Shape("eye", _SECOND, _oval(0.80, 0.44, 0.065, 0.065)),
    ]


def _mushroom() -> list[Shape]:
    spots = [(0.30, 0.36, 0.085), (0.53, 0.22, 0.095), (0.73, 0.39, 0.075)]
    return [
        Shape("stem", _SECOND, _poly((0.38, 0.48), (0.62, 0.48), (0.68, 0.96), (0.32, 0.96))),
        Shape("cap", _FIRST, _oval(0.5, 0.55, 0.46, 0.49, span=180.0)),
        *(Shape("spot", _SECOND, _oval(x, y, r, r)) for x, y, r in spots),
    ]


def _flower() -> list[Shape]:
    leaf = _oval(0.34, 0.83, 0.17, 0.075, turn=35.0)
    petals = [
        _oval(0.5 + 0.19 * np.sin(turn), 0.36 - 0.19 * np.cos(turn), 0.10, 0.145, np.rad2deg(turn))
        for turn in np.arange(6) * np.pi / 3
    ]
    return [
        Shape("stem", _SECOND, _box(0.465, 0.48, 0.535, 0.98)),
        Shape("leaf", _SECOND, leaf),
        Shape("leaf", _SECOND, _mirrored(leaf)),
        *(Shape("petal", _FIRST, points) for points in petals),
        Shape("core", _SECOND, _oval(0.5, 0.36, 0.12, 0.12)),
    ]


def _cup() -> list[Shape]:
    side = _oval(0.42, 0.32, 0.32, 0.55, turn=180.0, span=180.0)
    return [
        Shape("saucer", _SECOND, _oval(0.45, 0.86, 0.43, 0.10)),
        Shape("handle", _FIRST, _oval(0.76, 0.46, 0.20, 0.20)),
        Shape(_HOLE, _FIRST, _oval(0.77, 0.46, 0.115, 0.115)),
        Shape("bowl", _FIRST, side),
        Shape("rim", _SECOND, _oval(0.42, 0.31, 0.34, 0.12)),
    ]


def _sailboat() -> list[Shape]:
    return [
        Shape("mast", _SECOND, _box(0.47, 0.03, 0.53, 0.80)),
        Shape("sail", _FIRST, _poly((0.56, 0.06), (0.95, 0.66), (0.56, 0.66))),
        Shape("sail", _FIRST, _poly((0.44, 0.17), (0.44, 0.66), (0.13, 0.66))),
        Shape("hull", _SECOND, _poly((0.03, 0.73), (0.97, 0.73), (0.80, 0.95), (0.20, 0.95))),
    ]


def _key() -> list[Shape]:
    return [
        Shape("shaft", _SECOND, _box(0.38, 0.45, 0.98, 0.55)),
        Shape("bit", _SECOND, _box(0.66, 0.53, 0.75, 0.74)),
        Shape("bit", _SECOND, _box(0.86, 0.53, 0.95, 0.74)),
        Shape("ring", _FIRST, _oval(0.25, 0.5, 0.23, 0.23)),
        Shape(_HOLE, _FIRST, _oval(0.23, 0.5, 0.10, 0.10)),
    ]


def _butterfly() -> list[Shape]:
    feeler = _poly((0.47, 0.28), (0.30, 0.06), (0.36, 0.02), (0.52, 0.26))
    upper = _oval(0.26, 0.38, 0.25, 0.19, turn=30.0)
    lower = _oval(0.31, 0.72, 0.19, 0.16, turn=-40.0)
    dot = _oval(0.22, 0.36, 0.07, 0.07)
    sides = (np.asarray, _mirrored)
    return [
        *(Shape("feeler", _SECOND, side(feeler)) for side in sides),
        *(Shape("wing", _FIRST, side(lower)) for side in sides),
        *(Shape("wing", _FIRST, side(upper)) for side in sides),
        *(Shape("spot", _SECOND, side(dot)) for side in sides),
        Shape("body", _SECOND, _oval(0.5, 0.55, 0.065, 0.33)),
    ]


_CARTOONS: dict[str, Callable[[], list[Shape]]] = {
    "house": _house,
    "car": _car,
    "tree": _tree,
    "fish": _fish,
    "mushroom": _mushroom,
    "flower": _flower,
    "cup": _cup,
    "sailboat": _sailboat,
    "key": _key,
    "butterfly": _butterfly,
}

OBJECT_NAMES: tuple[str, ...] = tuple(_CARTOONS)
PART_NAMES: tuple[str, ...] = tuple(
    dict.fromkeys(
        shape.part for cartoon in _CARTOONS.values() for shape in cartoon() if shape.part != _HOLE
    )
)


@lru_cache
def stencil(name: str) -> Stencil:
    """Draw an object's cartoon on a grid; drawn once and kept.

    Args:
        name: One of ``OBJECT_NAMES``.

    Returns:
        The stencil.

    Example:
        >>> stencil("tree").cells.shape
        (256, 256)
        >>> sorted(set(stencil("tree").parts) - {""})
        ['crown', 'trunk']
    """
    cells = np.zeros((GRID, GRID), dtype=np.uint8)
    parts, paints, inked = [_HOLE], [_FIRST], [False]
    for shape in _CARTOONS[name]():
        inside = np.zeros((GRID, GRID), dtype=np.uint8)
        columns, rows = shape.points.T * GRID
        inside[polygon(rows, columns, inside.shape)] = 1
        fill = erosion(inside, disk(_INK_CELLS))
        if shape.part == _HOLE:  # the rim of a hole is outline of the shape that it is cut from
            cells[inside > fill] = len(parts) - 1
            cells[fill > 0] = 0
            continue
        cells[inside > 0] = len(parts) + 1
        cells[fill > 0] = len(parts)
        parts += [shape.part] * 2
        paints += [shape.paint] * 2
        inked += [False, True]
    return Stencil(cells, tuple(parts), tuple(paints), tuple(inked))
