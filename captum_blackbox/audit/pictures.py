"""What an audit draws, with the numbers of each picture, as files and for the page."""

import math
import re
from pathlib import Path

import torch

from captum_blackbox.artifacts import replaced_on_success
from captum_blackbox.audit.auditing import Audit
from captum_blackbox.audit.judging import heat_of, kept_map
from captum_blackbox.audit.methods import RANDOM
from captum_blackbox.report.attacked import Moved, change_png, factor_name, importance_png
from captum_blackbox.report.audit_page import AttackedMap, AuditedImage, AuditMap, ConceptTerms
from captum_blackbox.report.contributions import contribution_rows
from captum_blackbox.report.html import number, percent
from captum_blackbox.report.overlay import overlay_png, picture_png
from captum_blackbox.report.units import shown_name

MAPS_FOLDER = "maps"
_UNITS = 5  # shown of each image
_EDGE = 192  # pixels of a map on the page


def audited_images(audit: Audit, out: Path) -> list[AuditedImage]:
    """Draw the first images with all their maps, and write these as PNG."""
    shown = range(min(audit.place.budget.shown, len(audit.images.names)))
    return [_image(audit, out, row) for row in shown]


def attacked_maps(audit: Audit, out: Path) -> list[AttackedMap]:
    """Draw one image before and after the attack on each method, and write that as PNG."""
    found, images = [], audit.images
    for name in audit.order:
        each = audit.fragility.pictures.get(name)
        if each is None:
            continue
        moved = Moved(
            images.pictures[each.row],
            images.pictured(each.inputs[None])[0],
            each.clean_map,
            each.attacked_map,
        )
        pictures = {
            "explanation": importance_png(moved.clean_map, edge=_EDGE),
            "after": importance_png(moved.attacked_map, edge=_EDGE),
            "image": picture_png(moved.attacked, edge=_EDGE),
            "change": change_png(moved, edge=_EDGE),
        }
        links = {}
        for kind, png in pictures.items():
            address = f"{MAPS_FOLDER}/attacked--{audit.methods[name].stem}--{kind}.png"
            _write(out / address, png)
            links[kind] = address
        found.append(
            AttackedMap(
                audit.methods[name].name,
                pictures["explanation"],
                pictures["after"],
                pictures["image"],
                pictures["change"],
                factor_name(moved.amplification),
                each.left,
                links,
            )
        )
    return found


def _image(audit: Audit, out: Path, row: int) -> AuditedImage:
    images, answers = audit.images, audit.answers
    truth = None if images.truth is None else images.class_name(int(images.truth[row]))
    return AuditedImage(
        name=images.names[row],
        picture=picture_png(images.pictures[row], edge=_EDGE),
        predicted=images.class_name(int(answers.predicted[row])),
        probability=float(answers.probability[row]),
        truth=truth,
        maps=[_map(audit, out, row, name) for name in audit.order if name != RANDOM],
        concepts=_terms(audit, row),
    )


def _map(audit: Audit, out: Path, row: int, name: str) -> AuditMap:
    method = audit.methods[name]
    kept = kept_map(audit.place, method, row)
    if kept is None:
        reasons = [
            each.reason
            for each in audit.comparison.failures
            if each.method == name and each.metric is None and each.image in {None, row}
        ]
        return AuditMap(method.name, None, {}, reasons[0] if reasons else "unknown")
    png = overlay_png(
        audit.images.pictures[row], heat_of(method, kept), edge=_EDGE, floor=method.floor
    )
    address = f"{MAPS_FOLDER}/{_stem(row, audit.images.names[row])}--{method.stem}.png"
    _write(out / address, png)
    return AuditMap(method.name, png, _numbers(audit, row, name), links={"PNG": address})


def _numbers(audit: Audit, row: int, name: str) -> dict[str, str]:
    found = {}
    for metric in ("deletion", "insertion"):
        value = float(audit.comparison.scores(name, metric)[row])
        found[metric] = number(value if math.isfinite(value) else None)
    if "relevance_rank" in audit.comparison.metrics:
        value = float(audit.comparison.scores(name, "relevance_rank")[row])
        found["on the cause"] = percent(value if math.isfinite(value) else None)
    attacks = audit.evidence[name].attacks
    if attacks is not None:
        radius = audit.fragility.radii[attacks.radius]
        shares = audit.fragility.weakest(name, radius)
        left = float(shares[row]) if row < len(shares) else math.nan  # it was not attacked
        by = f"left at {attacks.radius}" if attacks.is_aimed else "left by random signs"
        found[by] = percent(left if math.isfinite(left) else None)
    return found


def _terms(audit: Audit, row: int) -> ConceptTerms | None:
    if audit.concepts is None:
        return None
    explanation = audit.concepts.explanations[row]
    contributions = explanation.contributions[0]
    best = torch.argsort(contributions, descending=True, stable=True)[:_UNITS].tolist()
    return ConceptTerms(
        contribution_rows(explanation),
        float(explanation.scores[0]),
        bool(explanation.is_exact[0]),
        [
            (unit, shown_name(explanation.concepts[unit]), float(contributions[unit]))
            for unit in best
        ],
    )


def _stem(row: int, name: str) -> str:
    """Return a harmless file name for an image.

    Example:
        >>> _stem(3, "a/<b> c.png")
        '0003-a-b-c'
    """
    words = re.sub(r"[^A-Za-z0-9]+", "-", str(Path(name).with_suffix(""))).strip("-")[:40]
    return f"{row:04d}-{words}".rstrip("-")


def _write(path: Path, png: bytes) -> None:
    with replaced_on_success(path) as temporary:
        temporary.write_bytes(png)
