"""Any concepts as a folder in Broden's layout."""

import csv
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captum_blackbox.concepts.broden_tables import INDEX_COLUMNS
from captum_blackbox.concepts.concepts import Annotation, Concepts
from captum_blackbox.errors import ArtifactError, InputError

_MOST_LABELS = (1 << 16) - 1  # red + 256 green
_NOT_IN_A_CATEGORY = set(";(),/\\\"'\n\r")


def write_broden(
    root: str | Path, concepts: Concepts, *, splits: Sequence[str] | None = None
) -> None:
    """Write images and labels as ``BrodenConcepts`` reads them.

    Images and masks become PNG files, so that what is read back equals what was written, the
    images to 8 bits. The folder appears when all of it is written.

    A label that is annotated in several categories is read back as one of that in which it covers
    most, which is how the layout defines it.

    Args:
        root: The folder; it must not exist, or be empty.
        concepts: What to write.
        splits: The split of each image; by default all are ``"train"``.

    Raises:
        ArtifactError: The folder is not empty or cannot be written.
        InputError: There are more labels than two bytes count, a category has a name that the
            tables cannot hold, or the number of splits is not that of the images.

    Example:
        >>> from tempfile import mkdtemp
        >>> from captum_blackbox.concepts import SceneConcepts
        >>> root = Path(mkdtemp()) / "scenes"
        >>> write_broden(root, SceneConcepts(1, categories=["object", "color"]))
        >>> print((root / "index.csv").read_text())
        image,split,ih,iw,sh,sw,object,color
        000000.png,train,64,64,64,64,000000_object.png,000000_color.png
    """
    root = Path(root)
    names = splits if splits is not None else ["train"] * len(concepts)
    _check(concepts, names)
    try:
        with _appears_when_whole(root) as folder:
            (folder / "images").mkdir()
            tally = _Tally(concepts)
            index = (_written_row(folder, concepts, i, names[i], tally) for i in range(len(names)))
            _write_table(folder / "index.csv", [*INDEX_COLUMNS, *concepts.categories], index)
            tally.write(folder)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {str(root)!r}: {error.strerror or error}; choose a folder that can be "
            "written"
        ) from error


class _Tally:
    """In how many images, and on how many images' worth of pixels, each label is found."""

    def __init__(self, concepts: Concepts) -> None:
        self._concepts = concepts
        shape = (len(concepts.categories), len(concepts.labels) + 1)
        self._frequency = np.zeros(shape, dtype=np.int64)
        self._coverage = np.zeros(shape, dtype=np.float64)

    def add(self, annotations: Mapping[str, Annotation]) -> None:
        for place, category in enumerate(self._concepts.categories):
            if category in annotations:
                covered = _covered(annotations[category], self._frequency.shape[1])
                self._frequency[place] += covered > 0
                self._coverage[place] += covered

    def write(self, folder: Path) -> None:
        found = self._listed()
        for place, category in enumerate(self._concepts.categories):
            self._write_category(folder / f"c_{category}.csv", place, found[place])
        columns = ["number", "name", "category", "frequency", "coverage", "syns"]
        _write_table(folder / "label.csv", columns, self._label_rows(found))
        columns = ["name", "first", "last", "count", "frequency"]
        frequencies = self._frequency.sum(axis=1).tolist()
        rows = [
            [category, numbers[0], numbers[-1], len(numbers), frequency]
            for category, numbers, frequency in zip(
                self._concepts.categories, found, frequencies, strict=True
            )
        ]
        _write_table(folder / "category.csv", columns, rows)

    def _listed(self) -> list[list[int]]:
        """Return the numbers of each category: its own, and others that are annotated in it."""
        own = self._concepts.label_categories().tolist()
        return [
            [
                number
                for number, home in enumerate(own, 1)
                if home == place or self._frequency[place, number]
            ]
            for place in range(len(self._concepts.categories))
        ]

    def _write_category(self, path: Path, place: int, numbers: list[int]) -> None:
        frequency, coverage = self._frequency[place], self._coverage[place]
        labels = self._concepts.labels
        ranked = sorted(numbers, key=lambda number: (-frequency[number], -coverage[number]))
        rows = [
            [code, number, labels[number - 1].name, frequency[number], float(coverage[number])]
            for code, number in enumerate(ranked, 1)
        ]
        _write_table(path, ["code", "number", "name", "frequency", "coverage"], rows)

    def _label_rows(self, found: list[list[int]]) -> Iterator[list[object]]:
        frequency, coverage = self._frequency.sum(axis=0), self._coverage.sum(axis=0)
        for number, label in enumerate(self._concepts.labels, 1):
            counts = [
                (category, int(self._frequency[place, number]))
                for place, category in enumerate(self._concepts.categories)
                if number in found[place]
            ]
            counts.sort(key=lambda count: -count[1])
            cell = ";".join(f"{category}({count})" for category, count in counts)
            yield [number, label.name, cell, frequency[number], float(coverage[number]), ""]


def _written_row(
    folder: Path, concepts: Concepts, index: int, split: str, tally: _Tally
) -> list[object]:
    """Write the files of one image; return its row of index.csv."""
    stem = f"{index:06d}"
    image, annotations = concepts[index]
    tally.add(annotations)
    pixels = image.mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(np.ascontiguousarray(pixels)).save(folder / "images" / f"{stem}.png")
    cells = []
    for category in concepts.categories:
        layers, whole = annotations.get(category, Annotation(image.new_empty(0)))
        items = [f"{stem}_{category}.png"]
        if len(layers) != 1:
            items = [f"{stem}_{category}_{layer}.png" for layer in range(1, len(layers) + 1)]
        for item, layer in zip(items, layers.numpy(), strict=True):
            _coded(layer).save(folder / "images" / item)
        cells.append(";".join([*items, *map(str, whole)]))
    return [f"{stem}.png", split, *concepts.image_size, *concepts.mask_size, *cells]


def _coded(layer: NDArray[np.int32]) -> Image.Image:
    channels = (layer % 256, layer // 256, np.zeros_like(layer))
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _covered(annotation: Annotation, count: int) -> NDArray[np.float64]:
    """Return the share of the pixels that carry each label, those with it twice counted once."""
    layers = np.sort(annotation.pixels.flatten(1).numpy(), axis=0)
    layers[1:][layers[1:] == layers[:-1]] = 0
    counts = np.bincount(layers.ravel(), minlength=count)
    covered: NDArray[np.float64] = counts / layers.shape[1]
    covered[list(annotation.whole)] = 1
    covered[0] = 0
    return covered


def _write_table(path: Path, columns: list[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


@contextmanager
def _appears_when_whole(root: Path) -> Iterator[Path]:
    """Yield a folder beside ``root`` that takes its place if the block succeeds."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ArtifactError(f"{str(root)!r} exists and is not empty; choose another folder")
    root = root.resolve()
    temporary = root.with_name(f".{root.name}.{secrets.token_hex(4)}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if root.exists():
            root.rmdir()
        temporary.replace(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check(concepts: Concepts, splits: Sequence[str]) -> None:
    if len(concepts.labels) > _MOST_LABELS:
        raise InputError(
            f"the layout counts labels in two bytes: at most {_MOST_LABELS}, got "
            f"{len(concepts.labels)}"
        )
    if len(splits) != len(concepts):
        raise InputError(f"expected a split for each of {len(concepts)} images, got {len(splits)}")
    for category in concepts.categories:
        if not category or _NOT_IN_A_CATEGORY & set(category) or category in INDEX_COLUMNS:
            raise InputError(
                f"a category called {category!r} cannot be written: it names files and columns, "
                f"so it must be none of {INDEX_COLUMNS} and without ; ( ) , / \\ or quotes"
            )
