"""The seed's claim, measured whichever way it falls.

Does the sum of Grad-CAM over all layers of a student beat Grad-CAM of its last layer, in the
deletion and the insertion game on the black box? Which layers are important? Long; stopped and
started again it goes on where it was.
"""

import argparse
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims_data import CALIBRATION, STUDIES, Plan, Study
from claims_methods import BOX_METHODS, REFERENCE, STEPS, STUDENT_METHODS, Method, Subject
from harness import RESULTS, SCHEMA, environment, write_json
from torch import Tensor
from tqdm import tqdm

from captum_blackbox import metrics

# (images, questions, epochs, masks of RISE, images of the layers' importance)
DEFAULTS = {
    "demo": (160, 3000, 10, 500, 24),
    "cifar": (160, 8000, 6, 300, 16),
    "imagenet": (16, 0, 0, 200, 3),
}
RESAMPLES = 10_000
AT_ONCE = 8

GAMES: Mapping[str, Callable[..., metrics.Game]] = {
    "deletion": metrics.deletion,
    "deletion, blur": lambda *args, **settings: metrics.deletion(
        *args, substrate="blur", **settings
    ),
    "insertion": metrics.insertion,
}
ENTRY = ("calibration", "methods", "differences", "layer_importance")
IMPORTANCE = ("energy", "deletion", "leave_one_out", "insertion")


class Record:
    """The file of results: what is in it need not be measured again."""

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {**head, "baselines": {}, "students": {}}
        if path.exists():
            before = json.loads(path.read_text())
            same = all(before.get(key) == head[key] for key in ("suite", "settings", "data"))
            if same:
                self.content = before | {"environment": head["environment"]}
            else:
                print("other settings or images than in the file: starting anew")

    def student(self, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry of a student."""
        new = {**facts, **{key: {} for key in ENTRY}}
        kept = self.content["students"].get(name)
        if kept is None or kept["fingerprint"] != facts["fingerprint"]:
            self.content["students"][name] = new
        return self.content["students"][name]

    def save(self) -> None:
        """Write everything."""
        write_json(self.path, self.content)


def paired_difference(values: list[float], reference: list[float], seed: int = 0) -> dict:
    """Return the mean difference and its 95 % bootstrap interval, resampling images."""
    differences = np.array(values) - np.array(reference)
    generator = np.random.default_rng(seed)
    chosen = generator.integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.quantile(differences[chosen].mean(1), [0.025, 0.975])
    return {name: round(float(v), 5) for name, v in
            (("mean", differences.mean()), ("low", low), ("high", high))}  # fmt: skip


def batches(images: Tensor, targets: Tensor, label: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through the images, a few at a time, and show how far it is."""
    with tqdm(total=len(images), desc=label, unit="image") as bar:
        for some, classes in zip(images.split(AT_ONCE), targets.split(AT_ONCE), strict=True):
            yield some, classes
            bar.update(len(some))


def play(
    title: str, subject: Subject, method: Method, targets: Tensor, who: str
) -> dict[str, list[float]]:
    """Return each game's area under the curve, image by image."""
    areas: dict[str, list[float]] = {name: [] for name in GAMES}
    for images, classes in batches(subject.study.images, targets, f"{who}: {title}"):
        maps = method(subject, images, classes)
        for name, game in GAMES.items():
            played = game(subject.study.box, images, maps, classes, step=subject.step)
            areas[name] += [round(area, 5) for area in played.auc.tolist()]
    return areas


def layer_importance(
    kind: str, subject: Subject, images: Tensor, targets: Tensor, who: str
) -> dict[str, dict[str, float]]:
    """Return layer → mean importance over the images, and its standard error."""
    explainer, box = subject.explainer(), subject.study.box
    parts: list[Mapping[str, Tensor]] = []
    for some, classes in batches(images, targets, f"{who}: layers, {kind}"):
        if kind == "insertion":
            maps = explainer.attribute_per_layer(some, classes).items()
            parts.append({
                name: metrics.insertion(box, some, each, classes, step=subject.step).auc
                for name, each in maps
            })  # fmt: skip
        else:
            parts.append(explainer.layer_importance(some, classes, kind, step=subject.step))
    importance = {}
    for name in parts[0]:
        values = torch.cat([part[name] for part in parts]).double()
        error = float(values.std() / len(values) ** 0.5)
        importance[name] = {"mean": round(float(values.mean()), 5), "error": round(error, 5)}
    return importance


def fingerprint(tensors: list[Tensor]) -> str:
    """Return the SHA-256 of the values, as bytes."""
    digest = hashlib.sha256()
    for each in tensors:
        digest.update(each.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def measure(study: Study, record: Record, given: argparse.Namespace) -> None:
    """Play everything that is not in the record yet."""
    targets = study.box(study.images).argmax(1)
    few = study.images[: given.importance_images], targets[: given.importance_images]
    baselines = record.content["baselines"]
    for name, student in study.students.items():
        subject = Subject(study, student, masks=given.masks, seed=given.seed)
        facts = {
            "agreement": round(subject.explainer().agreement(study.images), 4),
            "fingerprint": fingerprint(list(student.state_dict().values())),
            "distillation": study.reports.get(name),
        }
        entry = record.student(name, facts)
        subject.learned = entry["calibration"]
        for title, method in BOX_METHODS.items():
            measure_once(record, baselines, title, play, subject, method, targets, "box")
        for kind in IMPORTANCE:
            kinds = entry["layer_importance"]
            measure_once(record, kinds, kind, layer_importance, subject, *few, name)
        for title, method in STUDENT_METHODS.items():
            measure_once(record, entry["methods"], title, play, subject, method, targets, name)
            entry["differences"] = differences(entry["methods"] | baselines)
        record.save()


def measure_once(
    record: Record, home: dict[str, Any], key: str, how: Callable[..., Any], *given: Any
) -> None:
    """Keep what ``how`` measures, unless it is there."""
    if key not in home:
        home[key] = how(key, *given)
        record.save()


def differences(played: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Any]:
    """Return method → game → difference to the last layer."""
    return {
        title: {game: paired_difference(areas[game], played[REFERENCE][game]) for game in GAMES}
        for title, areas in played.items()
        if title != REFERENCE
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=STUDIES, required=True)
    parser.add_argument("--images", type=int, help="how many to explain")
    parser.add_argument("--questions", type=int, help="to teach a student with")
    parser.add_argument("--epochs", type=int, help="of the student")
    parser.add_argument("--masks", type=int, help="of RISE")
    parser.add_argument("--importance-images", type=int, help="for the layers' importance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    names = ("images", "questions", "epochs", "masks", "importance_images")
    for name, default in zip(names, DEFAULTS[given.dataset], strict=True):
        if getattr(given, name) is None:
            setattr(given, name, default)
    plan = Plan(given.images, given.questions, given.epochs, given.seed, given.device)
    study = STUDIES[given.dataset](plan)
    settings = {name: getattr(given, name) for name in names}
    head = {
        "schema": SCHEMA,
        "suite": f"claims-{given.dataset}",
        "environment": environment(given.device),
        "settings": settings | {"seed": given.seed, "steps": STEPS, "calibration": CALIBRATION},
        "data": {
            **study.facts,
            "explained": list(study.images.shape),
            "sha256": fingerprint([study.images]),
        },
    }
    record = Record(given.out / f"claims-{given.dataset}.json", head)
    measure(study, record, given)
    print(record.path)


if __name__ == "__main__":
    main()
