"""A comparison as Markdown, CSV and JSON."""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from captum_blackbox.artifacts import replaced_on_success, write_table
from captum_blackbox.compare.ranks import Estimate
from captum_blackbox.compare.result import Comparison, Failure
from captum_blackbox.report.comparison import FEW_IMAGES

_MISSING = "–"
_MOST_IMAGES = 8  # named in a row


def markdown(comparison: Comparison, reference: str | None = None) -> str:
    """Return tables of means, differences to a reference method, costs and failures."""
    if reference is None:
        reference = "random" if "random" in comparison.methods else comparison.methods[0]
    parts = [_means(comparison), _differences(comparison, reference), _costs(comparison)]
    if comparison.images < FEW_IMAGES:
        parts.append(
            f"Only {_count(comparison.images)}: intervals over so few are too narrow for a verdict."
        )
    parts += [_failures(comparison), _notes(comparison)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_csv(comparison: Comparison, path: str | Path) -> None:
    """Write a row for each method, metric and image, with its name where it has one."""
    name = ["name"] if comparison.names else []
    columns = ["method", "metric", "image", *name, "target", "value"]
    write_table(path, [columns, *_numbers(comparison)])


def write_json(comparison: Comparison, path: str | Path) -> None:
    """Write everything to a file."""
    with replaced_on_success(path) as temporary:
        temporary.write_text(json.dumps(as_dict(comparison), indent=2, allow_nan=False) + "\n")


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Return everything as what JSON can hold."""
    found: dict[str, Any] = {
        "metrics": {
            name: {"higher_is_better": higher} for name, higher in comparison.metrics.items()
        },
        "images": comparison.images,
        "names": list(comparison.names),
        "targets": comparison.targets.tolist(),
        "methods": {name: _method(comparison, name) for name in comparison.methods},
        "failures": [asdict(failure) for failure in comparison.failures],
        "notes": list(comparison.notes),
        "settings": dict(comparison.settings),
    }
    return _without_nan(found)  # type: ignore[no-any-return]


def _method(comparison: Comparison, name: str) -> dict[str, Any]:
    return {
        "overall_rank": comparison.overall_ranks[name],
        "cost": asdict(comparison.cost(name)),
        "metrics": {
            metric: {
                **asdict(comparison.mean(name, metric)),
                "rank": comparison.ranks(metric)[name],
                "values": comparison.scores(name, metric).tolist(),
            }
            for metric in comparison.metrics
        },
    }


def _numbers(comparison: Comparison) -> Iterator[list[object]]:
    targets = comparison.targets.tolist()
    for method, metric in itertools.product(comparison.methods, comparison.metrics):
        values = comparison.scores(method, metric).tolist()
        for image, (target, value) in enumerate(zip(targets, values, strict=True)):
            name = comparison.names[image : image + 1]
            shown = value if math.isfinite(value) else ""
            yield [method, metric, image, *name, target, shown]


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _means(comparison: Comparison) -> str:
    arrows = [f"{name} {'↑' if higher else '↓'}" for name, higher in comparison.metrics.items()]
    overall = comparison.overall_ranks
    rows = [
        [
            name,
            *(
                _estimate(comparison.mean(name, metric), comparison.images)
                for metric in comparison.metrics
            ),
            _number(overall[name], 2),
        ]
        for name in sorted(comparison.methods, key=lambda each: _last_if_nan(overall[each]))
    ]
    lead = (
        f"Mean over {_count(comparison.images)} with its 95 % bootstrap interval; the rank is the "
        "mean over images and metrics, 1 is best."
    )
    return f"{lead}\n\n{_table(['method', *arrows, 'rank'], rows)}"


def _differences(comparison: Comparison, reference: str) -> str:
    others = [
        name
        for row, name in enumerate(comparison.methods)
        if name != reference and bool(comparison.values[row].isfinite().any())
    ]
    if not others:
        return ""
    rows = [
        [
            name,
            *(_difference(comparison, name, metric, reference) for metric in comparison.metrics),
        ]
        for name in others
    ]
    lead = (
        f"Difference to {_cell(reference)}, paired by image; bold where the interval leaves out 0 "
        f"over {FEW_IMAGES} images or more."
    )
    return f"{lead}\n\n{_table(['method', *comparison.metrics], rows)}"


def _costs(comparison: Comparison) -> str:
    rows = []
    for name in comparison.methods:
        cost = comparison.cost(name)
        each = [cost.each(cost.forward), cost.each(cost.backward)]
        making = _number(cost.making_seconds, 2)
        seconds = _number(cost.each(cost.seconds), 4)
        rows.append([name, *(_number(number, 1) for number in each), seconds, making])
    columns = ["method", "forward", "backward", "seconds", "seconds to make it"]
    return f"Cost of an image, in images passed.\n\n{_table(columns, rows)}"


def _failures(comparison: Comparison) -> str:
    """Return a row for each thing that failed in the same way on some images."""
    groups: dict[tuple[str, str, str], list[int | None]] = {}
    for each in comparison.failures:
        key = (each.method, each.metric or "the map", _reason(each))
        groups.setdefault(key, []).append(each.image)
    if not groups:
        return ""
    rows = [
        [method, metric, _images(images, comparison.names), reason]
        for (method, metric, reason), images in groups.items()
    ]
    return f"Without a number.\n\n{_table(['method', 'metric', 'images', 'why'], rows)}"


def _images(images: Sequence[int | None], names: Sequence[str]) -> str:
    """Name a few images, and say how many more there are."""
    rows = [image for image in images if image is not None]
    if len(rows) < len(images):
        return "all"
    named = ", ".join(names[row] if names else str(row) for row in rows[:_MOST_IMAGES])
    more = len(images) - _MOST_IMAGES
    return f"{named} and {more} more" if more > 0 else named


def _reason(failure: Failure) -> str:
    return failure.reason if failure.is_applicable else f"not applicable: {failure.reason}"


def _notes(comparison: Comparison) -> str:
    return "\n".join(f"- {_cell(note)}" for note in comparison.notes)


def _estimate(found: Estimate, images: int) -> str:
    if found.images == 0:
        return _MISSING
    text = f"{_number(found.mean)} [{_number(found.low)}, {_number(found.high)}]"
    return f"{text}{_over(found.images, images)}"


def _difference(comparison: Comparison, name: str, metric: str, reference: str) -> str:
    found = comparison.difference(name, metric, reference)
    if found is None:
        return _MISSING
    each = [comparison.scores(method, metric).isfinite() for method in (name, reference)]
    images = int((each[0] & each[1]).sum())
    text = f"{found.mean:+.3g} [{found.low:+.3g}, {found.high:+.3g}]"
    text = f"**{text}**" if found.excludes_zero and images >= FEW_IMAGES else text
    return f"{text}{_over(images, comparison.images)}"


def _over(some: int, images: int) -> str:
    """Say over how many images a mean is, where it is not over all."""
    return f" ({_count(some)})" if some < images else ""


def _count(images: int) -> str:
    return "1 image" if images == 1 else f"{images} images"


def _number(value: float, digits: int | None = None) -> str:
    if not math.isfinite(value):
        return _MISSING
    return f"{value:.3g}" if digits is None else f"{value:.{digits}f}"


def _last_if_nan(rank: float) -> float:
    return rank if math.isfinite(rank) else math.inf


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(each) for each in line)} |" for line in lines)


def _cell(text: str) -> str:
    """Return text that cannot leave its cell."""
    flat = " ".join(text.split())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
