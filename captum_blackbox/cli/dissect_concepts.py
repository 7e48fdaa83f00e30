"""The concepts that the command line names."""

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from captum_blackbox.cli.images import read_class_names
from captum_blackbox.cli.subjects import EXPLAINED_SEED
from captum_blackbox.concepts import (
    BrodenConcepts,
    ColorConcepts,
    Concepts,
    MaskConcepts,
    SceneConcepts,
    TorchvisionConcepts,
)
from captum_blackbox.concepts.mask_folder import images_and_masks, names_of
from captum_blackbox.errors import DataError

DISSECTED_SEED = EXPLAINED_SEED + 10
"""Of the scenes that units are matched with; the built-in network was not trained on them."""

SCENES = "scenes:300"
_HINTS = {
    "scenes": "scenes:300",
    "broden": "broden:FOLDER",
    "folder": "folder:FOLDER",
    "voc": "voc:ROOT:2012:val",
    "pet": "pet:ROOT",
}


def concepts_named(spec: str, *, size: int, names: Path | None, colors: bool) -> Concepts:
    """Return the concepts that ``--concepts`` names.

    Args:
        spec: See the option.
        size: Height and width of the images.
        names: What the values in masks are called, for a folder.
        colors: Whether to add colours.

    Raises:
        BadParameter: There is no such kind or folder, or it is not said right.
        CaptumBlackboxError: The data cannot be read.
    """
    kind, _, place = spec.partition(":")
    if kind not in _HINTS:
        near = difflib.get_close_matches(kind, _HINTS, n=1)
        meant = f"; did you mean {_HINTS[near[0]]}?" if near else ""
        raise typer.BadParameter(
            f"--concepts is one of {', '.join(_HINTS.values())}, got {spec!r}{meant}"
        )
    if names is not None and kind != "folder":
        raise typer.BadParameter(f"--names is for --concepts {_HINTS['folder']}, not for {kind}")
    if kind == "folder":
        named = None if names is None else _names(names)
        found: Concepts = MaskConcepts.from_folder(_folder(spec, place), named, size=size)
    else:
        found = _MAKERS[kind](spec, place, size)
    return ColorConcepts(found) if colors else found


def without_masks(places: Sequence[Path], spec: str) -> list[Path]:
    """Return what is to be explained; of the folder of the concepts its images, not their masks.

    Args:
        places: Files and folders.
        spec: What ``--concepts`` says.
    """
    kind, _, place = spec.partition(":")
    folder = Path(place).expanduser()
    files: list[Path] = []
    for each in places:
        has_masks = kind == "folder" and each.resolve() == folder.resolve()
        files += images_and_masks(each, each)[0] if has_masks else [each]
    return files


def _scenes(spec: str, place: str, size: int) -> Concepts:
    count = place or SCENES.partition(":")[2]
    if not count.isdecimal() or int(count) < 1:
        raise typer.BadParameter(f"--concepts {_HINTS['scenes']} has a number, got {spec!r}")
    return SceneConcepts(int(count), DISSECTED_SEED, size=size)


def _broden(spec: str, place: str, size: int) -> Concepts:
    return BrodenConcepts(_folder(spec, place), size=size)


def _voc(spec: str, place: str, size: int) -> Concepts:
    from torchvision.datasets import VOCSegmentation

    # The root may contain colons itself, as C:/data does.
    found = re.fullmatch(r"(.*?)(?::(\d{4}))?(?::([a-z]+))?", place)
    root, year, split = found.groups() if found else (place, None, None)
    return _from_torchvision(
        lambda: VOCSegmentation(_folder(spec, root), year=year or "2012", image_set=split or "val"),
        spec,
        size,
    )


def _pet(spec: str, place: str, size: int) -> Concepts:
    from torchvision.datasets import OxfordIIITPet

    kinds = ["segmentation", "category"]
    return _from_torchvision(
        lambda: OxfordIIITPet(_folder(spec, place), target_types=kinds), spec, size
    )


_MAKERS = {"scenes": _scenes, "broden": _broden, "voc": _voc, "pet": _pet}


def _from_torchvision(make: Callable[[], Any], spec: str, size: int) -> Concepts:
    try:
        dataset = make()
    except ValueError as error:
        raise typer.BadParameter(f"--concepts {spec}: {error}") from error
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"there is no whole data set for {spec!r}: {error}; nothing is downloaded here"
        ) from error
    return TorchvisionConcepts(dataset, size=size)


def _folder(spec: str, place: str) -> Path:
    if not place:
        hint = _HINTS[spec.partition(":")[0]]
        raise typer.BadParameter(f"--concepts {spec}: say in which folder, as in {hint}")
    folder = Path(place).expanduser()  # no shell does it behind a colon
    if not folder.is_dir():
        raise typer.BadParameter(f"--concepts {spec}: there is no folder {place!r}")
    return folder


def _names(path: Path) -> dict[int, str]:
    if path.suffix == ".json":
        return names_of(path)
    return dict(enumerate(read_class_names(path), 1))
