"""All numbers about a method, gathered for its verdict."""

from collections.abc import Mapping

from torch import Tensor

from captum_blackbox.audit.attacking import HALF, RANDOM_MODE, Fragility
from captum_blackbox.audit.judging import FAITHFULNESS
from captum_blackbox.audit.methods import RANDOM, AuditMethod
from captum_blackbox.audit.verdicts import Attacks, Evidence, Gain
from captum_blackbox.compare import Comparison

METRIC_NAMES: Mapping[str, str] = {
    "deletion": "deletion",
    "insertion": "insertion",
    "degradation": "patch degradation",
    "infidelity": "infidelity",
    "pointing_game": "pointing game",
    "relevance_rank": "top pixels on the true cause",
}
"""Name of a metric → for the reader."""


def evidence_of(
    name: str,
    method: AuditMethod,
    comparison: Comparison,
    fragility: Fragility,
    objects: Tensor | None,
    agreement: float | None,
) -> Evidence:
    """Return what a verdict on a method follows from.

    Args:
        name: Of a method.
        method: The method.
        comparison: Has it, and the random maps.
        fragility: Of the attacks.
        objects: Where the true cause lies, if known.
        agreement: Of its student, if it has one.
    """
    row = comparison.methods.index(name)
    mapped = int(comparison.values[row].isfinite().any(0).sum())
    located = None
    if "relevance_rank" in comparison.metrics and mapped:
        located = float(comparison.scores(name, "relevance_rank").nanmean())
    return Evidence(
        method.name,
        images=mapped,
        tests=[] if name == RANDOM else gains(comparison, name),
        attacks=attacks_on(fragility, name),
        not_attacked=fragility.reasons.get(name, ""),
        axioms=method.axioms,
        located=located,
        area=None if objects is None else float(objects.double().mean()),
        failure="" if mapped else _why(comparison, name),
        is_control=name == RANDOM,
        agreement=agreement,
    )


def gains(comparison: Comparison, method: str) -> list[Gain]:
    """Return how much better than random maps a method is, by each metric with a number."""
    found = []
    for metric in FAITHFULNESS:
        difference = comparison.difference(method, metric, RANDOM)
        if difference is None:
            continue
        if comparison.metrics[metric]:
            ends = difference.low, difference.high
        else:
            ends = -difference.high, -difference.low
        mean = difference.mean if comparison.metrics[metric] else -difference.mean
        found.append(Gain(METRIC_NAMES[metric], mean, *ends))
    return found


def attacks_on(fragility: Fragility, method: str) -> Attacks | None:
    """Return what attacks did to a method, at the smallest radius that breaks it."""
    if method not in fragility.curves and method not in fragility.shaken:
        return None
    is_aimed = method in fragility.curves and fragility.aims != [RANDOM_MODE]
    breaks_at, radius = None, list(fragility.radii)[-1]
    for text, value in fragility.radii.items():
        left = fragility.weakest(method, value)
        known = left[left.isfinite()]
        if len(known) and 2 * int((known < HALF).sum()) >= len(known):
            breaks_at = radius = text
            break
    left = fragility.weakest(method, fragility.radii[radius])
    known = left[left.isfinite()]
    if len(known) == 0:
        return None
    chance = None
    if is_aimed and RANDOM_MODE in fragility.modes:
        chance = _mean(fragility.left(method, RANDOM_MODE, fragility.radii[radius]))
    by_signs, largest = None, list(fragility.radii.values())[-1]
    if method in fragility.shaken:
        by_signs = _mean(fragility.weakest(method, largest))
    elif RANDOM_MODE in fragility.modes:
        by_signs = _mean(fragility.left(method, RANDOM_MODE, largest))
    return Attacks(
        breaks_at,
        radius,
        float(known.mean()),
        chance,
        int((known < HALF).sum()),
        len(known),
        is_aimed=is_aimed,
        by_signs=by_signs,
    )


def _mean(shares: Tensor) -> float | None:
    known = shares[shares.isfinite()]
    return float(known.mean()) if len(known) else None


def _why(comparison: Comparison, method: str) -> str:
    reasons = [each.reason for each in comparison.failures if each.method == method]
    return reasons[0].rstrip(".") if reasons else "nothing says why"
