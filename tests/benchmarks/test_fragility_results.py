"""The committed fragility results belong to their settings and say what the paper says."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import fragility_data  # noqa: E402
import fragility_tables  # noqa: E402
import harness  # noqa: E402

from captum_blackbox.statistics.bootstrap import estimate  # noqa: E402

NETWORKS = list(fragility_data.SUBJECTS)


METHODS = ("gradient", "DeepLIFT", "integrated gradients")
ORDERINGS = {
    *(f"{name}: {claim}" for name in METHODS for claim in (
        "top-k far below random signs",
        "mass centre moves the centre more than random signs",
        "mass centre moves the centre more than top-k",
    )),
    *(f"integrated gradients more robust than {name}, {measure}"
      for name in METHODS[:2] for measure in ("intersection", "rank correlation")),
    "gradient: a larger radius leaves less in common",
}  # fmt: skip


def load(network):
    path = harness.RESULTS / f"fragility-{network}.json"
    assert path.is_file(), f"{path.name} is missing: run benchmarks/fragility.py"
    return json.loads(path.read_text())


@pytest.mark.parametrize("network", NETWORKS)
def test_a_file_belongs_to_its_settings(network):
    found = load(network)
    assert found["schema"] == harness.SCHEMA and found["suite"] == f"fragility-{network}"
    assert found["environment"]["threads"] == 1
    assert re.fullmatch("[0-9a-f]{64}", found["data"]["sha256"])
    jobs = found["settings"]["jobs"]
    assert len(jobs) >= len(found["seconds"]) and found["complete"] == (
        len(jobs) == len(found["seconds"])
    )
    assert found["settings"]["k"] == {"squeezenet": 1000, "cifar": 100}[network]
    assert not found["failures"]
    planned = {(job["group"], job["name"], job["radius"]) for job in jobs}
    for row in found["rows"]:
        assert (row["group"], row["name"], row["radius"]) in planned
        sizes = {
            sum(job["last"] - job["first"] for job in jobs[: len(found["seconds"])]
                if (job["group"], job["name"], job["radius"]) == (
                    row["group"], row["name"], row["radius"]) and row["mode"] in job["modes"]
                and (row["judge"] is None or job["transfer"]))
        }  # fmt: skip
        assert sizes == {row["images"]}


@pytest.mark.parametrize("network", NETWORKS)
def test_means_follow_from_the_values_and_the_ball_and_the_label_hold(network):
    for row in load(network)["rows"]:
        for measure, numbers in row["values"].items():
            known = [torch.nan if value is None else value for value in numbers]
            assert len(known) == row["images"]
            again = estimate(torch.tensor(known, dtype=torch.float64))
            mean = row["means"][measure]
            assert mean["mean"] == pytest.approx(again.mean, abs=2e-4)
            assert (mean["low"], mean["high"]) == pytest.approx((again.low, again.high), abs=2e-4)
        if row["judge"] is None:
            assert row["means"]["linf"]["high"] <= row["radius"] / 255 + 1e-4
            assert row["means"]["label_kept"]["low"] == 1


@pytest.mark.parametrize("network", NETWORKS)
def test_the_orderings_follow_from_the_rows(network):
    found = load(network)
    assert found["orderings"] == fragility_tables.orderings(found["rows"])


def cell(rows, name, mode, measure):
    """The mean of a row of the figure at radius 8, ``None`` where it is not there yet."""
    key = ("curves", None, name, mode, fragility_tables.RADIUS)
    for row in rows:
        if (row["group"], row["judge"], row["name"], row["mode"], row["radius"]) == key:
            return row["means"][measure]["mean"]
    return None


@pytest.mark.parametrize("network", NETWORKS)
def test_every_ordering_of_the_paper_is_listed_and_measured_once_the_run_is_complete(network):
    found = load(network)
    assert set(found["orderings"]) == ORDERINGS
    if found["complete"]:
        assert None not in found["orderings"].values()


# What holds on the networks here. The others stand in the file, held or not.
HELD = [
    *(("squeezenet", f"{name}: {claim}") for name in ("gradient", "integrated gradients")
      for claim in (
          "top-k far below random signs",
          "mass centre moves the centre more than random signs",
          "mass centre moves the centre more than top-k",
      )),
    ("squeezenet", "DeepLIFT: top-k far below random signs"),
    ("squeezenet", "gradient: a larger radius leaves less in common"),
    ("cifar", "gradient: top-k far below random signs"),
    ("cifar", "gradient: mass centre moves the centre more than random signs"),
]  # fmt: skip


@pytest.mark.parametrize(("network", "claim"), HELD)
def test_an_ordering_holds_or_its_row_is_not_there_yet(network, claim):
    found = load(network)
    verdict = found["orderings"][claim]
    assert verdict is True or (verdict is None and not found["complete"])


@pytest.mark.parametrize("network", NETWORKS)
def test_the_plain_means_say_so_too(network):
    """Over all images, also those whose label random signs change and that count as clean."""
    rows = load(network)["rows"]
    systematic, chance = (
        cell(rows, "gradient", mode, "intersection") for mode in ("topk", "random")
    )
    assert systematic < fragility_tables.FAR * chance  # the first row of all, always there
    moved, by_chance = (
        cell(rows, "gradient", mode, "center_shift") for mode in ("mass_center", "random")
    )
    assert moved > by_chance


def test_published_numbers_are_those_of_the_picture():
    """Spot checks: the claims that the paper makes in words."""
    overlap = fragility_data.PUBLISHED["intersection"]
    for values in overlap.values():
        topk, center, chance = values[8]
        assert topk <= center < chance < 0.3  # "random signs leave fewer than 30 %"
    assert overlap["integrated gradients"][8][0] > 10 * overlap["gradient"][8][0]
    shift = fragility_data.PUBLISHED["center_shift"]
    assert all(values[8][1] > values[8][0] > values[8][2] for values in shift.values())
    for measure in fragility_data.PUBLISHED.values():
        for radii in measure.values():
            assert list(radii) == [1, 2, 4, 8]


def test_orderings_are_compared_on_the_same_images_and_only_where_random_signs_keep_the_label():
    def row(name, mode, values, success=None, radius=8):
        kept = [1.0] * len(values) if success is None else success
        numbers = dict.fromkeys(("intersection", "rank_correlation", "center_shift"), values)
        return {
            "group": "curves", "judge": None, "name": name, "mode": mode, "radius": radius,
            "values": {**numbers, "success": kept},
        }  # fmt: skip

    rows = [
        row("gradient", "topk", [0.3, 0.3, 0.9]),
        row("gradient", "random", [0.4, 1.0, None], [1.0, 0.0, None]),
        row("DeepLIFT", "topk", [0.1, 0.1]),
        row("DeepLIFT", "random", [0.4, 1.0], [1.0, 0.0]),
        row("integrated gradients", "topk", [0.2]),
    ]
    found = fragility_tables.orderings(rows)
    assert found["gradient: top-k far below random signs"] is False  # 0.3 is not far below 0.4
    assert found["DeepLIFT: top-k far below random signs"] is True
    assert found["integrated gradients more robust than gradient, intersection"] is False
    assert found["integrated gradients more robust than DeepLIFT, intersection"] is True
    assert found["gradient: mass centre moves the centre more than top-k"] is None
    assert found["gradient: a larger radius leaves less in common"] is None
    rows.append(row("gradient", "topk", [0.5, 0.1], radius=2))
    assert (
        fragility_tables.orderings(rows)["gradient: a larger radius leaves less in common"] is False
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_all_methods_walk_alike_within_a_budget(network):
    for budget in ("quick", "decisions", "paper"):
        jobs = fragility_data.jobs(network, budget)
        curves = [job for job in jobs if job.group == "curves"]
        assert {job.method for job in curves} == set(fragility_data.METHODS)
        assert len({(job.steps, job.step, job.check_every) for job in curves}) == 1
        for job in curves:
            assert job.steps * job.step >= job.radius  # the ball is reached
        slices = [(job.name, job.radius, job.first) for job in curves]
        assert len(set(slices)) == len(slices)
    assert {(job.steps, job.step) for job in curves} == {(300, 0.5)}
