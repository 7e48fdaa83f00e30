"""The committed result about the planted shortcut has the promised form, and says what we say."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from captum_blackbox.artifacts import fingerprint
from captum_blackbox.report import paired_difference

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import ground_truth  # noqa: E402
import ground_truth_methods as planting  # noqa: E402
import ground_truth_tables as tables  # noqa: E402
import harness  # noqa: E402

FILE = harness.RESULTS / "ground_truth.json"
REGIONS = ("watermark", "object", "distractor")


@pytest.fixture(scope="module")
def record():
    assert FILE.is_file(), "ground_truth.json is missing: run benchmarks/ground_truth.py"
    return json.loads(FILE.read_text())


def test_the_result_belongs_to_the_networks_that_ship(record):
    shipped = {name: fingerprint(load()) for name, load in planting.NETWORKS.items()}
    assert record["networks"] == shipped


def test_the_result_says_how_it_was_made(record):
    assert record["schema"] == harness.SCHEMA
    assert re.fullmatch("[0-9a-f]{64}", record["sha256"])
    assert record["environment"]["threads"] == 1
    assert record["environment"]["packages"]["captum"]
    for name in ground_truth.SETTINGS:
        assert record["settings"][name.lower()] == getattr(planting, name)
    assert record["settings"]["images"] >= 100


def test_there_is_a_number_for_each_image_method_region_and_measure(record):
    names = set(planting.methods(planting.Subject("control", masks=1, seed=0)))
    assert names > set(planting.OURS)
    for found in record["found"].values():
        assert set(found) == names
        for values in found.values():
            assert "failed" not in values
            for region in REGIONS:
                assert set(values[region]) == set(ground_truth.MEASURES)
                for numbers in values[region].values():
                    assert len(numbers) == record["settings"]["images"]
                    assert all(0 <= number <= 1 for number in numbers)


def test_the_differences_follow_from_the_numbers(record):
    assert ground_truth.differences(record["found"]) == record["differences"]


def test_a_random_map_is_at_chance(record):
    found = record["found"]["shortcut"][ground_truth.REFERENCE]
    for region in REGIONS:
        assert tables.mean(found[region]["mass"]) == pytest.approx(
            record["areas"][region], abs=5e-3
        )
        assert tables.mean(found[region]["rank"]) == pytest.approx(
            record["areas"][region], abs=3e-2
        )
    assert tables.verdict(record, ground_truth.REFERENCE) == "no"


def test_the_verdict_needs_the_maximum_the_control_and_chance():
    def made(pointing, mass_low, pointing_low):
        found = {"watermark": {"pointing": pointing}}
        differences = {
            "to control": {"m": {"mass": {"low": mass_low}}},
            "to random": {"m": {"pointing": {"low": pointing_low}}},
        }
        return {"found": {"shortcut": {"m": found}}, "differences": differences}

    assert tables.verdict(made([1, 1, 0], 0.1, 0.1), "m") == "yes"
    assert tables.verdict(made([1, 0, 0], 0.1, 0.1), "m") == "partly"
    assert tables.verdict(made([1, 1, 1], 0.0, 0.1), "m") == "no"
    assert tables.verdict(made([1, 1, 1], 0.1, 0.0), "m") == "no"
    failed = {"found": {"shortcut": {"m": {}}}, "differences": {"to control": {}}}
    assert tables.verdict(failed, "m") == "failed"


def test_what_we_say_of_the_methods_follows_from_the_file(record):
    verdicts = {title: tables.verdict(record, title) for title in record["found"]["shortcut"]}
    ours = {title: verdicts[title] for title in planting.OURS}
    assert ours == {
        "LayerSumGradCAM": "yes",
        "DistilledLayerSumGradCAM": "yes",
        "DistilledLayerSumGradCAM, asked without watermarks": "no",
        "RISE": "yes",
        "PatternNet": "no",
        "PatternAttribution": "yes",
        "PatternAttribution, regime_centering": "yes",
        "NetworkDissection": "partly",
    }
    assert verdicts["LayerGradCam, last layer"] == "partly"
    agreement = record["students"]["shortcut"]
    assert agreement["asked with watermarks"] > 0.9
    assert agreement["asked without watermarks"] < 0.1


def test_the_difference_to_the_control_is_paired_and_has_its_sign():
    measures = ground_truth.MEASURES

    def all_of(values):
        return {"watermark": dict.fromkeys(measures, values)}

    first, second = [0.5, 0.9, 0.4], [0.25, 0.65, 0.15]
    found = ground_truth.differences(
        {
            "shortcut": {"m": all_of(first), "random": all_of([0.0, 0.4, 0.1])},
            "control": {"m": all_of(second)},
        }
    )
    same = {"mean": 0.25, "low": 0.25, "high": 0.25}
    assert found["to control"]["m"]["mass"] == same
    expected = paired_difference(torch.tensor(first), torch.tensor([0.0, 0.4, 0.1]))
    assert found["to random"]["m"]["mass"]["low"] == pytest.approx(expected.low, abs=1e-5)
    assert "random" not in found["to control"]


def test_the_scenes_are_those_where_the_watermark_is_the_cause(monkeypatch):
    monkeypatch.setattr(planting, "POOL", 24)
    scenes = planting.planted(10)
    shortcut, control = (load() for load in planting.NETWORKS.values())
    with torch.inference_mode():
        assert (shortcut(scenes.images).argmax(1) == scenes.watermarked_class).all()
        assert (control(scenes.images).argmax(1) == scenes.labels).all()
    assert (scenes.labels != scenes.watermarked_class).all()
    assert (scenes.targets("shortcut") == scenes.watermarked_class).all()
    assert torch.equal(scenes.targets("control"), scenes.labels)
    assert (scenes.regions["watermark"].sum((1, 2)) == 91).all()
    assert (scenes.regions["distractor"].sum((1, 2)) > 0).all()
    with pytest.raises(SystemExit, match="of 24 scenes only"):
        planting.planted(24)


def test_a_method_that_fails_is_a_line_of_the_table():
    values = {region: {name: [1.0, 0.0] for name in ground_truth.MEASURES} for region in REGIONS}
    found = {"good": values, "random": values, "bad": {"failed": "no layer"}}
    record = {
        "found": {"shortcut": found, "control": found},
        "differences": ground_truth.differences({"shortcut": found, "control": found}),
        "areas": dict.fromkeys(REGIONS, 0.1),
        "students": {"shortcut": {"asked with watermarks": 0.9}},
        "settings": {"images": 2, "tolerance": 4},
        "sha256": "0" * 64,
    }
    lines = tables.ground_truth(record).splitlines()
    assert lines[4].startswith("| bad | – |")
    assert lines[4].endswith("failed |")
    assert lines[2] == (
        "| good | 0.50 | 0.50 | 0.50 | 0.50 | 0.50 | 0.50 | 0.50 | +0.00 [+0.00, +0.00] | no |"
    )
