"""What the results of fragility.py say: in order, beside what was published, as curves."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from fragility_data import METHODS, MODES, PUBLISHED, RADII, SHOWN

from captum_blackbox.fragility.curves_result import MEASURES, FragilityCurves

Row = Mapping[str, Any]
RADIUS = 8
FAR = 0.6  # what a systematic attack leaves in common, as a share of what random signs leave

DIFFERENCES: Mapping[str, Sequence[str]] = {
    "squeezenet": (
        "The published mean is over 512 ImageNet validation images of 227×227; ours are photographs"
        " of 224×224, one a class, far fewer, and probably from the training set.",
        "The published walk has 300 steps of 0.5; each row says ours. Fewer steps are a weaker "
        "attack.",
        "An image whose label changed at every iterate counts with intersection 1, correlation 1 "
        "and shift 0. With fewer steps there are fewer iterates to choose from.",
        "The published surrogate is softplus with beta 1 on pixels from 0 to 255; ours is as sharp "
        "as each layer's pre-activations ask for, which is stronger than any fixed beta tried.",
        "Integrated gradients have 10 steps here, 100 there.",
        "The published random signs are a walk of 300 random steps, the best iterate of which is "
        "kept (in the code; one draw in the text); ours are one draw of the whole radius, drawn "
        "again, up to 16 times, where the label changes.",
        "The published shift of the centre is between centres cut to integers.",
    ),
    "cifar": (
        "There are no published numbers of this network; k = 100 of 32×32 pixels is the published "
        "choice for CIFAR-10. A tenth of the pixels are in common by chance.",
        "The published walk has 300 steps of 0.5; the row of the group steps has it, the others "
        "fewer and longer steps.",
    ),
}


def orderings(rows: Sequence[Row]) -> dict[str, bool | None]:
    """Return whether the orderings of the paper hold; ``None`` where rows are missing.

    Two rows are compared on the images that both have. Where random signs are compared, only on
    those whose label they keep: the others count as clean, which would flatter the attack.
    """
    found: dict[str, bool | None] = {}
    for method in METHODS:
        systematic, chance = _row(rows, method, "topk"), _row(rows, method, "random")
        center = _row(rows, method, "mass_center")
        found[f"{method}: top-k far below random signs"] = _compare(
            systematic, chance, "intersection", lambda a, b: a < FAR * b
        )
        found[f"{method}: mass centre moves the centre more than random signs"] = _compare(
            center, chance, "center_shift", lambda a, b: a > b
        )
        found[f"{method}: mass centre moves the centre more than top-k"] = _compare(
            center, systematic, "center_shift", lambda a, b: a > b
        )
    robust = _row(rows, "integrated gradients", "topk")
    for method, measure in itertools.product(METHODS[:2], SHOWN[:2]):
        name = measure.replace("_", " ")
        found[f"integrated gradients more robust than {method}, {name}"] = _compare(
            robust, _row(rows, method, "topk"), measure, lambda a, b: a > b
        )
    small = _row(rows, "gradient", "topk", 2)
    found["gradient: a larger radius leaves less in common"] = _compare(
        _row(rows, "gradient", "topk"), small, "intersection", lambda a, b: a < b
    )
    return found


def as_curves(rows: Sequence[Row]) -> FragilityCurves:
    """Return the rows of the figure as curves."""
    chosen = [row for row in rows if row["group"] == "curves" and row["judge"] is None]
    methods = [name for name in METHODS if any(row["name"] == name for row in chosen)]
    radii = [radius for radius in RADII if any(row["radius"] == radius for row in chosen)]
    most = max(row["images"] for row in chosen)
    shape = (len(methods), len(MODES), len(radii), len(MEASURES), most)
    values = torch.full(shape, torch.nan, dtype=torch.float64)
    for row in chosen:
        place = methods.index(row["name"]), MODES.index(row["mode"]), radii.index(row["radius"])
        for measure, numbers in row["values"].items():
            known = [float("nan") if number is None else number for number in numbers]
            at = (*place, MEASURES.index(measure))
            values[at][: len(known)] = torch.tensor(known, dtype=torch.float64)
    return FragilityCurves(tuple(methods), MODES, tuple(radius / 255 for radius in radii), values)


def sections(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield Markdown: our numbers beside the published ones, transfer, defences, surrogates."""
    rows = record["rows"]
    for measure in SHOWN:
        yield f"{measure.replace('_', ' ')}: ours [95 % interval], images (published)"
        yield _table(
            ["method", "objective", *(f"{radius}/255" for radius in RADII)],
            [
                [method, mode, *(_beside(rows, method, mode, r, measure, record) for r in RADII)]
                for method in METHODS
                for mode in MODES
            ],
        )
    yield "What differs from the published runs:"
    yield "\n".join(f"- {line}" for line in record["published"]["differences"])
    holds = {True: "holds", False: "**does not hold**", None: "not measured"}
    yield "\n".join(f"- {name}: {holds[value]}" for name, value in record["orderings"].items())
    others = [row for row in rows if row["group"] != "curves" or row["judge"] is not None]
    if others:
        yield _table(
            ["", "objective", "radius", "images", *(name.replace("_", " ") for name in SHOWN),
             "label kept"],
            [_other(row) for row in others],
        )  # fmt: skip


def _row(rows: Sequence[Row], name: str, mode: str, radius: int = RADIUS) -> Row | None:
    for row in rows:
        key = (row["group"], row["judge"], row["name"], row["mode"], row["radius"])
        if key == ("curves", None, name, mode, radius):
            return row
    return None


def _compare(first: Row | None, second: Row | None, measure: str, holds: Any) -> bool | None:
    if first is None or second is None:
        return None
    counted = [value == 1 for value in second["values"]["success"]]
    if second["mode"] != "random":
        counted = [True] * len(counted)
    numbers = zip(first["values"][measure], second["values"][measure], counted, strict=False)
    pairs = [(a, b) for a, b, is_counted in numbers if is_counted and None not in (a, b)]
    if not pairs:
        return None
    a, b = (sum(each) / len(pairs) for each in zip(*pairs, strict=True))
    return bool(holds(a, b))


def _beside(
    rows: Sequence[Row], method: str, mode: str, radius: int, measure: str, record: Row
) -> str:
    row = _row(rows, method, mode, radius)
    published = PUBLISHED[measure][method][radius][MODES.index(mode)]
    known = f" ({published:g})" if record["suite"].endswith("squeezenet") else ""
    if row is None or measure not in row["means"]:
        return f"–{known}"
    found = row["means"][measure]
    return f"{_short(found)}, {found['images']}{known}"


def _other(row: Row) -> list[str]:
    who = row["name"] if row["judge"] is None else f"{row['name']} → {row['judge']}"
    cells = [_short(row["means"][name]) for name in SHOWN]
    kept = row["means"]["label_kept"]["mean"]
    images = str(row["means"]["intersection"]["images"])
    name = f"{row['group']}: {who}" if row["judge"] is None else f"transfer: {who}"
    return [name, row["mode"], f"{row['radius']}/255", images, *cells, f"{kept:.2f}"]


def _short(found: Mapping[str, float]) -> str:
    digits = 1 if found["high"] > 2 else 3
    mean, low, high = (f"{found[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
