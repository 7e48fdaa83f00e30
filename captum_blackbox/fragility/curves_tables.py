"""Fragility curves as Markdown, CSV and JSON."""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from captum_blackbox.artifacts import check_header, replaced_on_success, write_table
from captum_blackbox.errors import ArtifactError
from captum_blackbox.fragility.curves_result import (
    KIND,
    MEASURES,
    FragilityCurves,
    curves_of,
    header_of,
    radius_name,
)
from captum_blackbox.fragility.transfer import TRANSFERRED
from captum_blackbox.statistics.bootstrap import Estimate

_MISSING = "–"
_FEW_IMAGES = 10
_SHOWN = {
    "intersection": "Share of the most important pixels in common with the clean image (lower: "
    "more fragile)",
    "rank_correlation": "Rank correlation with the clean explanation (lower: more fragile)",
    "center_shift": "Shift of the centre of mass in pixels (higher: more fragile)",
}


def markdown(curves: FragilityCurves) -> str:
    """Return tables of means with intervals, of what is visible, of transfer and failures."""
    lead = (
        f"Means over {_counted(curves)} with 95 % bootstrap intervals: all images whose clean "
        "prediction is their label. An attack that failed counts with its clean value."
    )
    parts = [lead]
    parts += [_measure(curves, name, title) for name, title in _SHOWN.items()]
    parts.append(_visible(curves))
    if curves.judges:
        parts += [_transfer(curves, name) for name in ("intersection", "rank_correlation")]
    if curves.images < _FEW_IMAGES:
        parts.append(f"Only {curves.images} images: such intervals are too narrow for a verdict.")
    parts.append(_failures(curves))
    return "\n\n".join(part for part in parts if part) + "\n"


def write_csv(curves: FragilityCurves, path: str | Path) -> None:
    """Write a row for each method, judge, mode, radius, measure and image."""
    columns = ["method", "judge", "mode", "radius", "measure", "image", "value"]
    write_table(path, [columns, *_numbers(curves)])


def as_dict(curves: FragilityCurves) -> dict[str, Any]:
    """Return everything as what JSON can hold; numbers by image, and their means."""
    rows = []
    for method, judge, mode, radius in _cells(curves):
        measures = MEASURES if judge is None else TRANSFERRED
        at: dict[str, Any] = {"mode": mode, "radius": radius, "judge": judge}
        numbers = {name: curves.scores(method, name, **at) for name in measures}
        known = {name: each for name, each in numbers.items() if bool(each.isfinite().any())}
        means = {name: asdict(curves.mean(method, name, **at)) for name in known}
        values = {
            name: [value if math.isfinite(value) else None for value in each.tolist()]
            for name, each in known.items()
        }
        rows.append({"method": method, **at, "means": means, "values": values})
    return {**KIND, **header_of(curves), "images": curves.images, "rows": rows}


def write_json(curves: FragilityCurves, path: str | Path) -> None:
    """Write everything to a file."""
    with replaced_on_success(path) as temporary:
        temporary.write_text(json.dumps(as_dict(curves), indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> FragilityCurves:
    """Read what :func:`write_json` wrote.

    Raises:
        ArtifactError: There is no such file, or it is something else.
    """
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read fragility curves from {str(path)!r}: {error}") from error
    check_header(path, found if isinstance(found, dict) else {}, KIND)
    cells = [len(found[name]) for name in ("methods", "judges", "modes", "radii")]
    methods, judges, modes, radii = cells
    count = found["images"]
    none: dict[str, Any] = {"dtype": torch.float64, "fill_value": torch.nan}
    values = torch.full((methods, modes, radii, len(MEASURES), count), **none)
    transfer = torch.full((methods, judges, modes, radii, len(TRANSFERRED), count), **none)
    curves = curves_of(found, values, transfer)
    for row in found["rows"]:
        at = {"mode": row["mode"], "radius": row["radius"], "judge": row["judge"]}
        for name, numbers in row["values"].items():
            known = [math.nan if number is None else number for number in numbers]
            curves.scores(row["method"], name, **at).copy_(torch.tensor(known, dtype=torch.float64))
    return curves


def _numbers(curves: FragilityCurves) -> Iterator[list[object]]:
    for method, judge, mode, radius in _cells(curves):
        for measure in MEASURES if judge is None else TRANSFERRED:
            scores = curves.scores(method, measure, mode=mode, radius=radius, judge=judge)
            for image, value in enumerate(scores.tolist()):
                shown = value if math.isfinite(value) else ""
                yield [method, judge or "", mode, radius, measure, image, shown]


def _cells(curves: FragilityCurves) -> Iterator[tuple[str, str | None, str, float]]:
    """Go through method, judge (``None``: the network itself), mode and radius."""
    judges: tuple[str | None, ...] = (None, *curves.judges)
    return itertools.product(curves.methods, judges, curves.modes, curves.radii)


def _counted(curves: FragilityCurves) -> str:
    known = curves.values[:, :, :, MEASURES.index("intersection")].isfinite().sum(-1)
    counts = sorted({int(count) for count in known.flatten().tolist()})
    if len(counts) == 1:
        return f"{counts[0]} images"
    return f"{counts[0]} to {counts[-1]} images"


def _measure(curves: FragilityCurves, measure: str, title: str) -> str:
    rows = [
        [
            method,
            mode,
            *(_interval(curves.mean(method, measure, mode=mode, radius=r)) for r in curves.radii),
        ]
        for method, mode in itertools.product(curves.methods, curves.modes)
    ]
    return f"{title}.\n\n{_table(['method', 'objective', *_radii(curves)], rows)}"


def _visible(curves: FragilityCurves) -> str:
    rows = []
    for method, mode in itertools.product(curves.methods, curves.modes):
        cells = []
        for radius in curves.radii:
            ssim, moved, sure = (
                curves.mean(method, name, mode=mode, radius=radius).mean
                for name in ("ssim", "success", "confidence")
            )
            cells.append(f"{_number(ssim)} / {_number(moved)} / {_number(sure)}")
        rows.append([method, mode, *cells])
    title = (
        "How visible: SSIM with the clean image (1 is the same) / share of images that the attack "
        "moved / confidence afterwards"
    )
    return f"{title}.\n\n{_table(['method', 'objective', *_radii(curves)], rows)}"


def _transfer(curves: FragilityCurves, measure: str) -> str:
    rows = []
    for method, judge, mode in itertools.product(curves.methods, curves.judges, curves.modes):
        cells = []
        for radius in curves.radii:
            at: dict[str, Any] = {"mode": mode, "radius": radius, "judge": judge}
            kept = curves.mean(method, "label_kept", **at).mean
            cells.append(f"{_interval(curves.mean(method, measure, **at))}, {_number(kept)}")
        rows.append([f"{method} → {judge}", mode, *cells])
    name = measure.replace("_", " ")
    title = f"Transfer: {name} of the other network's explanation, and how often it keeps its label"
    return f"{title}.\n\n{_table(['attacked → judged', 'objective', *_radii(curves)], rows)}"


def _failures(curves: FragilityCurves) -> str:
    if not curves.failures:
        return ""
    rows = [
        [each.method, each.mode, radius_name(each.radius), ", ".join(map(str, each.images)),
         each.reason]
        for each in curves.failures
    ]  # fmt: skip
    columns = ["method", "objective", "radius", "images", "why"]
    return f"Without a number.\n\n{_table(columns, rows)}"


def _radii(curves: FragilityCurves) -> list[str]:
    return [radius_name(radius) for radius in curves.radii]


def _interval(found: Estimate) -> str:
    if found.images == 0:
        return _MISSING
    return f"{_number(found.mean)} [{_number(found.low)}, {_number(found.high)}]"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return _MISSING
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(each) for each in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
