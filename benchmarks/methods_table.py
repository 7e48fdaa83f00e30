"""The table of our methods: what each needs, costs and meets, and how easily it is moved."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from result_files import read, table

AXIOMS = Path(__file__).parents[1] / "docs" / "axioms.md"
RADIUS = "8"


@dataclass(frozen=True)
class Row:
    """What is said of a method.

    Attributes:
        name: As it is imported.
        access: To what.
        cost: Beside the forward pass that gives the answer.
        unfit: When not to use it.
        row: Its name in the tables of axioms and of fragility.
    """

    name: str
    access: str
    cost: str
    unfit: str
    row: str = ""


ROWS = (
    Row(
        "DistilledLayerSumGradCAM",
        "answers, for some thousand images",
        "training a student once, then one gradient an image",
        "the student disagrees with the box; you own the model",
    ),
    Row(
        "LayerSumGradCAM",
        "the layers",
        "one forward and one backward pass",
        "single pixels matter; layers without positions",
    ),
    Row(
        "PatternNet",
        "the network, and some hundred images without labels",
        "one pass over these once, then one gradient an image",
        "to judge a model: it shows what the data look like to it; activations other than ReLU and "
        "its kin; attention",
        "PatternNet, regime_centering",
    ),
    Row(
        "PatternAttribution",
        "the same",
        "the same",
        "the same activations; images unlike those it was fitted to",
        "PatternAttribution, regime_centering",
    ),
    Row(
        "NetworkDissection",
        "the network, and images with masks of concepts",
        "one pass over these, then one gradient an image",
        "few images (compare with shuffled masks); units that saturate; concepts spread over many "
        "units",
    ),
    Row(
        "RISE",
        "answers",
        "`masks` questions an image",
        "questions are dear; the cause is smaller than a cell of the grid",
    ),
)
_IN_AXIOMS = {
    "PatternNet, regime_centering": "PatternNet, centred in its regime",
    "PatternAttribution, regime_centering": "PatternAttribution, centred in its regime",
    "RISE": "RISE, 1000 masks",
}


def methods() -> str:
    """Return one row a method, and how to read it."""
    (record,) = read("method_fragility.json")
    header = ["explains", "access needed", "cost", "[axioms](docs/axioms.md) met", "attack leaves"]
    rows = []
    for each in ROWS:
        row = each.row or each.name
        left = _left(record["rows"][row])
        rows.append([f"`{each.name}`", each.access, each.cost, _met(row), left, each.unfit])
    settings = record["settings"]
    note = (
        "Axioms: of nine, on small networks without a counter-example; the patterns are centred in "
        "their regime. Attack leaves: mean share of the most important pixels that an attack of "
        f"radius {RADIUS}/255 on {settings['images']} scenes, explained by the built-in network, "
        "leaves, and in brackets what random signs of that size leave; higher is sturdier. For "
        "comparison, Captum's: "
        + "; ".join(
            f"{name} {_left(record['rows'][row])}"
            for name, row in {
                "`Saliency`": "Saliency",
                "`IntegratedGradients`": "IntegratedGradients",
                "`LayerGradCam`": "LayerGradCam, last layer",
                "`GuidedBackprop`": "GuidedBackprop",
            }.items()
        )
        + "."
    )
    return table([*header, "when not to use it"], rows) + "\n\n" + note


def _met(row: str) -> str:
    """Return how many axioms a method meets, of those that say something about its maps."""
    name = re.escape(_IN_AXIOMS.get(row, row))
    found = re.search(rf"^\| {name} \|(.*)\|$", AXIOMS.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"docs/axioms.md has no row {row}")
    marks = [mark.strip() for mark in found[1].split("|")]
    return f"{marks.count('✓')} of {len(marks) - marks.count('–')}"


def _left(found: dict[str, Any]) -> str:
    by_chance = f"{found['random'][RADIUS]['mean']:.2f}"
    if "topk" not in found:
        return f"no derivative to follow [{by_chance}]"
    return f"{found['topk'][RADIUS]['mean']:.2f} [{by_chance}]"
