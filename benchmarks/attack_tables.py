"""Tables on attacks: what docs/measured.md says of fragility.py and influence.py in short."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fragility_data import METHODS, MODES, PUBLISHED, SHOWN

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]
RADIUS = "8"
NAMES = {"topk": "top-k", "mass_center": "mass centre", "random": "random signs"}
TITLES = {
    "intersection": "top pixels in common",
    "rank_correlation": "rank correlation",
    "center_shift": "centre shift, pixels",
}
KINDS = ("attack, one step", "attack, 10 steps", "random signs")


def fragility(records: Sequence[Mapping[str, Any]], table: Table) -> str:
    """Return what is left of explanations at radius 8/255, one row a method and objective."""
    networks = [record["data"]["network"] for record in records]
    header = ["at radius 8/255", "objective"]
    header += [f"{TITLES[measure]}: {name}" for name in networks for measure in SHOWN]
    rows = [
        [
            method if number == 0 else "",
            NAMES[mode],
            *(_cell(record, method, mode, measure) for record in records for measure in SHOWN),
        ]
        for method in METHODS
        for number, mode in enumerate(MODES)
    ]
    return table(header, rows) + "\n\n" + _how_to_read(records)


def influence(records: Sequence[Mapping[str, Any]], table: Table) -> str:
    """Return how many of the five most helpful training images stay, by subject."""
    header = ["at radius 8/255: of the top 5 stay / rank correlation", *KINDS]
    rows = []
    for record in records:
        data = record["suite"].removeprefix("influence-")
        for name, subject in record["subjects"].items():
            cells = [_pair(subject["radii"].get(kind, {}).get(RADIUS)) for kind in KINDS]
            rows.append([f"{data}: {name}", *cells])
    return table(header, rows) + "\n\n" + _how_to_read_influence(records)


def _cell(record: Mapping[str, Any], method: str, mode: str, measure: str) -> str:
    found = next(
        (
            row["means"].get(measure)
            for row in record["rows"]
            if (row["group"], row["judge"], row["name"], row["mode"], str(row["radius"]))
            == ("curves", None, method, mode, RADIUS)
        ),
        None,
    )
    published = PUBLISHED[measure][method][int(RADIUS)][MODES.index(mode)]
    beside = f" ({published:g})" if record["suite"].endswith("squeezenet") else ""
    if found is None:
        return f"–{beside}"
    digits = 1 if measure == "center_shift" else 2
    mean, low, high = (f"{found[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]{beside}"


def _how_to_read(records: Sequence[Mapping[str, Any]]) -> str:
    counts = "; ".join(
        f"{record['data']['network']}: "
        + ", ".join(f"{name} {_images(record, name)}" for name in METHODS)
        for record in records
    )
    return (
        "Means with 95 % bootstrap intervals over the images, labels kept; in parentheses what "
        "Ghorbani et al. published, read off their figure, for SqueezeNet on 512 images with 300 "
        f"steps. Images: {counts}. Every row's walk is in its file, and what differs from the "
        "publication in [results](../benchmarks/results/README.md)."
    )


def _images(record: Mapping[str, Any], method: str) -> int:
    return max(
        (
            row["images"]
            for row in record["rows"]
            if (row["group"], row["judge"], row["name"], str(row["radius"]))
            == ("curves", None, method, RADIUS)
        ),
        default=0,
    )


def _pair(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    stay, order = found["of_top_5"], found["rank_correlation"]
    return f"{stay['mean']:.1f} / {order['mean']:.2f}"


def _how_to_read_influence(records: Sequence[Mapping[str, Any]]) -> str:
    published = records[0]["published"]
    return (
        "Mean over test images of how many of the 5 most helpful training images are still among "
        "them, and of Spearman's correlation of all influences; labels kept. Published for the "
        f"last layer of Inception v3: {published['attack, radius 8']}; random signs, radius about "
        f"10: {published['random signs, radius about 10']}."
    )
