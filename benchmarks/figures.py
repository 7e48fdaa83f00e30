"""Draw the claims: which methods win, which layers matter, which estimator finds the signal."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import RESULTS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from tables import GAMES, MEASURES, SHOWN_ESTIMATORS

FIGURES = RESULTS / "figures"
BETTER, WORSE, EVEN, BARS = "#2a7f3f", "#b3382c", "#8a8a8a", "#3b6ea5"


def games(record: Mapping[str, Any], name: str) -> Figure:
    """Return the difference to the last layer, method by method, with its interval."""
    differences = record["students"][name]["differences"]
    figure = Figure(figsize=(10, 0.28 * len(differences) + 1.3), layout="constrained")
    panels = figure.subplots(1, len(GAMES), sharey=True)
    for axes, (game, title) in zip(panels, GAMES.items(), strict=True):
        for row, found in enumerate(each[game] for each in differences.values()):
            color = _color(found, lower_is_better=game.startswith("deletion"))
            axes.plot([found["low"], found["high"]], [row, row], color=color, linewidth=2)
            axes.plot(found["mean"], row, "o", color=color, markersize=4)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(title)
        axes.set_yticks(range(len(differences)), list(differences))
        _tidy(axes)
    panels[0].invert_yaxis()
    figure.suptitle(f"{record['data']['box']}, {name}: difference to the last layer, 95 %")
    return figure


def layers(record: Mapping[str, Any], name: str) -> Figure:
    """Return the importance of each layer, by each measure, with its standard error."""
    importance = record["students"][name]["layer_importance"]
    names = list(importance["energy"])
    figure = Figure(figsize=(11, 0.22 * len(names) + 1.5), layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    for axes, (kind, title) in zip(panels, MEASURES.items(), strict=True):
        found = [importance[kind][layer] for layer in names]
        means, errors = ([each[key] for each in found] for key in ("mean", "error"))
        axes.barh(range(len(names)), means, xerr=errors, color=BARS, ecolor=EVEN)
        axes.set_title(title, fontsize=9)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        _tidy(axes)
    panels[0].invert_yaxis()
    figure.suptitle(f"{record['data']['box']}, {name}: importance of the layers")
    return figure


def quality(record: Mapping[str, Any]) -> Figure:
    """Return the quality of each signal estimator, layer by layer, with quartiles over units."""
    layers = list(next(iter(record["quality"].values())))
    figure = Figure(figsize=(min(9.5, max(6, 0.22 * len(layers) + 2)), 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, title) in enumerate(SHOWN_ESTIMATORS.items()):
        found = record["quality"][name]
        known = [i for i, layer in enumerate(layers) if found[layer]["units"]]
        means = [found[layers[i]]["mean"] for i in known]
        low, high = zip(*(found[layers[i]]["quartiles"] for i in known), strict=True)
        color = EVEN if name == "random" else f"C{number}"
        # Estimators may agree: a dashed line leaves the one before it visible.
        axes.plot(known, means, (".-", ".--")[number % 2], color=color, label=title)
        axes.fill_between(known, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set_xticks(range(len(layers)), layers, rotation=90, fontsize=6)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("signal quality rho ↑")
    axes.legend(fontsize=8)
    axes.grid(axis="y", linewidth=0.4)
    axes.set_title(record["subject"], fontsize=10)
    return figure


def degradation(record: Mapping[str, Any]) -> Figure:
    """Return the mean curve of each method while patches are replaced by their mean."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplots()
    curves = {name: found for name, found in record["degradation"].items() if "mean_curve" in found}
    best_first = sorted(curves, key=lambda name: -sum(curves[name]["aopc"]))
    every = record["settings"]["every"]
    for number, name in enumerate(best_first):
        curve = curves[name]["mean_curve"]
        aopc = sum(curves[name]["aopc"]) / len(curves[name]["aopc"])
        is_ours = name.startswith("PatternAttribution")
        axes.plot(
            [every * i for i in range(len(curve))],
            curve,
            color="black" if name == "random" else f"C{number % 10}",
            linestyle=("-", "--", ":")[number // 10] if name != "random" else ":",
            linewidth=2.4 if is_ours else 1.2,
            label=f"{aopc:.3f}  {name}",
        )
    axes.set_xlabel(
        f"patches of {record['settings']['patch']}×{record['settings']['patch']} replaced"
    )
    axes.set_ylabel("probability of the class ↓")
    axes.legend(title="AOPC ↑", fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.grid(linewidth=0.4)
    axes.set_title(f"{record['subject']}, {record['settings']['images']} images", fontsize=10)
    return figure


def controls(record: Mapping[str, Any]) -> Figure:
    """Return unique detectors on the way to a random basis, layer by layer, beside chance."""
    layers = list(record["runs"]["trained"]["layers"])
    figure = Figure(figsize=(2.6 * len(layers), 3), layout="constrained")
    panels = figure.subplots(1, len(layers), sharey=True)
    for axes, layer in zip(panels, layers, strict=True):
        found: dict[str, dict[float, list[int]]] = {}
        for run in record["runs"].values():
            kind = "rotated" if run["kind"] == "trained" else run["kind"]
            at = found.setdefault(kind, {}).setdefault(run.get("alpha", 0.0), [])
            at.append(run["layers"][layer]["unique"])
        rotated = dict(sorted(found.pop("rotated").items()))
        means = [sum(each) / len(each) for each in rotated.values()]
        axes.plot(list(rotated), means, ".-", color=BARS, label="rotated")
        low, high = ([pick(each) for each in rotated.values()] for pick in (min, max))
        axes.fill_between(list(rotated), low, high, color=BARS, alpha=0.2, linewidth=0)
        for (kind, at), style in zip(found.items(), ("--", ":"), strict=True):
            values = at[0.0]
            axes.axhline(sum(values) / len(values), color=EVEN, linestyle=style, label=kind)
        axes.set_title(layer, fontsize=9)
        axes.set_xlabel("rotation α")
        _tidy(axes)
    panels[0].set_ylabel("unique detectors")
    panels[0].set_ylim(bottom=0)
    panels[-1].legend(fontsize=7)
    figure.suptitle(record["subject"], fontsize=10)
    return figure


def training(record: Mapping[str, Any]) -> Figure:
    """Return unique detectors over the steps of training, and those of other recipes."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    steps, recipes = figure.subplots(1, 2, width_ratios=(2, 3))
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for run in record["runs"].values():
        by_kind.setdefault(run["kind"], []).append(run["steps"])
    shift = {"last but one": -0.2, "last": 0.2}
    for (block, offset), color in zip(shift.items(), (BARS, BETTER), strict=True):
        for run in next(iter(by_kind.values())):
            numbers = [each["layers"][block]["unique"] for each in run.values()]
            steps.plot([int(step) for step in run], numbers, ".-", color=color, alpha=0.7)
        for row, runs in enumerate(by_kind.values()):
            ends = [list(run.values())[-1]["layers"][block]["unique"] for run in runs]
            mean = sum(ends) / len(ends)
            label = f"{block} block" if row == 0 else None
            recipes.barh(row + offset, mean, height=0.36, color=color, label=label)
            recipes.plot(ends, [row + offset] * len(ends), "|", color="black", markersize=7)
    recipes.set_yticks(range(len(by_kind)), list(by_kind))
    recipes.invert_yaxis()
    recipes.set_xlabel("unique detectors after training")
    recipes.legend(fontsize=7)
    steps.set_xlabel("step of training")
    steps.set_ylabel("unique detectors")
    for axes in (steps, recipes):
        _tidy(axes)
    figure.suptitle(f"{record['subject']}; each seed", fontsize=10)
    return figure


def _color(found: Mapping[str, float], *, lower_is_better: bool) -> str:
    if found["low"] <= 0 <= found["high"]:
        return EVEN
    return BETTER if (found["high"] < 0) == lower_is_better else WORSE


def _tidy(axes: Axes) -> None:
    axes.grid(axis="x", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw(path: Path) -> None:
    """Draw two figures for each student in a file of claims."""
    record = json.loads(path.read_text())
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name in record["students"]:
        for title, make in (("games", games), ("layers", layers)):
            target = FIGURES / f"{path.stem}-{name}-{title}.png"
            # Without the version of matplotlib, equal results make equal files.
            make(record, name).savefig(target, dpi=100, metadata={"Software": None})
            print(target)


def draw_estimators(path: Path) -> None:
    """Draw two figures of a file about signal estimators."""
    record = json.loads(path.read_text())
    FIGURES.mkdir(parents=True, exist_ok=True)
    for title, make in (("quality", quality), ("degradation", degradation)):
        target = FIGURES / f"{path.stem}-{title}.png"
        picture = io.BytesIO()
        make(record).savefig(picture, dpi=100)
        # 128 colours are enough for lines, and take a third of the space.
        Image.open(picture).convert("RGB").quantize(128).save(target, optimize=True)
        print(target)


def draw_units(path: Path) -> None:
    """Draw the figure of a file about units."""
    record = json.loads(path.read_text())
    FIGURES.mkdir(parents=True, exist_ok=True)
    make = training if path.stem == "units-training" else controls
    target = FIGURES / f"{path.stem}.png"
    make(record).savefig(target, dpi=100, metadata={"Software": None})
    print(target)


def main() -> None:
    for path in sorted(RESULTS.glob("claims-*.json")):
        draw(path)
    for path in sorted(RESULTS.glob("estimators-*.json")):
        draw_estimators(path)
    for path in sorted(RESULTS.glob("units-*.json")):
        draw_units(path)


if __name__ == "__main__":
    main()
