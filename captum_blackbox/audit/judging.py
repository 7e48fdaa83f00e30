"""Maps by every method, judged by the metrics of ``compare``, and kept as they come."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from captum_blackbox.artifacts import load_artifact, save_artifact
from captum_blackbox.audit.kept import digest_of
from captum_blackbox.audit.methods import AuditMethod
from captum_blackbox.audit.workplace import Workplace
from captum_blackbox.compare import (
    Comparison,
    DegradationArea,
    Deletion,
    Infidelity,
    Insertion,
    Localisation,
    Method,
    Metric,
    compare,
)
from captum_blackbox.errors import ArtifactError

FAITHFULNESS = ("deletion", "insertion", "degradation", "infidelity")
"""Metrics that ask whether a map is faithful to the model."""

_BRIGHTEST = 0.995  # of the pixels: brighter ones are drawn like it


def judged(place: Workplace, methods: Mapping[str, AuditMethod], predicted: Tensor) -> Comparison:
    """Explain every image by every method and judge the maps; what is kept is not done again.

    Args:
        place: The model and the images.
        methods: Name → method.
        predicted: The class to explain of each image, ``(N,)``.
    """
    objects = place.images.objects
    return compare(
        place.box if place.model is None else place.model,
        place.images.inputs,
        {name: partial(_remembered, place=place, method=each) for name, each in methods.items()},
        _metrics(place),
        target=predicted.tolist(),
        masks=objects,
        names=place.images.names,
        seed=place.seed,
        resume=place.kept.path(f"comparison-{_names(methods)}"),
        output=place.box.output,
        batch_size=place.batch_size,
        show_progress=place.show_progress,
    )


def _metrics(place: Workplace) -> list[Metric]:
    budget = place.budget
    height, width = place.example.shape[2:]
    step = max(1, -(-height * width // budget.game_steps))
    found: list[Metric] = [
        Deletion(step=step),
        Insertion(step=step),
        DegradationArea(steps=budget.patches),
        Infidelity(samples=budget.changes),
    ]
    if place.images.objects is not None:
        found += [Localisation("pointing_game"), Localisation("relevance_rank")]
    return found


def _remembered(_model: object, *, place: Workplace, method: AuditMethod) -> Method:
    """Return a method whose maps are kept on disk, one file for each image."""
    made = method.made(place)
    known: dict[str, list[int]] = {}  # an image may be there twice
    for row, image in enumerate(place.images.inputs):
        known.setdefault(digest_of(image), []).append(row)

    def explain(inputs: Tensor, targets: Tensor) -> Tensor:
        maps = made(inputs, targets)
        for image, each in zip(inputs, maps, strict=True):
            for row in known.get(digest_of(image), ()):  # none of an image that a metric changed
                save_artifact(_path(place, method, row), {"map": each}, _header(row))
        return maps

    return replace(made, explain=explain)


def kept_map(place: Workplace, method: AuditMethod, row: int) -> Tensor | None:
    """Return the map of an image, ``(channels, H, W)``, or ``None`` if there is none."""
    try:
        tensors, _ = load_artifact(_path(place, method, row))
    except ArtifactError:
        return None
    found = tensors["map"]
    return found if bool(found.isfinite().all()) else None


def heat_of(method: AuditMethod, found: Tensor) -> Tensor:
    """Return a map ``(channels, H, W)`` as what is drawn, ``(H, W)``: signs kept, channels summed.

    Few pixels of a gradient would dim all others: those above the 99.5th percentile look like it.
    """
    heat = found.float().sum(0)
    top = float(heat.flatten().quantile(_BRIGHTEST))
    floor = float(heat.min()) if method.floor == "minimum" else 0.0
    return heat.clamp(max=top) if top > floor else heat


def _path(place: Workplace, method: AuditMethod, row: int) -> Path:
    return place.kept.path(f"map-{method.stem}-{row:04d}")


def _header(row: int) -> Mapping[str, Any]:
    return {"kind": "map", "image": row}


def _names(methods: Mapping[str, AuditMethod]) -> str:
    stems = ",".join(each.stem for each in methods.values())
    return hashlib.sha256(stems.encode()).hexdigest()[:6]
