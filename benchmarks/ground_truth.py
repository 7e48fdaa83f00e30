"""Which methods find a planted shortcut? The cause of every answer is known to the pixel.

A network has learned that a watermark means "key"; its control has not. The same scenes, with the
watermark on objects that are no keys, are explained for both: the answer that the watermark made of
the first, and the object that the second recognises. Takes some minutes; stopped and started again
it goes on where it was.
"""

import argparse
import hashlib
import json
import time
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ground_truth_methods as planting
import torch
from ground_truth_methods import EXPLAINED, NETWORKS, Planted, Subject, explained, methods, planted
from ground_truth_tables import ground_truth
from harness import RESULTS, SCHEMA, environment, write_json

from captum_blackbox.artifacts import fingerprint, tensor_bytes
from captum_blackbox.metrics.localisation import pointing_game, relevance_mass, relevance_rank
from captum_blackbox.report import paired_difference

BATCH = 10
# Half a cell of the last layer: a map that is as coarse cannot point more closely.
TOLERANCE = 4
MEASURES = {
    "pointing": partial(pointing_game, tolerance=TOLERANCE),
    "mass": relevance_mass,
    "rank": relevance_rank,
}
REFERENCE = "random"
SETTINGS = ("IG_STEPS", "SAMPLES", "NOISE", "BASELINES", "WINDOW", "STRIDE", "GREY", "FITTING")
SETTINGS += ("QUESTIONS", "EPOCHS", "DISSECTED", "LAST")


def head(given: argparse.Namespace, scenes: Planted) -> dict[str, Any]:
    """Return what results belong to; results of something else are not gone on with."""
    return {
        "schema": SCHEMA,
        "suite": "ground_truth",
        "settings": {
            "images": given.images,
            "masks": given.masks,
            "seed": given.seed,
            "scenes": EXPLAINED,
            "tolerance": TOLERANCE,
            **{name.lower(): getattr(planting, name) for name in SETTINGS},
        },
        "sha256": hashlib.sha256(tensor_bytes(scenes.images)).hexdigest(),
        "networks": {name: fingerprint(load()) for name, load in NETWORKS.items()},
    }


def measure(given: argparse.Namespace) -> None:
    """Measure every method; what is in the file already is left as it is."""
    path: Path = given.out
    scenes = planted(given.images)
    expected = json.loads(json.dumps(head(given, scenes)))
    record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if any(record.get(key) != value for key, value in expected.items()):
        record = expected
    record["environment"] = environment("cpu")
    record["areas"] = {
        name: round(float(mask.double().mean()), 5) for name, mask in scenes.regions.items()
    }
    for network in NETWORKS:
        found = record.setdefault("found", {}).setdefault(network, {})
        subject = Subject(network, masks=given.masks, seed=given.seed)
        for title, prepare in methods(subject).items():
            if "watermark" not in found.get(title, {}):
                print(network, title, flush=True)
                try:
                    found[title] = judged(prepare(), scenes, network, given.seed)
                except Exception as error:  # a method that fails is a result
                    found[title] = {"failed": f"{type(error).__name__}: {error}"}
                record.setdefault("students", {}).setdefault(network, {}).update(subject.agreement)
                write_json(path, record)
    record["differences"] = differences(record["found"])
    print(write_json(path, record))


def judged(method: planting.Method, scenes: Planted, network: str, seed: int) -> dict[str, Any]:
    """Return region → measure → a number for each image, and the seconds of one."""
    parts, targets = [], scenes.targets(network)
    started = time.process_time()
    for images, classes in zip(scenes.images.split(BATCH), targets.split(BATCH), strict=True):
        parts.append(explained(method, images, classes, seed))
    spent = time.process_time() - started
    maps = torch.cat(parts)
    found: dict[str, Any] = {"seconds": round(spent / len(maps), 4)}
    for region, masks in scenes.regions.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of maps without anything: they count as 0
            found[region] = {
                name: [round(value, 4) for value in measure(maps, masks).tolist()]
                for name, measure in MEASURES.items()
            }
    return found


def differences(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return paired differences of every method with their 95 % bootstrap intervals.

    ``to random``: on the watermark, explaining the shortcut, less a random map. ``to control``: on
    the watermark, explaining the shortcut, less the same method explaining the control.
    """
    result: dict[str, Any] = {"to random": {}, "to control": {}}
    shortcut, control = found["shortcut"], found["control"]
    for title, values in shortcut.items():
        for kind, other in (
            ("to random", shortcut[REFERENCE]),
            ("to control", control.get(title, {})),
        ):
            if "watermark" in values and "watermark" in other:
                result[kind][title] = {
                    name: _difference(values["watermark"][name], other["watermark"][name])
                    for name in MEASURES
                }
    return result


def _difference(first: list[float], second: list[float]) -> dict[str, float]:
    found = paired_difference(torch.tensor(first), torch.tensor(second))
    return {key: round(getattr(found, key), 5) for key in ("mean", "low", "high")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--masks", type=int, default=300, help="of RISE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "ground_truth.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    measure(given)
    print(ground_truth(json.loads(given.out.read_text())))


if __name__ == "__main__":
    main()
