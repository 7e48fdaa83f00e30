"""Make Markdown of the results: between markers of our pages, and results/README.md."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attack_tables
import fragility_tables
import ground_truth_tables
import units_tables
from harness import RESULTS
from methods_table import methods
from result_files import read, table
from speed_tables import goals, speed

ROOT = Path(__file__).parents[1]
DATASETS = ("demo", "cifar", "imagenet")
REFERENCE = "last layer"
# What docs/measured.md shows; results/README.md shows everything.
SHORT = (REFERENCE, "sum", "sum, by cell", "last + sum", "RISE", "random")
GAMES = {"deletion": "deletion ↓", "deletion, blur": "deletion, blur ↓", "insertion": "insertion ↑"}
MEASURES = {
    "energy": "share of the sum ↑",
    "deletion": "alone, deletion ↓",
    "insertion": "alone, insertion ↑",
    "leave_one_out": "left out, deletion rises by ↑",
}
SUBJECTS = ("squeezenet", "mobilenet", "cifar", "demo")
DISSECTED = ("scenes", "squeezenet", "mobilenet")
SHOWN_ESTIMATORS = {
    "random": "random",
    "S_w (filter)": "S_w, filter",
    "S_a (linear)": "S_a, linear",
    "S_a+- (two-component)": "S_a+-, two components",
    "S_a+- centred in the regime": "S_a+-, centred in the regime",
}
ATTRIBUTION = "PatternAttribution"
# Of MobileNet: one sample for each of 120 images, and 1280 inputs; rho is not to be had.
TOO_FEW_SAMPLES = {("estimators-mobilenet", "classifier.1")}


def claims() -> str:
    """Return the claims in short: the best-known methods on each data set."""
    rows = []
    for title, record, name in _students():
        for number, method in enumerate(SHORT):
            rows.append([title if number == 0 else "", *_game_cells(record, name, method)])
    header = ["black box and student", "method", *_game_header()]
    return table(header, rows) + "\n\n" + _how_to_read()


def estimators() -> str:
    """Return the quality of the estimators and the fall of every method, one column a network."""
    records = [each for name in SUBJECTS for each in read(f"estimators-{name}.json")]
    names = list(dict.fromkeys(name for each in records for name in each["degradation"]))
    header = ["", *(each["subject"] for each in records)]
    quality = [
        [f"ρ, {title}", *(_mean_quality(each, name) for each in records)]
        for name, title in SHOWN_ESTIMATORS.items()
    ]
    falls = [[f"AOPC, {name}", *(_fall(each, name) for each in records)] for name in names]
    return table(header, quality + falls) + "\n\n" + _how_to_read_estimators()


def units() -> str:
    """Return how many concepts the units of each layer detect, beside the controls."""
    return units_tables.short(_dissected(), table)


def fragility() -> str:
    """Return how far explanations move, and the training images that explain a prediction."""
    parts = [attack_tables.fragility(_attacked(), table)]
    return "\n\n".join([*parts, attack_tables.influence(_influences(), table)])


def ground_truth() -> str:
    """Return which methods point at a planted watermark."""
    return "\n\n".join(map(ground_truth_tables.ground_truth, read("ground_truth.json")))


def _attacked() -> list[dict[str, Any]]:
    return [record for name in ("squeezenet", "cifar") for record in read(f"fragility-{name}.json")]


def _influences() -> list[dict[str, Any]]:
    return [r for name in ("cifar", "mnist", "scenes") for r in read(f"influence-{name}.json")]


def _dissected() -> list[dict[str, Any]]:
    return [record for name in DISSECTED for record in read(f"units-{name}.json")]


def _mean_quality(record: Mapping[str, Any], name: str) -> str:
    means = [
        found["mean"]
        for layer, found in record["quality"][name].items()
        if found["units"] and (record["suite"], layer) not in TOO_FEW_SAMPLES
    ]
    return f"{sum(means) / len(means):.2f}"


def _fall(record: Mapping[str, Any], name: str) -> str:
    found = record["degradation"].get(name)
    if found is None or "aopc" not in found:
        return "–" if found is None else "failed"
    text = f"{sum(found['aopc']) / len(found['aopc']):.3f}"
    difference = record["differences"].get(name)
    if difference is None:
        return f"**{text}**"
    mark = " ✓" if difference["low"] > 0 else " ✗" if difference["high"] < 0 else ""
    return f"{text} [{difference['low']:+.3f}, {difference['high']:+.3f}]{mark}"


def _how_to_read_estimators() -> str:
    return (
        "ρ: mean over layers of the mean over units, patterns, directions and judgement on three "
        "separate collections of images; MobileNet's last layer, with fewer samples than inputs, "
        "is left out. AOPC: how far the probability falls while patches are replaced by their own "
        "mean, most important first; higher is better; in brackets the 95 % "
        f"paired bootstrap interval of the difference to {ATTRIBUTION} (positive regime, "
        "residual=gradient, no centring: the paper's); ✓ falls further than it, ✗ less far. S_u is "
        "rescaled from layer to layer, since random directions explode. LRP: in ResNet-20 and "
        "MobileNet additions and averages are no modules, so that Zennit passes the gradient there."
    )


def everything() -> str:
    """Return results/README.md."""
    parts = ["# Results", "Made by `python benchmarks/tables.py`; do not edit.", "## Speed"]
    parts += [speed(), "## The claims", _how_to_read()]
    for title, record, name in _students():
        entry = record["students"][name]
        methods = [*entry["methods"], *record["baselines"]]
        games = [_game_cells(record, name, method) for method in methods]
        layers = entry["layer_importance"]
        importance = [
            [f"`{layer}`", *(f"{layers[kind][layer]['mean']:.3f}" for kind in MEASURES)]
            for layer in layers["energy"]
        ]
        file = f"figures/{record['suite']}-{name}"
        parts += [
            f"### {title}",
            _study(record),
            table(["method", *_game_header()], games),
            f"![Difference to the last layer]({file}-games.png)",
            "Which layers are important, means over "
            f"{min(record['settings']['importance_images'], record['settings']['images'])} images:",
            table(["layer", *MEASURES.values()], importance),
            f"![Importance of the layers]({file}-layers.png)",
        ]
    parts += ["## Signal and distractor", estimators()]
    for name in SUBJECTS:
        for record in read(f"estimators-{name}.json"):
            settings, fit = record["settings"], record["fit"]
            parts += [
                f"### {record['subject']}",
                f"Patterns from {settings['fitting']} images, directions from "
                f"{settings['directions']}, judged on {settings['judging']}; {settings['images']} "
                f"of these degraded (SHA-256 `{record['sha256'][:16]}…`). Of {fit['units']} units "
                f"{fit['degenerate']} have no pattern in the positive regime, {fit['unstable']} "
                "have one that is huge or turned around.",
                f"![Quality of the estimators](figures/{record['suite']}-quality.png)",
                f"![Degradation](figures/{record['suite']}-degradation.png)",
            ]
    parts += ["## What units stand for"]
    parts += units_tables.sections(_dissected(), read("units-training.json"), table)
    parts += ["## Explanations under attack"]
    for record in _attacked():
        parts += [f"### {record['data']['network']}", *fragility_tables.sections(record)]
        parts += [f"![Fragility](figures/{record['suite']}.png)"]
    parts += ["### Influence of training images", attack_tables.influence(_influences(), table)]
    parts += ["## A planted watermark", ground_truth()]
    return "\n\n".join(parts) + "\n"


def replaced(text: str, name: str, content: str) -> str | None:
    """Return ``text`` with ``content`` between the markers of ``name``; None without markers."""
    start, end = f"<!-- benchmarks:{name} -->", f"<!-- /benchmarks:{name} -->"
    if start not in text or end not in text:
        return None
    before, rest = text.split(start, 1)
    after = rest.split(end, 1)[1]
    return f"{before}{start}\n{content}\n{end}{after}"


def _students() -> Iterator[tuple[str, dict[str, Any], str]]:
    for dataset in DATASETS:
        for record in read(f"claims-{dataset}.json"):
            for name, entry in record["students"].items():
                who = (
                    "explained by itself"
                    if name == "itself"
                    else f"student {name}, agreement {100 * entry['agreement']:.0f} %"
                )
                yield f"{record['data']['box']}, {who}", record, name


def _game_header() -> list[str]:
    return [cell for title in GAMES.values() for cell in (title, "difference [95 %]")]


def _game_cells(record: Mapping[str, Any], name: str, method: str) -> list[str]:
    entry = record["students"][name]
    areas = (entry["methods"] | record["baselines"])[method]
    cells = [method]
    for game in GAMES:
        cells.append(f"{sum(areas[game]) / len(areas[game]):.3f}")
        cells.append("–" if method == REFERENCE else _difference(entry, method, game))
    return cells


def _difference(entry: Mapping[str, Any], method: str, game: str) -> str:
    found = entry["differences"][method][game]
    text = f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
    lower_is_better = game.startswith("deletion")
    if found["high"] < 0:
        return f"{text} {'✓' if lower_is_better else '✗'}"
    if found["low"] > 0:
        return f"{text} {'✗' if lower_is_better else '✓'}"
    return text


def _study(record: Mapping[str, Any]) -> str:
    settings, data = record["settings"], record["data"]
    return (
        f"{settings['images']} {data['images']} (SHA-256 `{data['sha256'][:16]}…`), "
        f"{settings['steps']} steps a game, {settings['masks']} masks of RISE."
    )


def _how_to_read() -> str:
    return (
        "Mean areas under the curves of the games, played with the black box. Differences are to "
        f"the same student's {REFERENCE}, with a paired bootstrap 95 % interval; ✓ is better, ✗ is "
        "worse, without a mark the interval contains 0."
    )


SECTIONS = {
    "README.md": {"methods": methods},
    "docs/measured.md": {
        "claims": claims,
        "estimators": estimators,
        "units": units,
        "fragility": fragility,
        "ground_truth": ground_truth,
        "goals": goals,
        "speed": speed,
    },
}
"""Page → name of its markers → what stands between them."""


def main() -> None:
    for page, sections in SECTIONS.items():
        path = ROOT / page
        text = path.read_text()
        for name, make in sections.items():
            changed = replaced(text, name, make())
            if changed is None:
                raise SystemExit(f"{page} has no marker <!-- benchmarks:{name} -->")
            text = changed
        path.write_text(text)
    (RESULTS / "README.md").write_text(everything())


if __name__ == "__main__":
    main()
