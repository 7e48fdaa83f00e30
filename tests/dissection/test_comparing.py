"""Dissections side by side: a row for each, and everything else left alone."""

import copy
import csv
import re
from dataclasses import replace

import pytest
import torch
from naive_dissection import random_concepts
from networks import GapLinear, State, TwoConvs
from planted_units import assert_same_result

from captum_blackbox import NetworkDissection
from captum_blackbox.dissection.comparing import (
    DissectionComparison,
    compare_checkpoints,
    compare_layers,
    compare_networks,
    compare_quantiles,
    compare_rotations,
)
from captum_blackbox.errors import ArtifactError, DataError, InputError

QUIET = {"show_progress": False}
CONCEPTS = random_concepts()
SETTINGS = {"quantile": 0.1, "upsample": "resize", "iou_threshold": 0.13}


def network(seed=0):
    torch.manual_seed(seed)
    return GapLinear(6).double()


def dissection(layer="relu", model=None, **settings):
    return NetworkDissection(model or network(), layer, **{**SETTINGS, **settings})


def test_layers():
    several = dissection(["conv", "relu"])
    comparison = compare_layers(several, CONCEPTS, **QUIET)
    assert comparison.varied == "layer"
    assert comparison.values is None
    for layer, result in comparison.results.items():
        alone = dissection(layer).dissect(CONCEPTS, **QUIET)
        assert torch.equal(result.intersection, alone.intersection)
        assert result.layer == layer
    assert list(comparison.results) == ["conv", "relu"]
    single = compare_layers(dissection("relu"), CONCEPTS, **QUIET)
    assert list(single.results) == ["relu"]


def test_networks():
    networks = {name: dissection(model=network(seed)) for seed, name in enumerate(["one", "two"])}
    comparison = compare_networks(networks, CONCEPTS, batch_size=2, **QUIET)
    assert comparison.varied == "network"
    assert [row["network"] for row in comparison.table()] == ["one", "two"]
    for name, each in networks.items():
        expected = each.dissect(CONCEPTS, **QUIET)
        assert torch.equal(comparison.results[name].intersection, expected.intersection)


def test_nothing_cannot_be_compared():
    for compared, what in (
        (lambda: compare_networks({}, CONCEPTS), "network"),
        (lambda: compare_checkpoints(dissection(), {}, CONCEPTS), "checkpoint"),
        (lambda: compare_quantiles(dissection(), CONCEPTS, ()), "quantile"),
    ):
        message = f"^there is nothing to compare; give at least one {what}$"
        with pytest.raises(InputError, match=message):
            compared()


def test_checkpoints():
    own = dissection()
    states = {str(step): network(step).state_dict() for step in (10, 200)}
    before = State(own.model)
    kept = copy.deepcopy(states)
    comparison = compare_checkpoints(own, states, CONCEPTS, **QUIET)
    assert not before.differences(State(own.model))
    assert own.results == {}
    assert (comparison.varied, comparison.values) == ("checkpoint", (10.0, 200.0))
    for name, result in comparison.results.items():
        expected = dissection(model=network(int(name))).dissect(CONCEPTS, **QUIET)
        assert_same_result(result, expected)
        for key, tensor in states[name].items():
            assert torch.equal(tensor, kept[name][key])
    assert compare_checkpoints(own, {"last": network().state_dict()}, CONCEPTS, **QUIET).values is (
        None
    )


def test_quantiles():
    own = dissection(level=0.5)
    comparison = compare_quantiles(own, CONCEPTS, (0.02, 0.2), **QUIET)
    assert (comparison.varied, comparison.values) == ("quantile", (0.02, 0.2))
    for quantile, result in zip((0.02, 0.2), comparison.results.values(), strict=True):
        assert_same_result(result, dissection(quantile=quantile).dissect(CONCEPTS, **QUIET))
    tight, loose = (each.activation.sum() for each in comparison.results.values())
    assert tight < loose
    assert own.settings.level == 0.5


def test_rotations():
    own = dissection()
    comparison = compare_rotations(own, CONCEPTS, (0.0, 0.5), seed=3, **QUIET)
    assert (comparison.varied, comparison.values) == ("rotation", (0.0, 0.5))
    for alpha, result in zip((0.0, 0.5), comparison.results.values(), strict=True):
        assert_same_result(result, own.rotate(alpha, 3).dissect(CONCEPTS, **QUIET))


COMPARE = {
    "networks": lambda own, **options: compare_networks({"a": own}, CONCEPTS, **options),
    "checkpoints": lambda own, **options: compare_checkpoints(
        own, {"a": own.model.state_dict()}, CONCEPTS, **options
    ),
    "quantiles": lambda own, **options: compare_quantiles(own, CONCEPTS, (0.1,), **options),
    "rotations": lambda own, **options: compare_rotations(own, CONCEPTS, (0.0,), **options),
}


@pytest.mark.parametrize("compare", COMPARE)
def test_a_list_of_one_layer_is_one_layer(compare):
    comparison = COMPARE[compare](dissection(["relu"]), **QUIET)
    (result,) = comparison.results.values()
    expected = dissection("relu").dissect(CONCEPTS, **QUIET)
    assert torch.equal(result.intersection, expected.intersection)
    assert len(comparison.table()) == 1


@pytest.mark.parametrize("compare", COMPARE)
def test_several_layers_are_refused_before_anything_runs(compare):
    ran = []
    own = dissection(["conv", "relu"])
    own.model.register_forward_pre_hook(lambda *_: ran.append(1))
    with pytest.raises(InputError, match="^this needs one layer, and there are 'conv', 'relu'"):
        COMPARE[compare](own, **QUIET)
    assert not ran


def test_a_row_says_what_was_found():
    comparison = compare_layers(dissection(["conv", "relu"]), CONCEPTS, **QUIET)
    for row, (layer, result) in zip(comparison.table(), comparison.results.items(), strict=True):
        assert list(row) == [
            "layer",
            "units",
            "detectors",
            "unique",
            *CONCEPTS.categories,
            "mean_best_iou",
        ]
        detected = [
            {score.label for unit in result.units() if (score := unit.scores[category]).iou > 0.13}
            for category in CONCEPTS.categories
        ]
        assert (row["layer"], row["units"]) == (layer, 6)
        assert [row[category] for category in CONCEPTS.categories] == list(map(len, detected))
        assert row["unique"] == sum(map(len, detected)) == result.unique_detectors()
        assert row["detectors"] == int((result.iou.amax(1) > 0.13).sum())
        assert row["mean_best_iou"] == pytest.approx(float(result.iou.amax(1).mean()))


def awkward():
    """Names with what CSV and Markdown give a meaning."""
    result = dissection().dissect(CONCEPTS, **QUIET)
    names = ["plain", "a|b", 'with, "quotes"', "naïve\u2028"]
    return DissectionComparison("network", dict.fromkeys(names, result))


def test_the_csv_reads_back(tmp_path):
    comparison = awkward()
    comparison.to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [{key: str(each) for key, each in row.items()} for row in comparison.table()]
    assert rows == expected
    with pytest.raises(ArtifactError):
        comparison.to_csv(tmp_path / "a.csv" / "below")


def test_numbers_stand_below_their_categories_where_results_have_others(tmp_path):
    concepts = random_concepts()
    asked = ("scene", "object", "color")
    concepts.categories, annotations = asked, concepts.annotations
    concepts.labels = tuple(label for label in concepts.labels if label.category in asked)
    concepts.annotations = lambda index: {
        name: each for name, each in annotations(index).items() if name == "scene"
    }
    results = {
        "all": dissection().dissect(CONCEPTS, **QUIET),
        "some": dissection().dissect(concepts, **QUIET),
    }
    comparison = DissectionComparison("concepts", results)
    comparison.to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, expected in zip(rows, comparison.table(), strict=True):
        assert {key: each for key, each in row.items() if each} == {
            key: str(each) for key, each in expected.items()
        }
    assert rows[1]["part"] == ""
    lines = [line.strip("| ").split(" | ") for line in str(comparison).split("\n")]
    assert {len(line) for line in lines} == {len(rows[0])}


def test_the_csv_has_no_formula(tmp_path):
    result = dissection().dissect(CONCEPTS, **QUIET)
    DissectionComparison("network", {"=1+1": result}).to_csv(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines()[1].startswith("'=1+1,")


def test_the_markdown_reads_back():
    comparison = awkward()
    first, second, *lines = str(comparison).split("\n")
    rows = [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in (first, *lines)
    ]
    assert rows[0] == list(comparison.table()[0])
    assert set(second) == {"|", "-", " "} and second.count("---") == len(rows[0])
    for row, expected in zip(rows[1:], comparison.table(), strict=True):
        expected = [f"{v:.4f}" if isinstance(v, float) else str(v) for v in expected.values()]
        assert row == [each.strip() for each in expected]


def test_runs_share_a_folder_for_what_is_unfinished(tmp_path):
    """The second of three stops; the first is not in its way when all go on."""

    class Stops(type(CONCEPTS)):
        left = 12

        def annotations(self, index):
            type(self).left -= 1
            if self.left == 0:
                raise DataError("gone")
            return super().annotations(index)

    made = CONCEPTS
    concepts = Stops(made._images, made._annotations, made.labels, made.categories)
    options = {"checkpoint": tmp_path, "checkpoint_every": 1, "batch_size": 1, **QUIET}
    quantiles = (0.05, 0.1, 0.2)
    with pytest.raises(DataError, match="gone"):
        compare_quantiles(dissection(), concepts, quantiles, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["0-1"]
    found = compare_quantiles(dissection(), concepts, quantiles, **options)
    expected = compare_quantiles(dissection(), CONCEPTS, quantiles, batch_size=1, **QUIET)
    for name, result in found.results.items():
        assert_same_result(result, expected.results[name])
    assert not list(tmp_path.iterdir())


def test_a_copy_is_compared_where_the_network_is_used_elsewhere():
    model = TwoConvs().double().train()
    own = NetworkDissection(model, "conv2", **SETTINGS)
    before = State(model)
    changed = own.changed(quantile=0.3)
    assert (own.settings.quantile, changed.settings.quantile) == (0.1, 0.3)
    assert changed.settings == replace(own.settings, quantile=0.3)
    assert changed.model is model
    compare_checkpoints(own, {"0": TwoConvs().state_dict()}, CONCEPTS, **QUIET)
    assert not before.differences(State(model))
