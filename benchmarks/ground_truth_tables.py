"""The table of planted shortcuts: which methods point at the watermark."""

from collections.abc import Mapping
from typing import Any

HEADER = (
    "method",
    "shortcut: watermark, pointing ↑",
    "mass ↑",
    "rank ↑",
    "object, pointing ↓",
    "distractor, pointing ↓",
    "control: watermark, pointing ↓",
    "object, pointing ↑",
    "watermark, mass, shortcut − control [95 %]",
    "reveals the shortcut",
)


def verdict(record: Mapping[str, Any], title: str) -> str:
    """Return ``"yes"``, ``"partly"`` or ``"no"``.

    Partly: more relevance lies on the watermark than for the control, and more maximums than of
    random maps, both intervals excluding 0. Yes: most maximums do.
    """
    found = record["found"]["shortcut"].get(title, {})
    change = record["differences"]["to control"].get(title)
    if "watermark" not in found or change is None:
        return "failed"
    gain = record["differences"]["to random"][title]
    if change["mass"]["low"] <= 0 or gain["pointing"]["low"] <= 0:
        return "no"
    return "yes" if mean(found["watermark"]["pointing"]) > 0.5 else "partly"


def ground_truth(record: Mapping[str, Any]) -> str:
    """Return the table, the best first, and how to read it."""
    titles = list(record["found"]["shortcut"])
    titles.sort(key=lambda title: -_pointing(record, title))
    rows = [_row(record, title) for title in titles]
    lines = [HEADER, ["---"] * len(HEADER), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{_how_to_read(record)}"


def mean(values: list[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def _pointing(record: Mapping[str, Any], title: str) -> float:
    found = record["found"]["shortcut"][title]
    return mean(found["watermark"]["pointing"]) if "watermark" in found else -1.0


def _row(record: Mapping[str, Any], title: str) -> list[str]:
    shortcut, control = (record["found"][name].get(title, {}) for name in ("shortcut", "control"))
    if "watermark" not in shortcut or "watermark" not in control:
        return [title, *["–"] * (len(HEADER) - 2), "failed"]
    mark, change = shortcut["watermark"], record["differences"]["to control"][title]["mass"]
    numbers = [
        *(mark[name] for name in ("pointing", "mass", "rank")),
        shortcut["object"]["pointing"],
        shortcut["distractor"]["pointing"],
        control["watermark"]["pointing"],
        control["object"]["pointing"],
    ]
    return [
        title,
        *(f"{mean(values):.2f}" for values in numbers),
        f"{change['mean']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}]",
        {"yes": "**yes**"}.get(verdict(record, title), verdict(record, title)),
    ]


def _how_to_read(record: Mapping[str, Any]) -> str:
    areas, settings = record["areas"], record["settings"]
    chance = ", ".join(f"{name} {areas[name]:.3f}" for name in areas)
    agreement = ", ".join(
        f"{kind} {100 * value:.0f} % with the {network}"
        for network, students in record["students"].items()
        for kind, value in students.items()
    )
    return (
        f"{settings['images']} scenes with the watermark on objects that are no keys (SHA-256 "
        f"`{record['sha256'][:16]}…`). The shortcut answers “key”, and without the watermark it "
        "recognises the object: the watermark is the cause. The control recognises the object "
        "with and without: the object is the cause. Pointing: share of maps with their maximum "
        f"there, or at most {settings['tolerance']} pixels beside; mass: share of the positive "
        "relevance; rank: share of as many most relevant pixels as the region has. By chance the "
        f"last two are the region's share of the picture: {chance}. Reveals: "
        "most maximums are on the watermark, more than of random maps, and more relevance lies "
        "there than for the control, the paired bootstrap intervals excluding 0; partly: not most. "
        f"Students agree on other watermarked scenes: {agreement}."
    )
