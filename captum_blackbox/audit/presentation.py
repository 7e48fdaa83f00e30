"""The page of an audit, and the files beside it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from captum_blackbox.artifacts import replaced_on_success, versions
from captum_blackbox.audit.auditing import Audit
from captum_blackbox.audit.axioms import AXIOMS, DEMANDS
from captum_blackbox.audit.evidence import METRIC_NAMES
from captum_blackbox.audit.judging import FAITHFULNESS
from captum_blackbox.audit.methods import RANDOM
from captum_blackbox.audit.pictures import attacked_maps, audited_images
from captum_blackbox.audit.verdicts import Grade
from captum_blackbox.dissection.units import Unit
from captum_blackbox.errors import InputError
from captum_blackbox.report.audit_page import (
    AuditPage,
    AxiomRow,
    FragilityRow,
    MethodVerdict,
    MetricCell,
    MetricColumn,
    render_audit,
)
from captum_blackbox.report.compare import ranks_png
from captum_blackbox.report.comparison import FEW_IMAGES
from captum_blackbox.report.html import verdict as better_or_worse

PAGE_FILE = "report.html"
RESULTS_FILE = "audit.json"
COMPARISON_FILES = "comparison.csv", "comparison.json"
FRAGILITY_FILES = "fragility.csv", "fragility.json"
_LEAD = (
    "Several methods explain what a model looked at, and they do not agree. Each was tested on the "
    "model itself: whether its maps name what the answers hang on, whether an invisible change of "
    "the image moves them, and what is known of the method."
)
_TONES = {
    Grade.SUPPORTED: "good",
    Grade.CARE: "care",
    Grade.UNSUPPORTED: "bad",
    Grade.FAILED: "bad",
    Grade.CONTROL: "none",
}
_MOST_NAMED = 8  # images in a row of failures


def write_audit(
    audit: Audit, out: Path, *, title: str, settings: Mapping[str, str], skipped: Mapping[str, str]
) -> Path:
    """Write the numbers, the pictures and the page; returns the page's path."""
    _write_numbers(audit, out, settings, skipped)
    page = AuditPage(
        title=title,
        lead=_LEAD,
        images_judged=len(audit.images.names),
        verdicts=[_verdict(audit, name) for name in audit.order],
        metrics=[
            MetricColumn(METRIC_NAMES[name].capitalize(), higher)
            for name, higher in audit.comparison.metrics.items()
        ],
        faithful={audit.methods[name].name: _cells(audit, name) for name in audit.order},
        ranks=_ranks(audit),
        fragility=[_fragility(audit, name) for name in audit.order],
        attacked=attacked_maps(audit, out),
        attacked_name=audit.images.names[0],
        axioms={name: DEMANDS[name] for name in AXIOMS},
        axiom_rows=[
            AxiomRow(audit.methods[name].name, list(audit.methods[name].axioms.values()))
            for name in audit.order
            if name != RANDOM
        ],
        images=audited_images(audit, out),
        layer="" if audit.concepts is None else audit.concepts.result.layer,
        detectors=_detectors(audit),
        area=audit.evidence[audit.order[0]].area,
        failures=_failures(audit),
        hidden=max(0, len(audit.images.names) - audit.place.budget.shown),
        notes=_notes(audit),
        skipped=skipped,
        settings={**settings, **versions()},
        links=_links(audit),
    )
    path = out / PAGE_FILE
    _write(path, render_audit(page))
    return path


def _verdict(audit: Audit, name: str) -> MethodVerdict:
    found, evidence = audit.verdicts[name], audit.evidence[name]
    attacks, axioms = evidence.attacks, evidence.axioms
    cost = audit.comparison.cost(name)
    has_tests = bool(evidence.tests)
    return MethodVerdict(
        name=evidence.method,
        grade=found.grade.value,
        tone=_TONES[found.grade],  # type: ignore[arg-type]  # a literal
        because=found.because,
        believe=found.believe,
        passed=(
            (sum(test.is_better for test in evidence.tests), len(evidence.tests))
            if has_tests
            else None
        ),
        left=None if attacks is None or not attacks.is_aimed else attacks.left,
        radius="" if attacks is None else attacks.radius,
        axioms=(sum(axioms.values()), len(axioms)) if axioms else None,
        rank=_known(audit.comparison.overall_ranks[name]),
        passes=(cost.each(cost.forward), cost.each(cost.backward)) if cost.images else None,
    )


def _cells(audit: Audit, name: str) -> list[MetricCell]:
    found = []
    for metric, higher in audit.comparison.metrics.items():
        mean = audit.comparison.mean(name, metric).mean
        difference = None if name == RANDOM else audit.comparison.difference(name, metric, RANDOM)
        says = None
        if difference is not None:
            says = better_or_worse(difference, not higher, len(audit.images.names))
        found.append(MetricCell(_known(mean), difference, says or ""))
    return found


def _ranks(audit: Audit) -> bytes | None:
    comparison = audit.comparison
    shown = [metric for metric in comparison.metrics if metric in FAITHFULNESS]
    ranks = {
        METRIC_NAMES[metric]: {
            audit.methods[name].name: rank for name, rank in comparison.ranks(metric).items()
        }
        for metric in shown
    }
    overall = {audit.methods[name].name: rank for name, rank in comparison.overall_ranks.items()}
    try:
        return ranks_png(ranks, overall)
    except InputError:
        return None  # nothing has a rank


def _fragility(audit: Audit, name: str) -> FragilityRow:
    found, fragility = audit.evidence[name].attacks, audit.fragility
    if found is None:
        reason = fragility.reasons.get(name, "the attack gave no number")
        return FragilityRow(audit.methods[name].name, reason=reason)
    if not found.is_aimed:
        return FragilityRow(
            audit.methods[name].name,
            breaks_at=found.breaks_at,
            radius=found.radius,
            chance=found.left,
            broken=(found.broken, found.images),
            reason=fragility.reasons[name],
        )
    radius = fragility.radii[found.radius]
    mode = min(fragility.aims, key=lambda each: float(fragility.left(name, each, radius).nanmean()))
    curves = fragility.curves[name]
    measures = {
        measure: _known(float(curves.scores(name, measure, mode=mode, radius=radius).nanmean()))
        for measure in ("rank_correlation", "center_shift")
    }
    return FragilityRow(
        audit.methods[name].name,
        breaks_at=found.breaks_at,
        radius=found.radius,
        left=found.left,
        chance=found.chance,
        rank_correlation=measures["rank_correlation"],
        center_shift=measures["center_shift"],
        broken=(found.broken, found.images),
    )


def _detectors(audit: Audit) -> tuple[int, int]:
    if audit.concepts is None:
        return 0, 0
    units: list[Unit] = list(audit.concepts.result.units())
    return len(audit.concepts.result.detectors()), len(units)


def _failures(audit: Audit) -> list[tuple[str, str, str]]:
    """Return what gave no number, on which images, and why; what failed alike stands together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row, reason in audit.answers.lost.items():
        groups.setdefault(("the model", reason), []).append(audit.everything.names[row])
    for each in audit.comparison.failures:
        metric = "" if each.metric is None else f", {METRIC_NAMES[each.metric]}"
        image = "all" if each.image is None else audit.images.names[each.image]
        key = f"{audit.methods[each.method].name}{metric}", each.reason
        groups.setdefault(key, []).append(image)
    for name, curves in audit.fragility.curves.items():
        for failure in curves.failures:
            key = f"{audit.methods[name].name}, attack", failure.reason
            groups.setdefault(key, []).extend(audit.images.names[row] for row in failure.images)
    return [(what, _named(images), reason) for (what, reason), images in groups.items()]


def _named(images: list[str]) -> str:
    names = list(dict.fromkeys(images))
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _notes(audit: Audit) -> list[str]:
    notes, count = [], len(audit.images.names)
    if audit.answers.lost:
        lost = len(audit.answers.lost)
        notes.append(
            f"The model failed on {'1 image' if lost == 1 else f'{lost} images'}, which "
            f"{'is' if lost == 1 else 'are'} left out; see “Without a number”."
        )
    if count < FEW_IMAGES:
        notes.append(
            f"Only {'1 image was' if count == 1 else f'{count} images were'} judged, which cannot "
            "show much: intervals over so few are too narrow, and no method is graded higher than "
            "“believe with care”."
        )
    for note in audit.comparison.notes:
        names = [name for name in audit.methods if note.startswith(f"{name}: ")]
        name = max(names, key=len)
        text = note.removeprefix(f"{name}: ").rstrip(".")
        notes.append(f"{audit.methods[name].name}: {text}.")
    if audit.agreement is not None:
        notes.append(
            f"The student that stands in for the model agrees with it on "
            f"{100 * audit.agreement:.0f}\N{NO-BREAK SPACE}% of the images that it was judged on. "
            "Its maps explain the model only as far as that goes."
        )
    return notes


def _links(audit: Audit) -> dict[str, str]:
    links = {
        "Everything as JSON": RESULTS_FILE,
        "Metrics by image as CSV": COMPARISON_FILES[0],
        "Metrics, costs and seconds as JSON": COMPARISON_FILES[1],
    }
    if audit.fragility.curves:
        links |= {
            "Attacks by image as CSV": FRAGILITY_FILES[0],
            "Attacks as JSON": FRAGILITY_FILES[1],
        }
    return links


def _write_numbers(
    audit: Audit, out: Path, settings: Mapping[str, str], skipped: Mapping[str, str]
) -> None:
    audit.comparison.to_csv(out / COMPARISON_FILES[0])
    audit.comparison.to_json(out / COMPARISON_FILES[1])
    together = audit.fragility.together(audit.methods)
    if together is not None:
        together.to_csv(out / FRAGILITY_FILES[0])
        together.to_json(out / FRAGILITY_FILES[1])
    images = audit.images
    summary = {
        "format": 1,
        "settings": dict(settings),
        "versions": versions(),
        "methods": [
            {
                "key": name,
                **asdict(audit.evidence[name]),
                "grade": audit.verdicts[name].grade.name.lower(),
                "because": audit.verdicts[name].because,
                "believe": audit.verdicts[name].believe,
            }
            for name in audit.order
        ],
        "images": [
            {
                "name": name,
                "predicted": images.class_name(int(audit.answers.predicted[row])),
                "probability": float(audit.answers.probability[row]),
                "true": (
                    None if images.truth is None else images.class_name(int(images.truth[row]))
                ),
            }
            for row, name in enumerate(images.names)
        ],
        "concepts": _concepts(audit),
        "student_agreement": audit.agreement,
        "without_a_number": [list(each) for each in _failures(audit)],
        "skipped": dict(skipped),
    }
    text = json.dumps(_without_nan(summary), indent=1, ensure_ascii=False, allow_nan=False)
    _write(out / RESULTS_FILE, text + "\n")


def _concepts(audit: Audit) -> list[dict[str, Any]] | None:
    if audit.concepts is None:
        return None
    return [
        {
            "image": name,
            "layer": each.layer,
            "score": float(each.scores[0]),
            "bias": float(each.bias[0]),
            "is_exact": bool(each.is_exact[0]),
            "concepts": [
                {"concept": concept, "contribution": value, "units": list(units)}
                for concept, value, units in each.ranked(0)
            ],
        }
        for name, each in zip(audit.images.names, audit.concepts.explanations, strict=False)
    ]


def _write(path: Path, text: str) -> None:
    with replaced_on_success(path) as temporary:
        temporary.write_text(text, "utf-8")


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
