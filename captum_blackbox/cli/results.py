"""What a run found, as numbers and files."""

import csv
import io
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_blackbox.artifacts import replaced_on_success
from captum_blackbox.cli.run import REFERENCE, Explained, Subject
from captum_blackbox.errors import ArtifactError
from captum_blackbox.report import paired_difference
from captum_blackbox.student import DistillationReport

RESULTS_FILE, CURVES_FILE, PAGE_FILE = "results.json", "curves.csv", "report.html"
STUDENT_FILE, ANSWERS_FILE, CHECKPOINT_FILE = (
    "student.safetensors",
    "answers.sqlite",
    "checkpoint.safetensors",
)
MAPS_FOLDER = "maps"


def check_folder(folder: Path) -> None:
    """Make the folder for the results and see that it can be written, before any work.

    Raises:
        ArtifactError: It cannot.
    """
    probe = folder / ".writable"
    try:
        with replaced_on_success(probe):
            pass
        probe.unlink()
    except (ArtifactError, OSError) as error:
        reason = getattr(error.__cause__ or error, "strerror", None) or error
        raise ArtifactError(
            f"cannot write in {str(folder)!r}: {reason}; give --out a folder that can be written"
        ) from error


def belonging_to(file: str, identity: str) -> str:
    """Return the name of a file that only a model of this identity may use.

    Example:
        >>> belonging_to("answers.sqlite", "1a2b3c4d"), belonging_to("answers.sqlite", "")
        ('answers-1a2b3c4d.sqlite', 'answers.sqlite')
    """
    stem, dot, kind = file.partition(".")
    return f"{stem}-{identity}{dot}{kind}" if identity else file


def summarise(
    explained: Explained,
    subject: Subject,
    *,
    report: DistillationReport | None,
    queries: int,
    skipped: Mapping[str, str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all numbers of a run, as JSON knows them; the page is made from them."""
    return {
        "format": 1,
        "settings": dict(settings),
        "versions": versions(),
        "queries": queries,
        "student": None if report is None else report.to_dict(),
        "methods": {name: _method(name, explained) for name in explained.maps},
        "object_area": _mean_or_none(subject.objects),
        "layers": {
            name: {
                "share": float(shares.mean()),
                "deletion": _mean_or_none(explained.layer_deletion.get(name)),
            }
            for name, shares in explained.layer_shares.items()
        },
        "images": [_image(i, explained, subject) for i in range(len(subject.names))],
        "skipped": dict(skipped),
    }


def area(curves: Tensor) -> Tensor:
    """Return the area under each curve over a width of 1, ``(N,)``."""
    return torch.trapezoid(curves, dim=1) / (curves.shape[1] - 1)


def versions() -> dict[str, str]:
    """Return the versions on which the numbers may depend."""
    packages = ("captum-blackbox", "captum", "torch", "torchvision", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8, whole or not at all; names of files that are not become escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content``, whole or not at all."""
    with replaced_on_success(path) as temporary:
        temporary.write_bytes(content)


def write_curves(path: Path, explained: Explained, subject: Subject) -> None:
    """Write every point of every game as a row: image, method, game, fraction, score."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(("image", "method", "game", "fraction", "score"))
    for game, curves in (("deletion", explained.deletion), ("insertion", explained.insertion)):
        for method, scores in curves.items():
            last = scores.shape[1] - 1
            for name, points in zip(subject.names, scores.tolist(), strict=True):
                rows.writerows(
                    (name, method, game, f"{step / last:.6g}", f"{score:.6g}")
                    for step, score in enumerate(points)
                )
    write_text(path, text.getvalue())


def file_stem(index: int, name: str) -> str:
    """Return a harmless file name for an image: its number and what its name allows.

    Example:
        >>> file_stem(3, "a/<b> c.png")
        '0003-a-b-c'
    """
    words = re.sub(r"[^A-Za-z0-9]+", "-", str(Path(name).with_suffix(""))).strip("-")[:40]
    return f"{index:04d}-{words}".rstrip("-")


def _method(name: str, explained: Explained) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for game, curves in (("deletion", explained.deletion), ("insertion", explained.insertion)):
        areas = area(curves[name])
        found[game] = float(areas.mean())
        found[f"{game}_difference"] = (
            None
            if name == REFERENCE or REFERENCE not in curves
            else asdict(paired_difference(areas, area(curves[REFERENCE])))
        )
    found["object_share"] = _mean_or_none(explained.object_shares.get(name))
    return found


def _image(index: int, explained: Explained, subject: Subject) -> dict[str, Any]:
    student, truth = explained.student_predicted, subject.truth
    return {
        "name": subject.names[index],
        "predicted": subject.class_name(int(explained.predicted[index])),
        "probability": float(explained.probabilities[index]),
        "student_predicted": None if student is None else subject.class_name(int(student[index])),
        "true": None if truth is None else subject.class_name(int(truth[index])),
        "methods": {
            name: {
                "deletion": float(area(explained.deletion[name][index : index + 1])),
                "insertion": float(area(explained.insertion[name][index : index + 1])),
                "object_share": (
                    float(explained.object_shares[name][index])
                    if name in explained.object_shares
                    else None
                ),
            }
            for name in explained.maps
        },
        "layers": {name: float(share[index]) for name, share in explained.layer_shares.items()},
    }


def _mean_or_none(values: Tensor | None) -> float | None:
    return None if values is None else float(values.mean())
