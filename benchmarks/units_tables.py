"""What the tables say of units; see units.py."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
MakeTable = Callable[[Sequence[str], Sequence[Sequence[str]]], str]
CONTROLS = {
    "trained": "as it is",
    "rotated": "rotated, α = 1",
    "random weights": "untrained",
    "shuffled masks": "masks shuffled",
}
HEADER = ("unique detectors (detectors), mean of best IoU", "layer", *CONTROLS.values())
CATEGORIES = ("object", "part", "color", "texture")


def short(records: Sequence[Record], table: MakeTable) -> str:
    """Return what the README of the project shows."""
    rows = [each for record in records for each in _layers(record, "layers")]
    return f"{table(HEADER, rows)}\n\n{how_to_read()}"


def sections(
    records: Sequence[Record], training: Sequence[Record], table: MakeTable
) -> Iterator[str]:
    """Yield everything: all numbers of every network, and small networks in comparison."""
    yield how_to_read()
    for record in records:
        settings = record["settings"]
        yield f"### {record['subject'][0].upper()}{record['subject'][1:]}: units"
        yield (
            f"{settings['images']} images (SHA-256 of images and masks "
            f"`{record['sha256'][:16]}…`), {settings['quantile']:.1%} of a unit's activations "
            "above its threshold."
        )
        rows = _layers(record, "layers")
        if "frequent" in settings:
            title = f"concepts on {settings['frequent']} images or more"
            rows += _layers(record, "frequent", title)
        yield table(HEADER, rows)
        yield f"![Rotation and controls](figures/{record['suite']}.png)"
        yield table(
            ["unique detectors, as it is", *_categories(record)], list(_by_category(record))
        )
        yield _best(record)
    for record in records:
        if "local" in record:
            yield from _of_scenes(record, table)
    for record in training:
        yield from _of_training(record, table)


def how_to_read() -> str:
    """Return what the numbers mean."""
    return (
        "Concepts that some unit detects with IoU > 0.04 (units that detect one), and the mean of "
        "the units' best IoU; rotated, untrained and shuffled are means of three seeds. Scenes: "
        "1000, with masks of objects, parts, colours and textures. Photographs: 100, with panoptic "
        "masks and the colours of their pixels. Most things are on few of these, so that units "
        "match many by chance: the column of shuffled masks says how many. MobileNet's layers are "
        "linear or taken before ReLU6; a layer without a nonlinearity has no basis of its own."
    )


def _layers(record: Record, which: str, title: str | None = None) -> list[list[str]]:
    rows = []
    for number, layer in enumerate(record["runs"]["trained"][which]):
        name = (title or record["subject"]) if number == 0 else ""
        found = [[run[which][layer] for run in _of(record, kind)] for kind in CONTROLS]
        rows.append([name, f"`{layer}`", *(_counts(each) for each in found)])
    return rows


def _of(record: Record, kind: str, alpha: float = 1.0) -> list[Record]:
    every = record["runs"].values()
    return [run for run in every if run["kind"] == kind and run.get("alpha", alpha) == alpha]


def _counts(found: Sequence[Record]) -> str:
    digits = 0 if len(found) == 1 else 1
    return (
        f"{_mean(found, 'unique'):.{digits}f} "
        f"({_mean(found, 'detectors'):.0f} of {found[0]['units']}), "
        f"{_mean(found, 'mean_best_iou'):.3f}"
    )


def _mean(found: Sequence[Record], name: str) -> float:
    return float(sum(each[name] for each in found) / len(found))


def _categories(record: Record) -> list[str]:
    first = next(iter(record["runs"]["trained"]["layers"].values()))
    return list(first["categories"])


def _by_category(record: Record) -> Iterator[list[str]]:
    for layer, found in record["runs"]["trained"]["layers"].items():
        yield [f"`{layer}`", *(str(each) for each in found["categories"].values())]


def _best(record: Record) -> str:
    layer = list(record["best_units"])[-1]
    named = [
        f"{each['unit']} {each['concept']} {each['iou']:.2f} ({each['images']})"
        for each in record["best_units"][layer]
    ]
    return (
        f"Best units of `{layer}`: number, concept, IoU (images that show the concept): "
        f"{', '.join(named)}."
    )


def _of_scenes(record: Record, table: MakeTable) -> Iterator[str]:
    right, local = record["accuracy"], record["local"]
    turned = ", ".join(f"{each:.3f}" for each in right["turned and back"].values())
    yield (
        f"Accuracy on these scenes {right['network']:.3f}; with a layer turned by a random "
        f"rotation and back {turned}: the same."
    )
    yield "#### Quantile: tight and loose thresholds"
    rows = [
        [f"`{layer}`", quantile, str(each["unique"]), *_some(each), f"{each['mean_best_iou']:.3f}"]
        for layer, found in record["quantiles"].items()
        for quantile, each in found.items()
    ]
    yield table(["layer", "quantile", "unique", *CATEGORIES, "mean of best IoU"], rows)
    yield "#### Which concepts made a prediction"
    yield (
        f"`{local['layer']}`, {local['explained']} scenes that are named rightly: contributions "
        f"and bias miss the logit by {local['residual']['mean']:.1e} on average, by "
        f"{local['residual']['largest']:.1e} at most. Of what supports the prediction, "
        f"{local['own support']:.1%} comes from units named after the "
        f"object or one of its parts ({local['support of another']:.1%} for another "
        f"object); of what opposes it, {local['own opposition']:.1%}. "
        "The concept that supports it most is one of the object's own in "
        f"{local['largest supporter is one of its own']:.1%}."
    )
    yield "#### Silencing units"
    header = ["layer", "detectors, IoU", "silenced at a time", "accuracy: detectors silenced"]
    header += ["others silenced", "detectors matter more", "IoU ~ largest fall of a logit"]
    header += ["silenced alone, hurts its own object most (by chance)"]
    yield table(header, [_silenced(*each) for each in record["silencing"].items()])


def _some(found: Record) -> list[str]:
    return [str(found["categories"].get(name, 0)) for name in CATEGORIES]


def _silenced(layer: str, found: Record) -> list[str]:
    return [
        f"`{layer}`",
        f"{found['detectors']}, > {found['iou_threshold']}",
        str(found["size"]),
        f"{found['detectors silenced']:.3f}",
        f"{found['others silenced']:.3f}",
        f"{found['share']:.0%} of draws",
        f"{found['rank correlation of IoU and largest fall']:+.2f}",
        f"{found['they hurt their own object most']:.0%} ({found['by chance']:.0%})",
    ]


def _of_training(record: Record, table: MakeTable) -> Iterator[str]:
    settings = record["settings"]
    yield "### Small networks trained on scenes: units"
    yield (
        f"{settings['scenes']} scenes, {settings['epochs']} epochs, dissected on "
        f"{settings['dissected']} others; means of {settings['seeds']} seeds, which differ by "
        "several unique detectors themselves. As it is: five blocks of up to 48 channels with "
        "batch normalization and weight decay 0.05, trained to name the object; turns: trained to "
        "tell by how many quarters a scene was turned. So short a training teaches some of them "
        "little: without batch normalization they stay at chance. Unique detectors follow the "
        "accuracy here, and the table does not tell one cause from the other."
    )
    kinds = dict.fromkeys(run["kind"] for run in record["runs"].values())
    header = ["network", "accuracy", "last but one block", "last block"]
    yield table(header, [[kind, *_small(record, kind, -1)] for kind in kinds])
    base = next(iter(kinds))
    steps = list(_of(record, base)[0]["steps"])
    header[0] = f"step of training, {base}"
    yield table(header, [[step, *_small(record, base, n)] for n, step in enumerate(steps)])
    yield f"![Training](figures/{record['suite']}.png)"


def _small(record: Record, kind: str, place: int) -> list[str]:
    found = [list(run["steps"].values())[place] for run in _of(record, kind)]
    return [
        f"{_mean(found, 'accuracy'):.3f}",
        *(_counts([each["layers"][name] for each in found]) for name in ("last but one", "last")),
    ]
