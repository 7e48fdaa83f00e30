"""The committed results of the attack on exemplars have the promised form, and say what we say."""

import json
import math
import re
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import harness  # noqa: E402
import influence  # noqa: E402

DATASETS = list(influence.STUDIES)
ONE, TEN, CHANCE = influence.METHODS
CASES = [(dataset, name) for dataset in DATASETS for name in influence.STUDIES[dataset]]
each_subject = pytest.mark.parametrize(("dataset", "name"), CASES)


def load(dataset):
    path = harness.RESULTS / f"influence-{dataset}.json"
    assert path.is_file(), f"{path.name} is missing: run benchmarks/influence.py {dataset}"
    return json.loads(path.read_text())


def mean(subject, method, radius, measure):
    return subject["radii"][method][str(radius)][measure]["mean"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_file_belongs_to_its_settings(dataset):
    found = load(dataset)
    assert found["schema"] == harness.SCHEMA and found["suite"] == f"influence-{dataset}"
    assert found["environment"]["threads"] == 1 and found["environment"]["packages"]["captum"]
    assert found["settings"]["hessian_reg"] == influence.REG and found["settings"]["top"] == 3
    assert found["published"] == influence.PUBLISHED
    assert list(found["subjects"]) == list(influence.STUDIES[dataset])


@each_subject
def test_every_radius_and_method_has_its_numbers(dataset, name):
    found = load(dataset)
    subject = found["subjects"][name]
    assert re.fullmatch("[0-9a-f]{64}", subject["sha256"])
    assert subject["images"] == found["settings"]["images"]
    assert subject["training_points"] <= found["settings"]["points"]
    assert subject["parameters"] > 0 and 0.5 < subject["accuracy"] <= 1
    assert list(subject["radii"]) == list(influence.METHODS)
    for rows in subject["radii"].values():
        assert list(rows) == [str(radius) for radius in influence.RADII[dataset]]
        for row in rows.values():
            for measure, least, most in (
                ("of_top_5", 0, 5), ("rank_correlation", -1, 1), ("top_1_replaced", 0, 1),
            ):  # fmt: skip
                numbers = row[measure]
                assert least <= numbers["low"] <= numbers["mean"] <= numbers["high"] <= most
            assert row["label_kept"] == 1
            assert 0 <= row["success"] <= row["moved"] <= 1
            # Means of as many images: a whole number of them, and of their exemplars.
            for value, parts in ((row["moved"], 1), (row["of_top_5"]["mean"], 1)):
                count = value * subject["images"] * parts
                assert math.isclose(count, round(count), abs_tol=6e-5 * subject["images"])


@each_subject
def test_the_attack_is_stronger_than_random_signs(dataset, name):
    """Ten steps at every radius; the published single step as long as it keeps most labels."""
    subject = load(dataset)["subjects"][name]
    for radius in influence.RADII[dataset]:
        methods = [TEN]
        if subject["radii"][ONE][str(radius)]["moved"] >= 0.9:
            methods.append(ONE)
        for method in methods:
            for measure in ("of_top_5", "rank_correlation"):
                ours, theirs = (mean(subject, each, radius, measure) for each in (method, CHANCE))
                # A radius of 1 hardly changes anything, and a hundredth is one image in hundred.
                assert ours <= theirs + 0.005, (method, radius, measure)


@each_subject
def test_at_the_published_radius_it_is_stronger_by_more_than_chance(dataset, name):
    rows = load(dataset)["subjects"][name]["radii"]
    for measure in ("of_top_5", "rank_correlation"):
        assert rows[TEN]["8"][measure]["high"] < rows[CHANCE]["8"][measure]["low"]


@each_subject
def test_a_larger_radius_leaves_less_in_common(dataset, name):
    subject = load(dataset)["subjects"][name]
    for method in (TEN, CHANCE):
        left = [
            mean(subject, method, radius, "rank_correlation") for radius in influence.RADII[dataset]
        ]
        assert left[-1] < left[0]
