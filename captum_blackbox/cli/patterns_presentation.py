"""The page of ``patterns attribute``, and the files beside it."""

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from captum_blackbox.cli import results as files
from captum_blackbox.cli.patterns_fit import pattern_summary, units_of
from captum_blackbox.cli.patterns_maps import ATTRIBUTIONS, RANDOM, SIGNALS, Maps
from captum_blackbox.cli.run import Subject
from captum_blackbox.patterns import Patterns
from captum_blackbox.report import (
    DegradationSummary,
    Difference,
    PatternsImage,
    PatternsMap,
    PatternsPage,
    attribution_png,
    degradation_png,
    montage_png,
    paired_difference,
    picture_png,
    render_patterns,
    signal_png,
)

REFERENCE = RANDOM
DEGRADATION_FILE, MONTAGE_FILE = "degradation.png", "montage.png"
_MOST_ROWS = 12  # of the montage
_LEAD = (
    "A weight says what a unit computes; it has to cancel what distracts from the signal, and so "
    "points away from it. Patterns, learned from images, say where the signal lies. PatternNet "
    "shows the signal in each image that made the network's answer; PatternAttribution says where "
    "evidence for it comes from."
)


@dataclass(frozen=True)
class Degraded:
    """How the probability fell.

    Attributes:
        curves: Method → probabilities of the class, ``(N, points)``.
        patch: Height and width of a patch.
        every: Patches between two points.
    """

    curves: Mapping[str, Tensor]
    patch: int
    every: int

    def aopc(self, name: str) -> Tensor:
        """Return the area over each curve of a method, ``(N,)``."""
        curve = self.curves[name]
        return curve[:, 0] - curve.mean(1)


def write_patterns(
    folder: Path,
    subject: Subject,
    maps: Maps,
    degraded: Degraded,
    patterns: Patterns,
    *,
    title: str,
    notes: tuple[str, ...],
    skipped: Mapping[str, str],
    settings: Mapping[str, str],
) -> Path:
    """Write the numbers, the pictures and the page; returns the page's path.

    Args:
        folder: Where.
        subject: The images.
        maps: What was found on them.
        degraded: What the attributions are worth.
        patterns: For what is said about them.
        title: Of the page.
        notes: Doubts.
        skipped: File → why it was left out.
        settings: What was run.
    """
    summary: dict[str, Any] = {
        "format": 1,
        "settings": dict(settings),
        "versions": files.versions(),
        "patterns": pattern_summary(patterns),
        "degradation": {"patch": degraded.patch, "every": degraded.every},
        "methods": {name: _method(name, degraded) for name in degraded.curves},
        "images": [_numbers(i, subject, maps, degraded) for i in range(len(subject.names))],
        "left_out": maps.left_out,
        "skipped": dict(skipped),
    }
    files.write_json(folder / files.RESULTS_FILE, summary)
    _write_curves(folder / files.CURVES_FILE, subject, degraded)
    curves = degradation_png(degraded.curves, every=degraded.every)
    files.write_bytes(folder / DEGRADATION_FILE, curves)
    images = [_image(folder, i, found, subject, maps) for i, found in enumerate(summary["images"])]
    files.write_bytes(folder / MONTAGE_FILE, _montage(images[:_MOST_ROWS]))
    report = patterns.report
    page = PatternsPage(
        title=title,
        lead=_LEAD,
        reference=REFERENCE,
        images_judged=len(images),
        images_fitted=report.images,
        layers=len(patterns),
        degenerate=(_count(report.degenerate_units), units_of(patterns)),
        unstable=_count(report.unstable_units),
        patch=degraded.patch,
        methods=[_row(name, found) for name, found in summary["methods"].items()],
        degradation=curves,
        images=images,
        left_out=maps.left_out,
        notes=notes,
        skipped=skipped,
        settings={**settings, **files.versions()},
        links={
            "All numbers of this page, as JSON": files.RESULTS_FILE,
            "Every point of every curve, as CSV": files.CURVES_FILE,
            "The images side by side, as PNG": MONTAGE_FILE,
            "The maps, as PNG": f"{files.MAPS_FOLDER}/",
        },
    )
    path = folder / files.PAGE_FILE
    files.write_text(path, render_patterns(page))
    return path


def _numbers(index: int, subject: Subject, maps: Maps, degraded: Degraded) -> dict[str, Any]:
    truth = subject.truth
    return {
        "name": subject.names[index],
        "predicted": subject.class_name(int(maps.predicted[index])),
        "true": None if truth is None else subject.class_name(int(truth[index])),
        "probability": float(maps.probabilities[index]),
        "logit": float(maps.logits[index]),
        "attributed": float(maps.attributions[ATTRIBUTIONS["pattern-attribution"]][index].sum()),
        "delta": float(maps.deltas[index]),
        "aopc": {name: float(degraded.aopc(name)[index]) for name in degraded.curves},
    }


def _image(
    folder: Path, index: int, found: Mapping[str, Any], subject: Subject, maps: Maps
) -> PatternsImage:
    stem = files.file_stem(index, found["name"])
    drawn: dict[str, PatternsMap] = {}
    for kinds, group, draw in (
        (SIGNALS, maps.signals, signal_png),
        (ATTRIBUTIONS, maps.attributions, attribution_png),
    ):
        for kind, name in kinds.items():
            if name in group:
                png = draw(group[name][index])
                files.write_bytes(folder / files.MAPS_FOLDER / f"{stem}--{kind}.png", png)
                drawn[name] = PatternsMap(name, png, found["aopc"].get(name))
    return PatternsImage(
        name=found["name"],
        picture=picture_png(subject.pictures[index]),
        predicted=found["predicted"],
        probability=found["probability"],
        logit=found["logit"],
        attributed=found["attributed"],
        truth=found["true"],
        signals=[drawn[name] for name in maps.signals],
        attributions=[drawn[name] for name in maps.attributions],
    )


def _montage(images: list[PatternsImage]) -> bytes:
    first = images[0]
    columns = ["Image", *(each.name for each in (*first.signals, *first.attributions))]
    rows = {}
    for image in images:
        name = f"{image.name}: {image.predicted}"
        shown = (*image.signals, *image.attributions)
        rows[name] = [image.picture, *(each.png for each in shown)]
    return montage_png(rows, columns)


def _method(name: str, degraded: Degraded) -> dict[str, Any]:
    areas = degraded.aopc(name)
    difference = None
    if name != REFERENCE:
        difference = asdict(paired_difference(areas, degraded.aopc(REFERENCE)))
    return {"aopc": float(areas.mean()), "aopc_difference": difference}


def _row(name: str, found: Mapping[str, Any]) -> DegradationSummary:
    difference = found["aopc_difference"]
    shown = None if difference is None else Difference(**difference)
    return DegradationSummary(name, found["aopc"], shown)


def _count(units: Mapping[str, list[int]]) -> int:
    return sum(len(each) for each in units.values())


def _write_curves(path: Path, subject: Subject, degraded: Degraded) -> None:
    """Write every point as a row: image, method, patches, score."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(("image", "method", "patches", "score"))
    for method, scores in degraded.curves.items():
        for name, points in zip(subject.names, scores.tolist(), strict=True):
            rows.writerows(
                (name, method, degraded.every * step, f"{score:.6g}")
                for step, score in enumerate(points)
            )
    files.write_text(path, text.getvalue())
