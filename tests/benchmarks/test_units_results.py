"""The committed results of Network Dissection have the promised form and say what is said of them."""

import json
import re
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import harness  # noqa: E402
import units  # noqa: E402
import units_data  # noqa: E402
import units_tables  # noqa: E402

NAMES = list(units_data.SUBJECTS)


def load(name):
    path = harness.RESULTS / f"units-{name}.json"
    assert path.is_file(), f"{path.name} is missing: run benchmarks/units.py"
    return json.loads(path.read_text())


def unique(record, kind, layer, which="layers"):
    found = units_tables._of(record, kind)
    return sum(run[which][layer]["unique"] for run in found) / len(found)


def check_rows(layers):
    for row in layers.values():
        assert sum(row["categories"].values()) == row["unique"]
        assert 0 <= row["detectors"] <= row["units"]
        assert 0 <= row["mean_best_iou"] <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_units_has_every_control_in_every_layer(name):
    record = load(name)
    assert record["schema"] == harness.SCHEMA
    assert re.fullmatch("[0-9a-f]{64}", record["sha256"])
    assert record["environment"]["threads"] == 1
    layers = set(record["runs"]["trained"]["layers"])
    kinds = {kind: len(units_tables._of(record, kind)) for kind in units_tables.CONTROLS}
    assert kinds == {"trained": 1, "rotated": 3, "random weights": 3, "shuffled masks": 3}
    assert {run["alpha"] for run in record["runs"].values() if "alpha" in run} == set(
        units.ALPHAS[name]
    )
    for run in record["runs"].values():
        assert set(run["layers"]) == layers
        for which in ("layers", *(["frequent"] if "frequent" in record["settings"] else [])):
            check_rows(run[which])
    for best in record["best_units"].values():
        assert len(best) == units.SHOWN
        assert [each["iou"] for each in best] == sorted((u["iou"] for u in best), reverse=True)


def test_training_makes_detectors_and_a_rotation_unmakes_some_of_them():
    for name, rotated in (("scenes", 3), ("squeezenet", 4)):
        record = load(name)
        layers = list(record["runs"]["trained"]["layers"])
        for number, layer in enumerate(layers):
            trained = unique(record, "trained", layer)
            assert trained > unique(record, "random weights", layer)
            assert trained > unique(record, "shuffled masks", layer)
            assert (trained > unique(record, "rotated", layer)) == (number < rotated)


def test_what_the_readme_says_of_chance_follows_from_the_files():
    scenes, squeezenet, mobilenet = (load(name) for name in NAMES)
    for run in units_tables._of(scenes, "shuffled masks"):
        assert all(row["detectors"] == 0 for row in run["layers"].values())
    for record, low, high in ((squeezenet, 0.4, 0.6), (mobilenet, 0.8, 1.0)):
        layer = list(record["runs"]["trained"]["layers"])[-1]
        runs = units_tables._of(record, "shuffled masks")
        detectors = record["runs"]["trained"]["layers"][layer]["detectors"]
        for run in runs:
            assert low < run["layers"][layer]["detectors"] / detectors < high


def test_contributions_are_exact_and_come_from_the_objects_own_concepts():
    record = load("scenes")
    local = record["local"]
    assert local["residual"]["largest"] < 1e-5
    assert local["own support"] > 5 * local["support of another"]
    right = record["accuracy"]
    assert set(right["turned and back"].values()) == {right["network"]}


def test_small_networks_are_compared_over_seeds():
    record = load("training")
    seeds = record["settings"]["seeds"]
    kinds = [run["kind"] for run in record["runs"].values()]
    assert kinds == list(units_data.RECIPES) * seeds
    for run in record["runs"].values():
        moments = units.MOMENTS if run["kind"] == kinds[0] else ()
        assert len(run["steps"]) == len(moments) + 1
        for step in run["steps"].values():
            check_rows(step["layers"])


def test_unique_detectors_of_small_networks_come_with_what_they_learnt():
    runs = load("training")["runs"].values()
    for run in runs:
        if run["kind"] == next(iter(units_data.RECIPES)):
            first, *_, last = run["steps"].values()
            for block in ("last", "last but one"):
                before, after = (each["layers"][block]["unique"] for each in (first, last))
                assert after > 3 * before
    unlearnt = [run for run in runs if run["kind"] == "without batch normalization"]
    assert all(list(run["steps"].values())[-1]["accuracy"] < 0.15 for run in unlearnt)
