"""The committed results have the promised form, and the tables say what they say."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from captum_blackbox.report import paired_difference

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import claims  # noqa: E402
import estimators  # noqa: E402
import harness  # noqa: E402
import result_files  # noqa: E402
import speed_tables  # noqa: E402
import tables  # noqa: E402
from claims_methods import BOX_METHODS, STUDENT_METHODS  # noqa: E402
from ground_truth_methods import OURS  # noqa: E402
from ground_truth_tables import verdict  # noqa: E402

SPEED = [f"{suite}--cpu.json" for suite in speed_tables.SPEED_SUITES]
ESTIMATORS = [f"estimators-{name}.json" for name in tables.SUBJECTS]
CLAIMS = [f"claims-{dataset}.json" for dataset in tables.DATASETS]


def load(name):
    path = harness.RESULTS / name
    assert path.is_file(), f"{name} is missing: run its script in benchmarks/"
    return json.loads(path.read_text())


def check_environment(found):
    assert found["schema"] == harness.SCHEMA
    environment = found["environment"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", environment["date"])
    assert re.fullmatch(r"[0-9a-f]{12}(\+changes)?", environment["commit"])
    assert set(environment["packages"]) == set(harness.PACKAGES)
    assert environment["packages"]["torch"]
    assert environment["device"]
    assert environment["threads"] >= 1


@pytest.mark.parametrize("name", SPEED)
def test_a_file_of_speed_keeps_the_contract(name):
    found = load(name)
    check_environment(found)
    assert found["environment"]["threads"] == 1
    assert found["suite"] == name.split("--")[0]
    assert found["rounds"] >= 5
    assert found["rows"]
    for row in found["rows"]:
        assert row["floor_seconds"] > 0
        assert any(each.get("ours") for each in row["contestants"])
        for each in row["contestants"]:
            if "unavailable" in each:
                assert each["unavailable"]
                continue
            low, high = each["quartiles"]
            assert 0 < low <= each["ratio"] <= high
            assert each["rounds"] == found["rounds"] or each["rounds"] >= 3
            assert not each["ours"] or each["rounds"] >= 5
            assert each["goal"] is None or each["goal"] > 0


@pytest.mark.parametrize("name", CLAIMS)
def test_a_file_of_claims_has_an_area_for_each_image_method_and_game(name):
    found = load(name)
    check_environment(found)
    count = found["settings"]["images"]
    assert found["data"]["explained"][0] == count
    assert re.fullmatch("[0-9a-f]{64}", found["data"]["sha256"])
    assert set(found["baselines"]) == set(BOX_METHODS)
    assert found["students"]
    for entry in found["students"].values():
        assert 0 <= entry["agreement"] <= 1
        # A run on large images may be stopped before the last variants; the known ones are there.
        assert set(tables.SHORT) - set(BOX_METHODS) <= set(entry["methods"]) <= set(STUDENT_METHODS)
        for areas in (entry["methods"] | found["baselines"]).values():
            assert set(areas) == set(claims.GAMES)
            for values in areas.values():
                assert len(values) == count
                assert all(0 <= value <= 1 for value in values)
        assert set(entry["layer_importance"]) == set(claims.IMPORTANCE)
        layers = {tuple(each) for each in entry["layer_importance"].values()}
        assert len(layers) == 1
        shares = [each["mean"] for each in entry["layer_importance"]["energy"].values()]
        assert math.isclose(sum(shares), 1, abs_tol=1e-3)


@pytest.mark.parametrize("name", CLAIMS)
def test_the_differences_follow_from_the_areas(name):
    found = load(name)
    for entry in found["students"].values():
        assert entry["differences"], "the run did not end: start claims.py again"
        again = claims.differences(entry["methods"] | found["baselines"])
        assert set(again) == set(entry["differences"])
        for method, games in again.items():
            for game, values in games.items():
                assert values == pytest.approx(entry["differences"][method][game], abs=2e-5)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_file_of_estimators_has_a_fall_for_each_image_and_a_quality_for_each_layer(name):
    found = load(name)
    check_environment(found)
    settings = found["settings"]
    for method, values in found["degradation"].items():
        assert "aopc" in values, f"{method}: {values}"
        assert len(values["aopc"]) == settings["images"]
        curve = values["mean_curve"]
        assert all(0 <= value <= 1 for value in curve)
        fall = curve[0] - sum(curve) / len(curve)
        assert math.isclose(sum(values["aopc"]) / settings["images"], fall, abs_tol=2e-4)
    assert set(found["quality"]) == {*estimators.ESTIMATORS, "random"}
    layers = {tuple(each) for each in found["quality"].values()}
    assert len(layers) == 1
    again = dict(estimators._differences(found["degradation"]))
    assert set(again) == set(found["differences"])
    for method, values in again.items():
        assert values == pytest.approx(found["differences"][method], abs=2e-5)


# Layers with more inputs than their patterns have samples worth the name; docs/measured.md says so.
SCARCE = {"estimators-mobilenet.json": {"features.17.conv.2", "features.18.0", "classifier.1"}}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_order_of_the_paper_holds_in_every_layer_but_those_that_are_named(name):
    quality = load(name)["quality"]
    filters, baseline = quality["S_w (filter)"], quality["random"]
    wrong = set()
    for layer, found in filters.items():
        learned = [quality[each][layer] for each in ("S_a (linear)", "S_a+- (two-component)")]
        if not all(each["mean"] > found["mean"] >= baseline[layer]["mean"] for each in learned):
            wrong.add(layer)
    assert wrong == SCARCE.get(name, set())


def test_what_is_said_of_degradation_follows_from_the_files():
    found = {name: load(f"estimators-{name}.json") for name in tables.SUBJECTS}
    paper = found["squeezenet"]["differences"]
    for loser in ("S_a (linear)", "S_w (filter)", "Integrated Gradients", "last-layer Grad-CAM"):
        assert paper[loser]["high"] < 0
    lrp = "LRP (Zennit EpsilonPlusFlat)"
    assert paper[lrp]["low"] < 0 < paper[lrp]["high"]
    centred = f"{tables.ATTRIBUTION}, regime_centering"
    for name in ("mobilenet", "cifar", "demo"):
        assert found[name]["differences"][centred]["low"] > 0
        assert found[name]["differences"][lrp]["low"] > 0
    assert found["demo"]["differences"]["random"]["low"] > 0
    for name, said in (("mobilenet", (0.029, 0.015, 0.047)), ("cifar", (0.017, 0.008, 0.027))):
        falls = found[name]["degradation"]
        shares, gradient = (
            torch.tensor(falls[each]["aopc"]) for each in (f"{centred}, residual=pattern", centred)
        )
        difference = paired_difference(shares, gradient)
        numbers = (difference.mean, difference.low, difference.high)
        assert numbers == pytest.approx(said, abs=6e-4)


@pytest.mark.parametrize("path", sorted(harness.RESULTS.glob("*.json")), ids=lambda p: p.name)
def test_no_result_names_a_folder_of_the_machine(path):
    assert not re.search(r"[\"' ](/|[A-Za-z]:\\)[a-z]+/", path.read_text())


@pytest.mark.parametrize(
    ("page", "name", "make"),
    [(page, *each) for page, sections in tables.SECTIONS.items() for each in sections.items()],
)
def test_a_page_shows_the_results(page, name, make):
    text = (tables.ROOT / page).read_text()
    marked = tables.replaced(text, name, make())
    assert marked is not None, f"{page} lacks the marker <!-- benchmarks:{name} -->"
    assert marked == text, "run benchmarks/tables.py"


def mean_left(record, method, mode, measure):
    (row,) = (
        row
        for row in record["rows"]
        if (row["group"], row["judge"], row["name"], row["mode"], row["radius"])
        == ("curves", None, method, mode, 8)
    )
    return row["means"][measure]["mean"]


def test_what_the_readme_says_in_words_is_in_the_results():
    said = " ".join((tables.ROOT / "README.md").read_text().split())
    (planted,) = result_files.read("ground_truth.json")
    found = {name: verdict(planted, name) for name in planted["found"]["shortcut"]}
    verdicts = list(found.values())
    assert f"{verdicts.count('yes')} of {len(verdicts)} rows reveal it" in said
    assert [found[name] for name in OURS].count("yes") == 5
    assert "five of them ours" in said
    assert verdicts.count("partly") == 2
    assert "two reveal it partly" in said
    (attacked,) = result_files.read("fragility-squeezenet.json")
    shift = mean_left(attacked, "gradient", "mass_center", "center_shift")
    assert f"the centre of mass moves by {shift:.0f} pixels" in said
    assert mean_left(attacked, "gradient", "topk", "intersection") < 0.001
    lines = [line.strip("| ").split(" | ") for line in tables.goals().splitlines()[2:]]
    speed = {work: spread.replace("…", "to") for work, _, spread, _ in reversed(lines)}
    for words, work in (
        ("`LayerSumGradCAM`", "all-layer Grad-CAM"),
        ("of `PatternAttribution`", "PatternAttribution.attribute"),
        ("a step of an attack", "attack step"),
        ("a whole dissection", "whole dissection"),
        ("fitting patterns", "fitting patterns"),
    ):
        assert f"{words} {speed[work]}" in said
    counts = [met.split(" of ") for *_, met in lines]
    met, asked = (sum(map(int, each)) for each in zip(*counts, strict=True))
    assert f"{met} of {asked} are met" in said


def test_the_readme_of_the_results_is_made_of_them():
    text = (harness.RESULTS / "README.md").read_text()
    assert text == tables.everything(), "run benchmarks/tables.py"
    for figure in re.findall(r"\((figures/[^)]+)\)", text):
        path = harness.RESULTS / figure
        assert path.is_file(), f"{figure} is missing: run benchmarks/figures.py"
        assert path.stat().st_size < 150_000


def test_a_race_rotates_warms_up_and_takes_the_median_ratio_of_rounds(capsys):
    order = []
    durations = {"floor": 2.0, "slow": 6.0, "fixed": 5.0, "one": 3.0}

    def contestant(name, **settings):
        return harness.Contestant(name, lambda: order.append(name) or durations[name], **settings)

    others = [
        contestant("slow", rounds=1),
        harness.Contestant(
            "step", lambda: durations["fixed"], units=2, without=lambda: durations["one"]
        ),
    ]
    row = harness.race(
        "work", contestant("floor"), others, rounds=3, device="cpu", clock=lambda call: call()
    )
    # Round 0 warms up; "slow" leaves after round 1.
    assert order == ["floor", "slow", "slow", "floor", "floor", "floor"]
    slow, step = row["contestants"]
    assert (slow["ratio"], slow["rounds"]) == (3.0, 1)
    assert (step["ratio"], step["seconds"], step["rounds"]) == (0.5, 1.0, 3)
    assert "3.000" in capsys.readouterr().out


def test_a_ratio_belongs_to_one_round():
    # A machine that becomes ten times slower does not change it.
    clock = iter([1.0, 2.0, 2.0, 1.0, 10.0, 20.0])
    row = harness.race(
        "work",
        harness.Contestant("floor", lambda: None),
        [harness.Contestant("other", lambda: None)],
        rounds=2,
        device="cpu",
        clock=lambda _: next(clock),
    )
    assert row["contestants"][0]["ratio"] == 2.0
    assert row["contestants"][0]["quartiles"] == [2.0, 2.0]


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "results" / "a.json"
    harness.write_json(path, {"text": "[a,\n b]", "numbers": [1.5, 2]})
    assert json.loads(path.read_text()) == {"text": "[a,\n b]", "numbers": [1.5, 2]}
    assert '"numbers": [ 1.5, 2 ]' in path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        harness.write_json(path, {"numbers": [math.nan]})
    assert [each.name for each in path.parent.iterdir()] == ["a.json"]
    assert json.loads(path.read_text())["numbers"] == [1.5, 2]


def test_the_interval_is_the_percentile_bootstrap():
    generator = np.random.default_rng(1)
    values, reference = generator.random((2, 60))
    found = claims.paired_difference(values.tolist(), reference.tolist())
    expected = scipy.stats.bootstrap(
        (values - reference,), np.mean, n_resamples=10_000, method="percentile", rng=2
    ).confidence_interval
    assert found["mean"] == round(float((values - reference).mean()), 5)
    assert found["low"] == pytest.approx(expected.low, abs=0.005)
    assert found["high"] == pytest.approx(expected.high, abs=0.005)


def test_a_constant_difference_is_certain():
    found = claims.paired_difference([0.5, 0.75, 1.0], [0.25, 0.5, 0.75])
    assert found == {"mean": 0.25, "low": 0.25, "high": 0.25}


def test_a_table_goes_between_its_markers_only():
    text = "a\n<!-- benchmarks:speed -->\nold\n<!-- /benchmarks:speed -->\nz"
    new = "a\n<!-- benchmarks:speed -->\nnew\n<!-- /benchmarks:speed -->\nz"
    assert tables.replaced(text, "speed", "new") == new
    assert tables.replaced(text, "claims", "new") is None


def test_losses_are_said_in_words():
    ours = {"name": "ours", "ratio": 1.3, "goal": 1.1}
    faster, slower = {"name": "fast", "ratio": 1.2}, {"name": "slow", "ratio": 9.0}
    absent = {"name": "absent", "unavailable": "no module"}
    said = speed_tables._verdict(ours, [faster, slower, absent])
    assert said == "**goal missed**, **slower than fast**"


@pytest.mark.parametrize(
    ("game", "low", "high", "mark"),
    [
        ("deletion", -0.2, -0.1, " ✓"),
        ("deletion", 0.1, 0.2, " ✗"),
        ("insertion", 0.1, 0.2, " ✓"),
        ("insertion", -0.2, -0.1, " ✗"),
        ("insertion", -0.1, 0.1, ""),
    ],
)
def test_a_difference_is_better_or_worse_in_the_direction_of_its_game(game, low, high, mark):
    entry = {"differences": {"m": {game: {"mean": 0.0, "low": low, "high": high}}}}
    assert tables._difference(entry, "m", game) == f"+0.000 [{low:+.3f}, {high:+.3f}]{mark}"
