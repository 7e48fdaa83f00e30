"""The tables that describe a data set in Broden's layout."""

import csv
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from captum_blackbox.errors import DataError, InputError

INDEX_COLUMNS = ("image", "split", "ih", "iw", "sh", "sw")
"""The columns of index.csv in front of the categories'."""


class Row(NamedTuple):
    """One image of index.csv.

    Attributes:
        image: Path below ``images/``.
        split: Such as ``"train"``.
        image_size: Height and width of the image.
        mask_size: Height and width of its masks.
        cells: One per category: items with ``;`` between them.
    """

    image: str
    split: str
    image_size: tuple[int, int]
    mask_size: tuple[int, int]
    cells: tuple[str, ...]

    def items(self, place: int) -> list[str]:
        """Return the items of one cell."""
        return [item for each in self.cells[place].split(";") if (item := each.strip())]

    def every_item(self) -> list[str]:
        """Return the items of all cells."""
        return [item for place in range(len(self.cells)) for item in self.items(place)]


class BrodenLabel(NamedTuple):
    """One row of label.csv.

    Attributes:
        number: As the masks have it.
        name: As people call it.
        category: The one in which it covers most.
    """

    number: int
    name: str
    category: str


def read_table(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file with a header.

    Raises:
        DataError: The file is missing, is no text, lacks columns, or a row is too short or long.
    """
    try:
        # Spreadsheets put a mark before the first column's name, which utf-8-sig takes away.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{str(path)!r} lacks the columns {missing}; it has {reader.fieldnames}"
                )
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"line {reader.line_num} of {str(path)!r} has another number of cells "
                        "than the header"
                    )
                yield row
    except FileNotFoundError as error:
        raise DataError(f"there is no file {str(path)!r}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{str(path)!r} cannot be read as a table: {error}") from error


def number_in(row: dict[str, str], column: str, path: Path) -> int:
    """Return a cell as a whole number.

    Raises:
        DataError: It is none.
    """
    if not row[column].isdecimal():
        raise DataError(
            f"expected a whole number in the column {column!r} of {str(path)!r}, got "
            f"{row[column]!r}"
        )
    return int(row[column])


def read_categories(root: Path) -> list[str]:
    """Return the categories in the order of category.csv, which decides ties."""
    return [row["name"] for row in read_table(root / "category.csv", ["name"])]


def read_index(root: Path, categories: Sequence[str]) -> list[Row]:
    """Return the rows of index.csv with the cells of ``categories``."""
    path = root / "index.csv"

    def sizes(row: dict[str, str], height: str, width: str) -> tuple[int, int]:
        return number_in(row, height, path), number_in(row, width, path)

    return [
        Row(
            row["image"],
            row["split"],
            sizes(row, "ih", "iw"),
            sizes(row, "sh", "sw"),
            tuple(row[category] for category in categories),
        )
        for row in read_table(path, [*INDEX_COLUMNS, *categories])
    ]


def read_labels(root: Path, categories: Sequence[str]) -> list[BrodenLabel]:
    """Return the labels in the order of their numbers, each with its category.

    A label counts for the category in which it covers most, by the tables ``c_*.csv``; of two the
    later one in ``categories``. Where one of these tables is missing or has an empty cell, it
    counts for the category in which it is most frequent by label.csv.

    Raises:
        DataError: A table is broken, two labels have one number, or one has no category.
    """
    path = root / "label.csv"
    rows = {}
    for row in read_table(path, ["number", "name", "category"]):
        number = number_in(row, "number", path)
        if number in rows or number < 1:
            raise DataError(f"{str(path)!r} has the number {number} twice, or it is below 1")
        rows[number] = row
    coverage = _coverage(root, categories)
    labels = []
    for number in sorted(rows):
        row = rows[number]
        shares = coverage.get(number) or _frequencies(row["category"], categories)
        if not shares:
            raise DataError(f"the label {number} of {str(path)!r} is in none of {list(categories)}")
        best = max(shares, key=lambda category: (shares[category], categories.index(category)))
        labels.append(BrodenLabel(number, row["name"], best))
    return labels


def chosen_categories(
    root: Path, every: Sequence[str], chosen: Collection[str] | None
) -> list[str]:
    """Return the categories that are asked for, in the order of the file.

    Raises:
        InputError: One is not there, or none is asked for.
    """
    if chosen is None:
        return list(every)
    unknown = sorted(set(chosen) - set(every))
    if unknown or not chosen:
        raise InputError(f"{str(root)!r} has the categories {list(every)}, got {list(chosen)}")
    return [category for category in every if category in chosen]


def _frequencies(cell: str, categories: Sequence[str]) -> dict[str, float]:
    """Read ``material(36);object(3)``, or ``material`` where nobody has counted."""
    pairs = re.findall(r"([^;()]+)(?:\((\d+)\))?", cell)
    return {category: float(count or 0) for category, count in pairs if category in categories}


def _coverage(root: Path, categories: Sequence[str]) -> dict[int, dict[str, float]]:
    """Return number → category → images' worth of pixels, as far as the tables say."""
    paths = {category: root / f"c_{category}.csv" for category in categories}
    coverage: dict[int, dict[str, float]] = {}
    if not all(path.is_file() for path in paths.values()):
        return coverage
    for category, path in paths.items():
        for row in read_table(path, ["number", "coverage"]):
            if not row["coverage"].strip():
                continue
            try:
                share = float(row["coverage"])
            except ValueError as error:
                raise DataError(
                    f"expected a number in the column 'coverage' of {str(path)!r}, got "
                    f"{row['coverage']!r}"
                ) from error
            coverage.setdefault(number_in(row, "number", path), {})[category] = share
    return coverage
