"""What is compared on the pages of ``dissect``, as tables, figures and sentences."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from captum_blackbox.cli import results as files
from captum_blackbox.cli.dissect_kept import layer_stem
from captum_blackbox.cli.dissect_runs import RANDOM, SHUFFLED, Dissected
from captum_blackbox.dissection import Dissection, DissectionComparison
from captum_blackbox.report import CountRow, comparison_bars_png, comparison_lines_png

LAYERS_FILE = "layers--compared"  # no layer's file can be called so
_FEW_IMAGES = 1000
_MOSTLY_CHANCE = 0.5  # of the detectors
_MOST_UNITS = 0.95
_CHANCES = {
    SHUFFLED: "{} with the labels of other images",
    RANDOM: "{} in the same network with random weights",
}


def count_rows(results: Mapping[str, Dissection]) -> list[CountRow]:
    """Return a row for each dissection."""
    rows = DissectionComparison("name", results).table()
    return [
        CountRow(
            row["name"],
            row["units"],
            row["detectors"],
            row["unique"],
            {category: row[category] for category in result.categories},
            row["mean_best_iou"],
        )
        for row, result in zip(rows, results.values(), strict=True)
    ]


def write_layers(folder: Path, found: Dissected) -> dict[str, bytes]:
    """Compare layers, where there are several; returns caption → PNG."""
    if len(found.results) == 1:
        return {}
    DissectionComparison("layer", found.results).to_csv(folder / f"{LAYERS_FILE}.csv")
    png = comparison_bars_png(found.results)
    files.write_bytes(folder / f"{LAYERS_FILE}.png", png)
    return {"Unique detectors by layer": png}


def write_comparisons(
    folder: Path, layer: str, found: Dissected
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Compare a layer with what chance gives and with turned bases.

    Returns:
        Caption → PNG, and text → name of a file.
    """
    figures: dict[str, bytes] = {}
    links = {} if len(found.results) == 1 else {"The layers, as CSV": f"{LAYERS_FILE}.csv"}
    controls = found.controls[layer]
    if len(controls) > 1:
        stem = f"{layer_stem(layer)}--controls"
        DissectionComparison("dissected", controls).to_csv(folder / f"{stem}.csv")
        files.write_bytes(folder / f"{stem}.png", comparison_bars_png(controls))
        links["What chance gives, as CSV"] = f"{stem}.csv"
        links["What chance gives, as PNG"] = f"{stem}.png"
    if layer in found.rotations:
        stem, turns = f"{layer_stem(layer)}--rotation", found.rotations[layer]
        named = {f"{alpha:g}": result for alpha, result in turns.items()}
        DissectionComparison("rotation", named, tuple(turns)).to_csv(folder / f"{stem}.csv")
        png = comparison_lines_png(
            list(turns), list(turns.values()), "rotation: 0 the units, 1 a random basis"
        )
        files.write_bytes(folder / f"{stem}.png", png)
        links["The rotations, as CSV"] = f"{stem}.csv"
        figures["Unique detectors while the units are mixed into a random basis"] = png
    return figures, links


def chance_iou(controls: Mapping[str, Dissection]) -> float | None:
    """Return what the best IoU of one unit in twenty exceeds with the labels of other images."""
    if SHUFFLED not in controls:
        return None
    return float(controls[SHUFFLED].iou.amax(1).quantile(_MOST_UNITS))


def headline(layer: str, result: Dissection, controls: Sequence[CountRow]) -> str:
    """Say what was found, and what chance gives."""
    own = controls[0]
    text = (
        f"{own.detectors} of the {_number(own.units, 'unit')} of layer {layer} detect one of "
        f"{_number(len(result.labels), 'concept')}: {own.unique} different ones."
    )
    chance = [_CHANCES[row.name].format(row.detectors) for row in controls[1:]]
    return f"{text} By chance it would be {' and '.join(chance)}." if chance else text


def doubts(result: Dissection, controls: Sequence[CountRow]) -> list[str]:
    """Return why the numbers may not be trusted."""
    own, notes = controls[0], []
    images = result.settings["images"]
    if images < _FEW_IMAGES:
        notes.append(
            f"Only {_number(images, 'image')} were seen; with so few, rare concepts are matched "
            "by chance."
        )
    notes += [
        f"Chance explains most of the detectors: {_CHANCES[row.name].format(row.detectors)}, "
        f"against {own.detectors}."
        for row in controls[1:]
        if row.detectors > _MOSTLY_CHANCE * own.detectors
    ]
    never = int((result.activation.sum(1) == 0).sum())
    if never:
        notes.append(
            f"{never} of {_number(own.units, 'unit')} are never active: constant, or tied on their "
            "largest value, as behind ReLU6; try the layer before the activation."
        )
    return notes


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
