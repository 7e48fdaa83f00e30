"""A dissection follows from its counts, adds up over parts of the data, and survives a file."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_blackbox.artifacts import save_artifact
from captum_blackbox.concepts.concepts import Label
from captum_blackbox.dissection.result import Dissection
from captum_blackbox.dissection.unit_files import read_units
from captum_blackbox.dissection.units import Score, Unit, count_detectors
from captum_blackbox.errors import ArtifactError, InputError, ShapeError

LABELS = (
    Label("car", "object"),
    Label("red", "color"),
    Label("dog", "object"),
    Label("wheel", "part"),
)
TENSORS = (
    "thresholds",
    "intersection",
    "activation",
    "truth",
    "top_images",
    "top_activations",
)


def dissection(**changes):
    """Three units: a car detector that also likes wheels, a constant one, a faint dog."""
    parts = {
        "layer": "features.3",
        "categories": ("object", "color", "part"),
        "labels": LABELS,
        "thresholds": torch.tensor([0.5, 2.0, 1.0]),
        "intersection": torch.tensor([[20, 1, 5, 20], [0, 0, 0, 0], [0, 0, 1, 0]]),
        "activation": torch.tensor([[40, 50, 48], [0, 0, 0], [6, 9, 0]]),
        "truth": torch.tensor([60, 9, 15, 52]),
        "top_images": torch.tensor([[3, 0], [0, 1], [2, 3]]),
        "top_activations": torch.tensor([[5.0, 4.0], [2.0, 2.0], [1.5, 1.25]]),
        "settings": {"iou_threshold": 0.04, "images": 4, "data": "a", "image_size": (8, 8)},
        "skipped": ("7.png: it is broken",),
    }
    return Dissection(**{**parts, **changes})


def assert_same(found, expected):
    for name in TENSORS:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    for name in ("layer", "categories", "labels", "settings", "skipped"):
        assert getattr(found, name) == getattr(expected, name)


def random_part(seed, data):
    """Counts of a part of the data; the thresholds are those of all parts."""
    random = torch.Generator().manual_seed(seed)
    intersection = torch.randint(3, (3, 4), generator=random)
    activation = torch.stack(
        [intersection[:, [0, 2]].sum(1), intersection[:, 1], intersection[:, 3]], dim=1
    )
    values = torch.randint(4, (3, 2), generator=random).float()
    return dissection(
        intersection=intersection,
        activation=activation + 1,
        truth=intersection.sum(0),
        top_images=torch.rand(3, 4, generator=random).argsort(1)[:, :2],
        top_activations=values.sort(dim=1, descending=True).values,
        settings={"iou_threshold": 0.04, "images": 3, "data_size": 4, "data": data, "inputs": data},
    )


def test_each_unit_has_its_best_label_in_each_category():
    # By hand: 20 / (40 + 60 - 20), 1 / (50 + 9 - 1), 20 / (48 + 52 - 20).
    result = dissection()
    torch.testing.assert_close(result.iou[0], torch.tensor([0.25, 1 / 58, 5 / 50, 0.25]).double())
    assert result.units() == [
        Unit(
            0,
            "part",
            {
                "object": Score("car", 60, 40, 20),
                "color": Score("red", 9, 50, 1),
                "part": Score("wheel", 52, 48, 20),
            },
        ),
        Unit(
            1,
            "part",
            {
                "object": Score("car", 60, 0, 0),
                "color": Score("red", 9, 0, 0),
                "part": Score("wheel", 52, 0, 0),
            },
        ),
        Unit(
            2,
            "object",
            {
                "object": Score("dog", 15, 6, 1),
                "color": Score("red", 9, 9, 0),
                "part": Score("wheel", 52, 0, 0),
            },
        ),
    ]
    assert [unit.iou for unit in result.units()] == [0.25, 0.0, 0.05]


def test_the_units_agree_with_the_scores_of_all_labels():
    result = random_part(0, "a")
    for unit, row in zip(result.units(), result.iou, strict=True):
        assert unit.iou == row.max()
        for score in unit.scores.values():
            assert score.iou == row[[label.name for label in LABELS].index(score.label)]


def test_detectors_are_counted_above_the_threshold_of_the_settings_or_another():
    result = dissection()
    assert result.count() == count_detectors(result.units(), 0.04)
    assert result.unique_detectors() == 3
    assert result.unique_detectors("best_only") == 2
    assert result.count("best_only", 0.1).concepts["part"] == {"wheel": (0,)}
    assert [unit.unit for unit in result.detectors()] == [0, 2]
    assert [unit.unit for unit in result.detectors(0.1)] == [0]
    assert result.units_of("wheel") == [0]
    assert result.units_of("dog") == [2]
    assert result.units_of("car") == []


def test_a_concept_that_is_none_is_refused_and_near_ones_named():
    with pytest.raises(InputError) as caught:
        dissection().units_of("whel")
    assert str(caught.value) == ("there is no concept 'whel' among the 4; did you mean 'wheel'?")
    with pytest.raises(InputError) as caught:
        dissection().units_of("xyz")
    assert str(caught.value) == "there is no concept 'xyz' among the 4"


def test_it_says_in_one_line_what_was_found():
    assert repr(dissection()) == (
        "Dissection(layer='features.3', units=3, labels=4, images=4, detectors=2, "
        "unique_detectors=3, iou_threshold=0.04)"
    )


def test_a_category_without_a_label_scores_0_and_has_a_column(tmp_path):
    result = dissection(
        labels=LABELS[:3],
        intersection=dissection().intersection[:, :3],
        truth=dissection().truth[:3],
    )
    assert [unit.scores["part"] for unit in result.units()] == [
        Score("", 0, 48, 0),
        Score("", 0, 0, 0),
        Score("", 0, 0, 0),
    ]
    assert result.unique_detectors() == 2
    result.to_csv(tmp_path / "units.csv")
    assert read_units(tmp_path / "units.csv") == result.units()


def test_csv_and_json_hold_the_whole_table(tmp_path):
    result = dissection(top_activations=torch.tensor([[5.0, 4.0], [2.0, 2.0], [1.5, -torch.inf]]))
    result.to_csv(tmp_path / "new" / "units.csv")
    assert read_units(tmp_path / "new" / "units.csv") == result.units()
    result.to_json(tmp_path / "new" / "units.json")
    table = json.loads((tmp_path / "new" / "units.json").read_text())
    assert table["layer"] == "features.3"
    assert table["settings"] == {
        "iou_threshold": 0.04, "images": 4, "data": "a", "image_size": [8, 8]
    }  # fmt: skip
    assert table["skipped"] == ["7.png: it is broken"]
    assert table["unique_detectors"] == {"object": 2, "color": 0, "part": 1}
    assert table["units"][2] == {
        "unit": 2,
        "label": "dog",
        "category": "object",
        "iou": 0.05,
        "scores": {
            "object": {
                "label": "dog", "truth": 15, "activation": 6, "intersection": 1, "iou": 0.05
            },
            "color": {"label": "red", "truth": 9, "activation": 9, "intersection": 0, "iou": 0.0},
            "part": {"label": "wheel", "truth": 52, "activation": 0, "intersection": 0, "iou": 0.0},
        },
        "threshold": 1.0,
        "top_images": [2, 3],
        "top_activations": [1.5, None],
    }  # fmt: skip


def test_what_is_saved_is_loaded(tmp_path):
    result = dissection(thresholds=torch.tensor([0.1, 2.0, 1 / 3], dtype=torch.float64))
    result.save(tmp_path / "layer.safetensors")
    loaded = Dissection.load(tmp_path / "layer.safetensors")
    assert_same(loaded, result)
    assert loaded.units() == result.units()


def test_a_foreign_or_broken_file_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_artifact(path, {"truth": torch.ones(2)}, {"kind": "patterns"})
    with pytest.raises(ArtifactError) as caught:
        Dissection.load(path)
    assert str(caught.value) == (
        f"{str(path)!r} does not belong here: kind is 'patterns' in the file, 'dissection' here; "
        "give another file, or the settings that this one was made with"
    )
    header = {
        "kind": "dissection", "layer": "a", "categories": ["object"], "labels": [], "skipped": [],
        "settings": {},
    }  # fmt: skip
    save_artifact(path, {"truth": torch.ones(2)}, header)
    with pytest.raises(ArtifactError) as caught:
        Dissection.load(path)
    assert str(caught.value) == f"{str(path)!r} holds no whole dissection: 'thresholds'"


@given(st.integers(0, 2**31))
def test_parts_of_the_data_add_up_in_any_grouping(seed):
    one, two, three = (random_part(seed + n, name) for n, name in enumerate("abc"))
    whole = one.merge(two).merge(three)
    assert_same(one.merge(two.merge(three)), whole)
    for name in ("intersection", "activation", "truth"):
        together = sum(getattr(each, name) for each in (one, two, three))
        assert torch.equal(getattr(whole, name), together)
    assert whole.settings == {
        "iou_threshold": 0.04, "images": 9, "data_size": 12, "data": "a+b+c", "inputs": "a"
    }  # fmt: skip
    for unit in range(3):  # the highest of all, numbered as in one data set after the other
        every = sorted(
            (-value, number + 4 * part)
            for part, each in enumerate((one, two, three))
            for value, number in zip(
                each.top_activations[unit].tolist(), each.top_images[unit].tolist(), strict=True
            )
        )
        assert whole.top_images[unit].tolist() == [number for _, number in every[:2]]
        assert whole.top_activations[unit].tolist() == [-value for value, _ in every[:2]]


def test_merging_leaves_both_as_they_are():
    one, two = random_part(0, "a"), random_part(1, "b")
    one.merge(two)
    assert_same(one, random_part(0, "a"))
    assert_same(two, random_part(1, "b"))


def test_parts_that_do_not_fit_are_not_merged():
    result = dissection()
    for other, what in (
        (dissection(layer="features.4"), "layer"),
        (dissection(labels=(Label("bus", "object"), *LABELS[1:])), "labels"),
        (dissection(thresholds=torch.ones(3)), "thresholds"),
        (dissection(settings={**result.settings, "presence": "mask"}), "settings"),
        (dissection(layer="a", thresholds=torch.ones(3)), "layer and thresholds"),
    ):
        with pytest.raises(ArtifactError) as caught:
            result.merge(other)
        assert str(caught.value) == (
            f"these dissections cannot be merged, they differ in {what}; dissect both parts with "
            "the same thresholds and settings"
        )
    other = dissection(settings={**result.settings, "data": "b"})
    with pytest.raises(ArtifactError) as caught:
        result.merge(other).merge(dissection())
    assert str(caught.value) == (
        "these dissections cannot be merged, both have counted the data ['a']"
    )


def test_parts_that_do_not_fit_each_other_are_no_dissection():
    for changes, kind, message in (
        (
            {"truth": torch.ones(3, dtype=torch.int64)},
            ShapeError,
            "expected truth of 3 units, 4 labels and 3 categories as (4,) int64, got (3,) "
            "torch.int64",
        ),
        (
            {"activation": torch.ones(3, 3)},
            ShapeError,
            "expected activation of 3 units, 4 labels and 3 categories as (3, 3) int64, got "
            "(3, 3) torch.float32",
        ),
        (
            {"top_activations": torch.ones(3, 1)},
            ShapeError,
            "expected top_activations of 3 units, 4 labels and 3 categories as (3, 2), got (3, 1) "
            "torch.float32",
        ),
        (
            {"settings": {"images": 4, "data": "a"}},
            InputError,
            "settings lack ['iou_threshold'], got ['data', 'images']",
        ),
        (
            {"settings": {"iou_threshold": torch.nan, "images": 4, "data": "a"}},
            InputError,
            "settings must be JSON to be kept: Out of range float values are not JSON compliant",
        ),
        (
            {"categories": ("object", "color", "texture")},
            InputError,
            "every label needs one of the categories ['object', 'color', 'texture'], got ['part']",
        ),
    ):
        with pytest.raises(kind) as caught:
            dissection(**changes)
        assert str(caught.value).startswith(message)


def test_what_is_kept_is_on_the_cpu_and_does_not_follow_the_settings_given(device):
    settings = {"iou_threshold": 0.04, "images": 4, "data": "a"}
    result = replace(dissection(thresholds=torch.ones(3, device=device)), settings=settings)
    settings["images"] = 5
    assert result.settings["images"] == 4
    assert result.thresholds.device.type == "cpu"
