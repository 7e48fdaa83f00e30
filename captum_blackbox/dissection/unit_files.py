"""Units in files: CSV in the columns that the authors of Network Dissection published; JSON."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from captum_blackbox.artifacts import text_of_cell, write_table
from captum_blackbox.dissection.units import Score, Unit
from captum_blackbox.errors import DataError

_UNIT, _CATEGORY, _LABEL, _SCORE = _FIRST = ("unit", "category", "label", "score")
_OF_A_CATEGORY = ("label", "truth", "activation", "intersect", "iou")
_ROUNDING = 1e-6  # of an IoU in the file, against its pixels


def write_units(path: str | Path, units: Iterable[Unit], categories: Sequence[str]) -> None:
    """Write a row for each unit, the highest score first; units are numbered from 1 in the file.

    The columns are ``unit, category, label, score`` and, for each category,
    ``<category>-label``, ``-truth``, ``-activation``, ``-intersect`` (pixels) and ``-iou``.
    Activations end in ``.0``, as published. A name that a spreadsheet would take for a formula,
    such as ``-x``, gets a ``'`` in front, which :func:`read_units` takes away.

    Args:
        path: The file; its folder is made where it is missing.
        units: As :func:`read_units` returns them.
        categories: The order of the columns, and of ties: the later one wins.

    Raises:
        ArtifactError: The file cannot be written.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "units.csv"
        >>> units = [Unit(0, "object", {"object": Score("car", 60, 50, 10)})]
        >>> write_units(path, units, ["object"])
        >>> print(path.read_text().splitlines()[1])
        1,object,car,0.1,car,60,50.0,10,0.1
        >>> read_units(path) == units
        True
    """
    names = [f"{category}-{column}" for category in categories for column in _OF_A_CATEGORY]
    best_first = sorted(units, key=lambda each: (-each.iou, each.unit))
    rows = (_row(unit, categories) for unit in best_first)
    write_table(path, [[*_FIRST, *names], *rows])


def read_units(path: str | Path) -> list[Unit]:
    """Read a table that :func:`write_units` wrote, or a published one.

    Columns are found by name, in any order; those not named there are left alone. A label may be
    empty: in two published tables that of a texture is.

    Returns:
        The units in the order of their numbers, which start from 0.

    Raises:
        DataError: The file is missing or is no such table, or a cell is empty or impossible; file,
            row and column are named.
    """
    rows = _rows(path)
    header = rows[0] if rows else []
    categories = _categories(path, header)
    units = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DataError(
                f"{str(path)!r}, row {number}: expected {len(header)} cells, as in the header, "
                f"got {len(row)}"
            )
        cells = _Cells(path, number, dict(zip(header, row, strict=True)))
        units.append(_unit(cells, categories))
    units.sort(key=lambda unit: unit.unit)
    for one, next_one in pairwise(units):
        if one.unit == next_one.unit:
            raise DataError(f"{str(path)!r} has unit {one.unit + 1} twice")
    return units


def unit_as_json(unit: Unit, **beside: Any) -> dict[str, Any]:
    """Return a unit, numbered from 0, and what else is known of it; numbers not finite are None.

    Example:
        >>> unit_as_json(Unit(0, "a", {"a": Score("b", 6, 5, 1)}), threshold=float("nan"))
        {'unit': 0, 'label': 'b', 'category': 'a', 'iou': 0.1,
         'scores': {'a': {'label': 'b', 'truth': 6, 'activation': 5, 'intersection': 1,
         'iou': 0.1}}, 'threshold': None}
    """
    scores = {
        category: {**score._asdict(), "iou": score.iou} for category, score in unit.scores.items()
    }
    return {
        "unit": unit.unit,
        "label": unit.label,
        "category": unit.category,
        "iou": unit.iou,
        "scores": scores,
        **{name: _finite(value) for name, value in beside.items()},
    }


def _finite(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


class _Cells:
    """A row by column name, whose numbers are checked."""

    def __init__(self, path: str | Path, row: int, texts: Mapping[str, str]) -> None:
        self._path, self._row, self.texts = path, row, texts

    def whole(self, column: str, least: int = 0) -> int:
        """Return a whole number, which may be written as 7.0."""
        value = self.number(column)
        if not value.is_integer() or value < least:
            raise self.wrong(column, f"a whole number from {least}")
        return int(value)

    def number(self, column: str) -> float:
        try:
            return float(self.texts[column])
        except ValueError:
            raise self.wrong(column, "a number") from None

    def wrong(self, column: str, expected: str) -> DataError:
        return DataError(
            f"{str(self._path)!r}, row {self._row}, column {column!r}: expected {expected}, got "
            f"{self.texts[column]!r}"
        )


def _rows(path: str | Path) -> list[list[str]]:
    try:
        # Spreadsheets put a mark before the first column's name, which utf-8-sig takes away.
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            return [[text_of_cell(cell) for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read units from {str(path)!r}: {reason}") from error


def _unit(cells: _Cells, categories: Sequence[str]) -> Unit:
    scores = {category: _score(cells, category) for category in categories}
    category = cells.texts[_CATEGORY]
    if category not in scores:
        raise cells.wrong(_CATEGORY, f"one of {', '.join(map(repr, categories))}")
    unit = Unit(cells.whole(_UNIT, least=1) - 1, category, scores)
    if unit.iou < max(score.iou for score in scores.values()):
        raise cells.wrong(_CATEGORY, "the one with the highest IoU")
    if cells.texts[_LABEL] != unit.label:
        raise cells.wrong(_LABEL, f"{unit.label!r}, as in column '{category}-label'")
    _check_iou(cells, _SCORE, unit.iou)
    return unit


def _score(cells: _Cells, category: str) -> Score:
    label, truth, activation, intersect, iou = (f"{category}-{each}" for each in _OF_A_CATEGORY)
    score = Score(
        cells.texts[label], cells.whole(truth), cells.whole(activation), cells.whole(intersect)
    )
    # Not so for activation, which is 0 for the nameless texture of two published tables.
    if score.intersection > score.truth:
        raise cells.wrong(intersect, f"at most the truth, {score.truth}")
    _check_iou(cells, iou, score.iou)
    return score


def _check_iou(cells: _Cells, column: str, expected: float) -> None:
    # Not the other way round: NaN is near to nothing.
    if not abs(cells.number(column) - expected) <= _ROUNDING:
        raise cells.wrong(column, f"{expected!r}, which follows from the pixels")


def _categories(path: str | Path, header: Sequence[str]) -> list[str]:
    """Return the categories in the order of their columns."""
    suffix = f"-{_LABEL}"
    categories = [name.removesuffix(suffix) for name in header if name.endswith(suffix)]
    needed = [*_FIRST, *(f"{each}-{column}" for each in categories for column in _OF_A_CATEGORY)]
    missing = [name for name in needed if name not in header]
    if missing or not categories or len(set(header)) != len(header):
        raise DataError(
            f"{str(path)!r} is no table of units: its first row must name each column once, "
            f"{', '.join(_FIRST)} and those of a category, such as 'object-label'; "
            f"missing: {missing}, found: {list(header)}"
        )
    return categories


def _row(unit: Unit, categories: Sequence[str]) -> list[str | int | float]:
    row: list[str | int | float] = [unit.unit + 1, unit.category, unit.label, unit.iou]
    for category in categories:
        score = unit.scores[category]
        row += [score.label, score.truth, float(score.activation), score.intersection, score.iou]
    return row
