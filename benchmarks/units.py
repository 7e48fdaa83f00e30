"""What the units of networks stand for, with the controls that make the numbers mean something."""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import scipy.stats
import torch
from harness import RESULTS, SCHEMA, environment, write_json
from torch import Tensor, nn
from units_data import (
    RECIPES,
    SCENE_SEED,
    SUBJECTS,
    Recipe,
    Subject,
    asked,
    images_that_show,
    own_concepts,
    scenes,
    sha256,
    trained,
)

from captum_blackbox import (
    Dissection,
    NetworkDissection,
    compare_quantiles,
    detectors_against_others,
    unit_effects,
)
from captum_blackbox.concepts import SCENE_CLASSES, Scenes, ShuffledConcepts
from captum_blackbox.demo.train import render_all
from captum_blackbox.dissection import NO_CONCEPT
from captum_blackbox.dissection.rotation import random_rotation

SEEDS = (0, 1, 2)
ALPHAS = {
    "scenes": (0.2, 0.4, 0.6, 0.8, 1.0),
    "squeezenet": (0.5, 1.0),
    "mobilenet": (0.5, 1.0),
}
QUANTILES = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
SHOWN, SILENCED_SCENES, STRICTER = 20, 300, 0.1
FREQUENT = 5  # images that show a concept, for it not to be decided by one or two of them
TRAINING = {"scenes": 3000, "epochs": 4, "seed": 84_001, "dissected": 600, "seeds": 3}
MOMENTS = (0, 16, 32, 64, 128)


def dissection(subject: Subject, model: nn.Module | None = None) -> NetworkDissection:
    """Return the dissection of all layers of a subject, or of a network in its place."""
    return NetworkDissection(
        model or subject.model, list(subject.layers), preprocess=subject.preprocess
    )


def runs(name: str, subject: Subject) -> Iterator[tuple[dict[str, Any], Callable[[], Any]]]:
    """Yield what is dissected: what is said of it, and a call that gives layer → result."""

    def run(
        model: nn.Module | None = None, shuffled: int | None = None, turned: tuple = (0.0, 0)
    ) -> Mapping[str, Dissection]:
        concepts = subject.concepts
        if shuffled is not None:
            concepts = ShuffledConcepts(concepts, shuffled)
        made = dissection(subject, model)
        made = made.rotate(*turned) if turned[0] else made
        return made.dissect(concepts, batch_size=subject.batch_size, show_progress=False)

    yield {"kind": "trained"}, run
    for seed in SEEDS:
        yield {"kind": "random weights", "seed": seed}, partial(run, subject.untrained(seed))
        yield {"kind": "shuffled masks", "seed": seed}, partial(run, shuffled=seed)
    for alpha in reversed(ALPHAS[name]):
        for seed in SEEDS:
            facts = {"kind": "rotated", "alpha": alpha, "seed": seed}
            yield facts, partial(run, turned=(alpha, seed))


def row(result: Dissection) -> dict[str, Any]:
    """Return the numbers of a dissected layer."""
    count = result.count()
    return {
        "units": count.units,
        "detectors": count.units_with_any,
        "unique": count.total_unique,
        "categories": count.unique,
        "mean_best_iou": round(float(result.iou.amax(1).mean()), 5),
    }


def frequent(result: Dissection, images: Tensor) -> Dissection:
    """Return the dissection without concepts that few images show, which chance decides."""
    kept = (images >= FREQUENT).nonzero().flatten()
    return replace(
        result,
        labels=tuple(result.labels[label] for label in kept.tolist()),
        intersection=result.intersection[:, kept],
        truth=result.truth[kept],
    )


def best_units(result: Dissection, images: Tensor) -> list[dict[str, Any]]:
    """Return the units that match their concept best, and how many images show it."""
    shown = {label.name: int(each) for label, each in zip(result.labels, images, strict=True)}
    units = sorted(result.units(), key=lambda unit: -unit.iou)[:SHOWN]
    return [
        {
            "unit": unit.unit,
            "concept": unit.label,
            "category": unit.category,
            "iou": round(unit.iou, 4),
            "images": shown[unit.label],
        }
        for unit in units
    ]


def measure(name: str, given: argparse.Namespace) -> None:
    """Dissect one subject and its controls; what is in its file already is left as it is."""
    subject = SUBJECTS[name](given.images)
    settings = {"images": len(subject.concepts), "iou_threshold": 0.04, "quantile": 0.005}
    if name != "scenes":
        settings["frequent"] = FREQUENT
    head = {
        "schema": SCHEMA,
        "suite": f"units-{name}",
        "subject": subject.name,
        "settings": settings,
        "sha256": subject.sha256,
    }
    path, record = opened(head)
    shown = images_that_show(subject.concepts)
    for facts, call in runs(name, subject):
        title = ", ".join(str(each) for each in facts.values())
        if title not in record["runs"]:
            print(name, title, flush=True)
            results = call()
            record["runs"][title] = {**facts, **numbers(results, shown, "frequent" in settings)}
            if facts["kind"] == "trained":
                best = {layer: best_units(result, shown) for layer, result in results.items()}
                record["best_units"] = best
            write_json(path, record)
    for part, make in SCENE_PARTS.items() if name == "scenes" else ():
        if part not in record:
            print(name, part, flush=True)
            record[part] = make(subject)
            write_json(path, record)
    print(path)


def numbers(
    results: Mapping[str, Dissection], shown: Tensor, with_frequent: bool
) -> dict[str, dict[str, Any]]:
    """Return layer → numbers, with all concepts, and with the frequent ones alone."""
    found = {"layers": {layer: row(result) for layer, result in results.items()}}
    if with_frequent:
        found["frequent"] = {
            layer: row(frequent(result, shown)) for layer, result in results.items()
        }
    return found


def opened(head: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Return a file of results and what is in it, if it has the same head."""
    path = RESULTS / f"{head['suite']}.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if any(record.get(key) != value for key, value in head.items()):
        record = dict(head)
    record["environment"] = environment("cpu")
    record.setdefault("runs", {})
    return path, record


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that a network names rightly."""
    right = [model(each).argmax(1) for each in images.split(100)]
    return float((torch.cat(right) == labels).double().mean())


def turned_accuracy(subject: Subject) -> dict[str, Any]:
    """Return the accuracy as it is, and with each layer turned by Q and back by its inverse."""
    images = torch.stack([subject.concepts.image(i) for i in range(len(subject.concepts))])
    found = {}
    for layer in subject.layers:
        module = subject.model.get_submodule(layer)

        def turn(_module: object, _inputs: object, output: Tensor) -> Tensor:
            matrix = random_rotation(output.shape[1], 0).to(output)
            turned = torch.einsum("uv,nvhw->nuhw", matrix, output)
            return torch.einsum("vu,nvhw->nuhw", matrix, turned)

        handle = module.register_forward_hook(turn)
        found[layer] = accuracy(subject.model, images, subject.labels)
        handle.remove()
    return {"network": accuracy(subject.model, images, subject.labels), "turned and back": found}


def quantiles(subject: Subject) -> dict[str, Any]:
    """Return unique detectors at tight and loose thresholds."""
    found = {}
    for layer in subject.layers[1:]:
        made = NetworkDissection(subject.model, layer)
        compared = compare_quantiles(made, subject.concepts, QUANTILES, show_progress=False)
        found[layer] = {name: row(result) for name, result in compared.results.items()}
    return found


def local(subject: Subject) -> dict[str, Any]:
    """Return whether contributions sum to the logit, and whose concepts support a prediction."""
    layer = subject.layers[-1]
    made = NetworkDissection(subject.model, layer)
    made.dissect(subject.concepts, show_progress=False)
    fresh = Scenes(len(subject.concepts), seed=SCENE_SEED + 1)
    own = own_concepts()
    residuals, shares, others, opposing, first = [], [], [], [], []
    for images, labels in zip(fresh.images.split(50), fresh.labels.split(50), strict=True):
        explanation = made.explain(images)
        residuals += explanation.residual.abs().tolist()
        named = explanation.by_concept()
        named.pop(NO_CONCEPT, None)
        values = torch.stack(list(named.values()), 1)
        is_own = torch.tensor([[name in own[label] for name in named] for label in own])
        by_class = values.clamp(min=0) @ is_own.T.to(values) / values.clamp(min=0).sum(1)[:, None]
        against = values.clamp(max=0) @ is_own.T.to(values) / values.clamp(max=0).sum(1)[:, None]
        for place, label in enumerate(labels.tolist()):
            if int(explanation.targets[place]) == label:
                mine = float(by_class[place, label])
                shares.append(mine)
                others.append((float(by_class[place].sum()) - mine) / (len(own) - 1))
                opposing.append(float(against[place, label]))
                first.append(bool(is_own[label, values[place].argmax()]))
    return {
        "layer": layer,
        "scenes": len(fresh),
        "explained": len(shares),
        "residual": {"mean": _mean(residuals, 9), "largest": round(max(residuals), 9)},
        "own support": _mean(shares),
        "support of another": _mean(others),
        "own opposition": _mean(opposing),
        "largest supporter is one of its own": _mean(first),
    }


def silencing(subject: Subject) -> dict[str, Any]:
    """Return what silencing units does: detectors against others, each unit by itself."""
    data = Scenes(SILENCED_SCENES, seed=SCENE_SEED + 2)
    batches = list(zip(data.images.split(100), data.labels.split(100), strict=True))
    own = own_concepts()
    found = {}
    for layer in subject.layers:
        # With the usual threshold nearly all units of the last layer detect something.
        last = layer == subject.layers[-1]
        made = NetworkDissection(subject.model, layer, iou_threshold=STRICTER if last else 0.04)
        made.dissect(subject.concepts, show_progress=False)
        pairs = detectors_against_others(made, batches, show_progress=False)
        effects = unit_effects(made, batches, show_progress=False)
        best = made.result.iou.amax(1)
        worst = effects.score_drop.amax(1)
        owners = [
            {label for label, names in own.items() if unit.label in names}
            for unit in made.result.detectors()
        ]
        hurt = [int(effects.score_drop[unit.unit].argmax()) for unit in made.result.detectors()]
        kept = [(owner, each) for owner, each in zip(owners, hurt, strict=True) if owner]
        found[layer] = {
            "iou_threshold": made.settings.iou_threshold,
            "detectors": len(made.result.detectors()),
            "size": pairs.size,
            "accuracy": round(pairs.accuracy, 5),
            "detectors silenced": _mean(pairs.detectors.tolist()),
            "others silenced": _mean(pairs.others.tolist()),
            "share": round(pairs.share, 4),
            "rank correlation of IoU and largest fall": round(
                float(scipy.stats.spearmanr(best, worst).statistic), 4
            ),
            "object and part detectors": len(kept),
            "they hurt their own object most": _mean([each in owner for owner, each in kept]),
            "by chance": _mean([len(owner) / len(SCENE_CLASSES) for owner, _ in kept]),
        }
    return found


SCENE_PARTS: dict[str, Callable[[Subject], dict[str, Any]]] = {
    "accuracy": turned_accuracy,
    "quantiles": quantiles,
    "local": local,
    "silencing": silencing,
}


def training(given: argparse.Namespace) -> None:
    """Train small networks on scenes, and dissect them on the way and at the end."""
    judged = scenes(given.images or TRAINING["dissected"])
    rendered = render_all(TRAINING["seed"], TRAINING["scenes"])
    data = {"images": rendered.images, "labels": rendered.labels}
    head = {
        "schema": SCHEMA,
        "suite": "units-training",
        "subject": "small networks trained on scenes",
        "settings": {**TRAINING, "dissected": len(judged.concepts)},
        "sha256": judged.sha256,
        "training_sha256": sha256(rendered.images),
    }
    path, record = opened(head)
    for seed in range(TRAINING["seeds"]):
        for title, recipe in RECIPES.items():
            if f"{title}, seed {seed}" not in record["runs"]:
                print(title, seed, flush=True)
                moments = MOMENTS if recipe == Recipe() else ()
                found = dict(followed(recipe, data, judged, seed, moments))
                record["runs"][f"{title}, seed {seed}"] = {
                    "kind": title,
                    "seed": seed,
                    "steps": found,
                }
                write_json(path, record)
    print(path)


def followed(
    recipe: Recipe, data: Mapping[str, Tensor], judged: Subject, seed: int, moments: Sequence[int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield step of training → accuracy, and the numbers of the last two blocks."""
    images = torch.stack([judged.concepts.image(i) for i in range(len(judged.concepts))])
    examined = asked(recipe, images, judged.labels, torch.Generator().manual_seed(0))
    last = len(recipe.widths) - 1
    blocks = {"last": f"features.{last}.2", "last but one": f"features.{last - 1}.2"}
    for step, network in trained(recipe, data, seed, TRAINING["epochs"], moments).items():
        results = NetworkDissection(network, list(blocks.values())).dissect(
            judged.concepts, show_progress=False
        )
        layers = {name: row(results[layer]) for name, layer in blocks.items()}
        yield str(step), {"accuracy": round(accuracy(network, *examined), 5), "layers": layers}


def _mean(values: Sequence[float], digits: int = 5) -> float:
    return round(sum(values) / max(1, len(values)), digits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    choices = [*SUBJECTS, "training"]
    parser.add_argument("--subjects", nargs="+", default=choices, choices=choices)
    parser.add_argument("--images", type=int, help="dissected scenes, fewer for a try")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.subjects:
        if name == "training":
            training(given)
        else:
            measure(name, given)


if __name__ == "__main__":
    main()
