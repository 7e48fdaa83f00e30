"""The page of ``attack``, and the files beside it."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_blackbox.cli import results as files
from captum_blackbox.cli.attack_cells import FOLDER, Attacked, Cell, CellNumbers
from captum_blackbox.cli.attack_options import (
    METHODS,
    MODES,
    RANDOM,
    AttackOptions,
    NormName,
    mode_of,
)
from captum_blackbox.cli.attack_pictures import Pictures
from captum_blackbox.cli.attack_verdicts import aims, verdict
from captum_blackbox.cli.run import Subject
from captum_blackbox.fragility.curves_result import MEASURES, FragilityCurves
from captum_blackbox.report import (
    AttackPage,
    AttackRow,
    Difference,
    fragility_png,
    paired_difference,
    picture_png,
    render_attack,
)
from captum_blackbox.report.comparison import FEW_IMAGES

RESULTS_FILE, TABLE_FILE, CURVES_FILE = "attack.json", "attack.csv", "fragility.png"
_LEAD = (
    "Somebody changes an image so little that it looks the same, and the network still gives the "
    "same answer. Does the explanation stay the same? Each explanation was attacked on each "
    "image, and the network as it is judged the result."
)
_NORMS = {
    "Linf": "the largest change of a pixel's value in [0, 1]",
    "L2": "the Euclidean length of the whole change, for values in [0, 1]",
}


@dataclass(frozen=True)
class Findings:
    """All numbers, ready to be written.

    Attributes:
        subject: The images.
        attacked: What came of the attacks.
        options: Of the attacks.
        curves: The numbers by method for the reader, mode of the library and radius.
    """

    subject: Subject
    attacked: Attacked
    options: AttackOptions
    curves: FragilityCurves

    @property
    def k(self) -> int:
        """How many pixels count as most important."""
        return max(each.k for each in self.attacked.numbers.values())

    @property
    def predicted(self) -> Tensor:
        """The clean prediction of each image, which every attack keeps, ``(N,)``."""
        labels = torch.stack([each.label for each in self.attacked.numbers.values()])
        return labels.max(0).values

    @property
    def confidence(self) -> Tensor:
        """The probability of it, ``(N,)``; NaN where every attack raised."""
        clean = MEASURES.index("clean_confidence")
        values = torch.stack([each.values[clean] for each in self.attacked.numbers.values()])
        return values.nanmean(0)

    def class_name(self, image: int) -> str:
        """Return the prediction on an image."""
        label = int(self.predicted[image])
        return "unknown" if label < 0 else self.subject.class_name(label)

    def truth(self, image: int) -> str | None:
        """Return the true class of an image, if it is known."""
        truth = self.subject.truth
        return None if truth is None else self.subject.class_name(int(truth[image]))


def write_attack(
    folder: Path,
    subject: Subject,
    attacked: Attacked,
    options: AttackOptions,
    *,
    title: str,
    skipped: Mapping[str, str],
    settings: Mapping[str, str],
) -> Path:
    """Write the numbers, the pictures and the page; returns the page's path.

    Args:
        folder: Where.
        subject: The images.
        attacked: What came of the attacks.
        options: Of the attacks.
        title: Of the page.
        skipped: File → why it was left out.
        settings: What was run.
    """
    findings = Findings(subject, attacked, options, _curves(attacked, options))
    verdicts = [
        verdict(
            findings.curves, METHODS[method], options, findings.k, _region_before(attacked, method)
        )
        for method in _methods(attacked)
    ]
    rows = [_row(findings, cell) for cell in attacked.numbers]
    summary = {
        "format": 1,
        "settings": dict(settings),
        "versions": files.versions(),
        "k": findings.k,
        "methods": [_without_nan(asdict(each)) for each in verdicts],
        "attacks": [_without_nan(asdict(row)) for row in rows],
        "images": [_image(findings, image) for image in range(len(subject.names))],
        "left_out": dict(attacked.left_out),
        "skipped": dict(skipped),
    }
    files.write_json(folder / RESULTS_FILE, summary)
    _write_table(folder / TABLE_FILE, findings)
    drawn = None
    if len(options.radii) > 1 and options.norm is NormName.LINF:  # it counts in parts of 255
        drawn = fragility_png(findings.curves)
        files.write_bytes(folder / CURVES_FILE, drawn)
    pictures = Pictures(folder, findings.subject, attacked, options, findings.curves)
    images = pictures.drawn(
        findings.confidence, [findings.class_name(i) for i in range(len(subject.names))]
    )
    aimed = [row for row in rows if row.mode in {MODES[mode] for mode in aims(options.modes)}]
    least = min(aimed, key=lambda row: row.confidence[1])
    region = attacked.kept.region
    page = AttackPage(
        title=title,
        lead=_LEAD,
        images_judged=len(subject.names),
        k=findings.k,
        pixels=subject.inputs[0, 0].numel(),
        radius_means=_NORMS[options.norm.value],
        steps=options.steps,
        verdicts=verdicts,
        visibility=_visibility(aimed, options.radii[-1].text),
        confidence=least.confidence,
        rows=rows,
        curves=drawn,
        images=images,
        hidden=len(subject.names) - len(images),
        region=None if region is None else picture_png(region[None]),
        left_out=attacked.left_out,
        notes=_notes(findings),
        skipped=skipped,
        settings={**settings, **files.versions()},
        links=_links(has_curves=drawn is not None),
    )
    path = folder / files.PAGE_FILE
    files.write_text(path, render_attack(page))
    return path


def _methods(attacked: Attacked) -> list[str]:
    return list(dict.fromkeys(cell.method for cell in attacked.numbers))


def _region_before(attacked: Attacked, method: str) -> float | None:
    """Return the mean share of the importance in the region of clean images, if there is one."""
    numbers = [each for cell, each in attacked.numbers.items() if cell.method == method]
    return _known(float(torch.stack([each.region_before for each in numbers]).nanmean()))


def _curves(attacked: Attacked, options: AttackOptions) -> FragilityCurves:
    methods, numbers = _methods(attacked), attacked.numbers
    values = [
        [[numbers[Cell(m, mode, r)].values for r in options.radii] for mode in options.modes]
        for m in methods
    ]
    return FragilityCurves(
        tuple(METHODS[method] for method in methods),
        tuple(map(mode_of, options.modes)),
        tuple(radius.value for radius in options.radii),
        torch.stack([torch.stack([torch.stack(each) for each in mode]) for mode in values]),
    )


def _row(findings: Findings, cell: Cell) -> AttackRow:
    curves, method, numbers = findings.curves, METHODS[cell.method], findings.attacked.numbers[cell]
    values = dict(zip(MEASURES, numbers.values, strict=True))
    mean = {name: float(each.nanmean()) for name, each in values.items()}
    difference: Difference | None = None
    if RANDOM in findings.options.modes and cell.mode != RANDOM:
        chance = curves.scores(method, "intersection", mode=RANDOM, radius=cell.radius.value)
        both = (values["intersection"] + chance).isfinite()
        if bool(both.any()):
            difference = paired_difference(values["intersection"][both], chance[both])
    return AttackRow(
        method=method,
        mode=MODES[cell.mode],
        radius=cell.radius.text,
        intersection=curves.mean(
            method, "intersection", mode=mode_of(cell.mode), radius=cell.radius.value
        ),
        difference=difference,
        rank_correlation=mean["rank_correlation"],
        center_shift=mean["center_shift"],
        region_mass=_region(
            _known(float(numbers.region_before.nanmean())), _known(mean["region_mass"])
        ),
        confidence=(mean["clean_confidence"], mean["confidence"]),
        ssim=_known(mean["ssim"]),
        moved=(int(values["success"].nansum()), int(values["success"].isfinite().sum())),
    )


def _image(findings: Findings, image: int) -> dict[str, Any]:
    return {
        "name": findings.subject.names[image],
        "predicted": findings.class_name(image),
        "probability": _known(float(findings.confidence[image])),
        "true": findings.truth(image),
        "attacks": [
            {
                "method": cell.method,
                "mode": cell.mode,
                "radius": cell.radius.text,
                **{name: _known(value) for name, value in _values(numbers, image)},
                "best_step": int(numbers.best_step[image]),
                "reason": numbers.reasons[image],
            }
            for cell, numbers in findings.attacked.numbers.items()
        ],
    }


def _values(numbers: CellNumbers, image: int) -> Iterator[tuple[str, float]]:
    return zip(MEASURES, numbers.values[:, image].tolist(), strict=True)


def _write_table(path: Path, findings: Findings) -> None:
    """Write a row for each attack on each image."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(
        ("image", "predicted", "method", "mode", "radius", *MEASURES, "best_step", "reason")
    )
    for cell, numbers in findings.attacked.numbers.items():
        for image, name in enumerate(findings.subject.names):
            values = [f"{v:.6g}" if math.isfinite(v) else "" for _, v in _values(numbers, image)]
            step, reason = int(numbers.best_step[image]), numbers.reasons[image]
            predicted = findings.class_name(image)
            rows.writerow((name, predicted, cell.method, cell.mode, cell.radius.text, *values,
                           step, reason))  # fmt: skip
    files.write_text(path, text.getvalue())


def _visibility(rows: Sequence[AttackRow], radius: str) -> tuple[str, float | None]:
    """Return a radius and the least mean SSIM of its attacks."""
    known = [row.ssim for row in rows if row.radius == radius and row.ssim is not None]
    return radius, min(known, default=None)


def _notes(findings: Findings) -> list[str]:
    notes, subject = [], findings.subject
    if len(subject.names) < FEW_IMAGES:
        were = "1 image was" if len(subject.names) == 1 else f"{len(subject.names)} images were"
        notes.append(f"Only {were} attacked: what holds for them may not hold for others.")
    if aims(findings.options.modes) == [RANDOM]:
        notes.append("Nothing was aimed at: random signs are no attack, only the floor of one.")
    for name, reason in _raised(findings).items():
        notes.append(f"{name} could not be attacked everywhere, and is missing there: {reason}")
    return notes


def _raised(findings: Findings) -> dict[str, str]:
    """Return image → why an attack on it raised."""
    found = {}
    for numbers in findings.attacked.numbers.values():
        for image in (numbers.label < 0).nonzero().flatten().tolist():
            found[findings.subject.names[image]] = numbers.reasons[image]
    return found


def _links(*, has_curves: bool) -> dict[str, str]:
    links = {
        "All numbers of this page, as JSON": RESULTS_FILE,
        "Every attack on every image, as CSV": TABLE_FILE,
        "Attacked images: exact as safetensors, rounded to 8 bits as PNG": f"{FOLDER}/",
        "Before and after, side by side, as PNG": f"{files.MAPS_FOLDER}/",
    }
    if has_curves:
        links["Fragility over the radius, as PNG"] = CURVES_FILE
    return links


def _region(before: float | None, after: float | None) -> tuple[float, float] | None:
    return None if before is None or after is None else (before, after)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _without_nan(found: Any) -> Any:  # noqa: ANN401 - as deep as JSON
    if isinstance(found, dict):
        return {name: _without_nan(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [_without_nan(value) for value in found]
    return _known(found) if isinstance(found, float) else found
