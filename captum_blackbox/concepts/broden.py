"""Broden, or any data set in the layout that its authors ship."""

import hashlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captum_blackbox.concepts.broden_tables import (
    Row,
    chosen_categories,
    read_categories,
    read_index,
    read_labels,
)
from captum_blackbox.concepts.concepts import Annotation, Concepts, Label
from captum_blackbox.concepts.image_files import (
    Size,
    code_values,
    digest_of,
    digest_of_files,
    height_and_width,
    mask_size_for,
    nearest,
    picture,
)
from captum_blackbox.concepts.image_loading import load_image
from captum_blackbox.concepts.value_table import ValueTable
from captum_blackbox.errors import DataError, InputError


class BrodenConcepts(Concepts):
    """Read images and labels of a folder in Broden's layout; nothing is downloaded.

    ``index.csv`` names, for each image, the labels of each category: numbers that hold for the
    whole image, and PNG files that code a number per pixel as red + 256 green, several where a
    pixel has several parts. ``label.csv`` names the numbers, ``category.csv`` the categories, and
    ``c_*.csv`` says how much a label covers in each: it counts for the category in which it covers
    most, and of two with the same coverage for the later one. The numbers of the labels here are
    those of the file without its gaps.

    Args:
        root: The folder that holds ``index.csv``.
        split: Only the images of this split, such as ``"train"`` or ``"val"``.
        categories: Only these: labels that count for another one are left out, and, as in the
            published code, images without an item in any of them. The order is the file's.
        size: Height and width of the images; they are resized bilinearly, with antialiasing, and
            the masks to half of it, to the nearest. By default as they are.

    Raises:
        DataError: A table is missing or broken, or lacks columns; it is named.
        InputError: There is no image of this split or no such category, or the images differ in
            their sizes and ``size`` is not given.

    References:
        Bau, Zhou, Khosla, Oliva, Torralba, "Network dissection", CVPR 2017, section 2.1. The
        published code drops an image whose labels are all numbered 0 also without ``categories``.

    Example:
        >>> from tempfile import mkdtemp
        >>> from captum_blackbox.concepts import SceneConcepts, write_broden
        >>> folder = Path(mkdtemp()) / "scenes"
        >>> write_broden(folder, SceneConcepts(2))
        >>> concepts = BrodenConcepts(folder, categories=["color", "object"])
        >>> len(concepts), concepts.categories, concepts.labels[0]
        (2, ('object', 'color'), Label(name='house', category='object'))
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str | None = None,
        categories: Collection[str] | None = None,
        size: Size | None = None,
    ) -> None:
        self._root = Path(root)
        every = read_categories(self._root)
        chosen = chosen_categories(self._root, every, categories)
        found = read_labels(self._root, every)
        kept = [label for label in found if label.category in chosen]
        empty = sorted(set(chosen) - {label.category for label in kept})
        if empty:
            raise DataError(
                f"no label of {str(self._root)!r} counts for {empty}: each covers more in another "
                "category; leave them out of categories="
            )
        number = {label.number: place for place, label in enumerate(kept, 1)}
        entries = {0: 0} | {label.number: number.get(label.number, 0) for label in found}
        self._table = ValueTable(entries, "'label.csv' has no such number")
        self._rows = _rows(self._root, chosen, split, only_labelled=categories is not None)
        self._resized = size is not None
        super().__init__(
            chosen,
            [Label(label.name, label.category) for label in kept],
            *_sizes(self._rows, size),
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._rows)

    def image(self, index: int) -> Tensor:
        """Read an image, ``(3, H, W)`` float32 in [0, 1].

        Raises:
            DataError: Its file is missing or broken, or has another size than the index says.
        """
        row = self._rows[index]
        path = self._path(row.image)
        image = load_image(path)
        self._check_size(path, image.size[::-1], row.image_size)
        return picture(image, self.image_size)

    def annotations(self, index: int) -> dict[str, Annotation]:
        """Read what is labelled in an image; categories with an empty cell are absent.

        Raises:
            DataError: A file is missing or broken, has another size than the index says, or has a
                number that ``label.csv`` lacks.
        """
        row = self._rows[index]
        return {
            category: self._annotation(row, items)
            for place, category in enumerate(self.categories)
            if (items := row.items(place))
        }

    def digest(self) -> str:
        """Return a hash of the tables, the settings, and the sizes and times of the files."""
        tables = [self._root / name for name in ("index.csv", "label.csv")]
        contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in tables]
        files = digest_of_files(
            self._path(name) for row in self._rows for name in (row.image, *_layers(row))
        )
        sizes = (self.image_size, self.mask_size)
        return digest_of("broden", contents, self.categories, self.labels, sizes, files)

    def _annotation(self, row: Row, items: list[str]) -> Annotation:
        layers = [self._layer(row, item) for item in items if not item.isdecimal()]
        codes = np.array([item for item in items if item.isdecimal()], dtype=np.int64)
        where = f"the row of {row.image!r} in 'index.csv'"
        whole = self._table.numbers(codes, where) if codes.size else codes
        pixels = np.stack(layers) if layers else np.empty((0, *self.mask_size), dtype=np.int32)
        distinct = dict.fromkeys(number for number in whole.tolist() if number)
        return Annotation(torch.from_numpy(pixels), tuple(distinct))

    def _layer(self, row: Row, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
        path = self._path(name)
        codes = code_values(path)
        self._check_size(path, codes.shape, row.mask_size)
        return nearest(self._table.numbers(codes, repr(str(path))), self.mask_size)

    def _check_size(self, path: Path, size: tuple[int, ...], expected: tuple[int, int]) -> None:
        if size != expected:
            raise DataError(
                f"{str(path)!r} has {size[0]} × {size[1]} pixels (height × width); 'index.csv' "
                f"says {expected[0]} × {expected[1]}"
            )

    def _path(self, name: str) -> Path:
        return self._root / "images" / name


def _layers(row: Row) -> list[str]:
    return [item for item in row.every_item() if not item.isdecimal()]


def _rows(
    root: Path, categories: list[str], split: str | None, *, only_labelled: bool
) -> list[Row]:
    rows = read_index(root, categories)
    splits = sorted({row.split for row in rows})
    kept = [row for row in rows if split in {None, row.split}]
    if only_labelled:  # a number 0 stands for no label
        kept = [row for row in kept if any(item.strip("0") for item in row.every_item())]
    if not kept:
        raise InputError(
            f"{str(root / 'index.csv')!r} has no image of split {split!r} with a label in "
            f"{categories}; it has the splits {splits}"
        )
    return kept


def _sizes(rows: list[Row], size: Size | None) -> tuple[tuple[int, int], tuple[int, int]]:
    if size is not None:
        image_size = height_and_width("size", size)
        return image_size, mask_size_for(image_size, None)
    different = {(row.image_size, row.mask_size) for row in rows}
    if len(different) > 1:
        first, second = sorted(different)[:2]
        raise InputError(
            f"the images or masks differ in their sizes, such as {first} and {second}; give the "
            "size that they are to be resized to, as size=224"
        )
    return different.pop()
