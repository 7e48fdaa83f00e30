"""Tables hold the numbers, and nothing that names can break."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from compared import images, network, quietly

from captum_blackbox.compare import Comparison, Cost, Failure

NAN = torch.nan
FOUND = Comparison(
    methods=("a|b", "random", "none"),
    metrics={"deletion": False, "insertion": True},
    values=torch.tensor(
        [
            [[0.25, 0.75], [0.5, 0.5]],
            [[0.5, 1.0], [0.5, NAN]],
            [[NAN, NAN], [NAN, NAN]],
        ],
        dtype=torch.float64,
    ),
    targets=torch.tensor([3, 4]),
    costs=(Cost(2, 3, 2, 0.5, 1.25), Cost(2), Cost()),
    failures=(
        Failure("random", "insertion", 1, "<script>|oh\nno"),
        Failure("none", None, None, "no gradient", is_applicable=False),
    ),
    notes=("random: odd",),
)


def test_markdown():
    text = FOUND.to_markdown()
    parts = text.split("\n\n")
    means, paired, cost, few, failed = *parts[1:6:2], parts[6], parts[8]
    assert means.splitlines() == [
        "| method | deletion ↓ | insertion ↑ | rank |",
        "| --- | --- | --- | --- |",
        "| a\\|b | 0.5 [0.25, 0.75] | 0.5 [0.5, 0.5] | 1.25 |",
        "| random | 0.75 [0.5, 1] | 0.5 [0.5, 0.5] (1 image) | 1.75 |",
        "| none | – | – | – |",
    ]
    assert paired.splitlines()[2:] == [
        "| a\\|b | -0.25 [-0.25, -0.25] | +0 [+0, +0] (1 image) |",
    ]
    assert cost.splitlines()[2:] == [
        "| a\\|b | 1.5 | 1.0 | 0.2500 | 1.25 |",
        "| random | 0.0 | 0.0 | 0.0000 | 0.00 |",
        "| none | – | – | – | 0.00 |",
    ]
    assert few == "Only 2 images: intervals over so few are too narrow for a verdict."
    assert failed.splitlines()[2:] == [
        "| random | insertion | 1 | &lt;script>\\|oh no |",
        "| none | the map | all | not applicable: no gradient |",
    ]
    assert text.endswith("\n\n- random: odd\n")


def test_the_reference_can_be_chosen():
    assert "Difference to a\\|b, paired" in FOUND.to_markdown("a|b")
    assert "| random | +0.25 [+0.25, +0.25] | +0 [+0, +0] (1 image) |" in FOUND.to_markdown("a|b")


def test_only_enough_images_are_worth_bold_letters():
    values = torch.tensor([[[0.25] * 10], [[0.5] * 10]], dtype=torch.float64)
    found = Comparison(("a", "random"), {"deletion": False}, values, torch.zeros(10).long(),
                       (Cost(10), Cost(10)))  # fmt: skip
    assert "| a | **-0.25 [-0.25, -0.25]** |" in found.to_markdown()
    values[0, 0, 3] = NAN  # nine pairs are left
    assert "| a | -0.25 [-0.25, -0.25] (9 images) |" in found.to_markdown()


def test_one_image_is_not_called_images():
    one = replace(FOUND, values=FOUND.values[:, :, :1], targets=FOUND.targets[:1], failures=())
    text = one.to_markdown()
    assert "Mean over 1 image with" in text and "Only 1 image: " in text and "1 images" not in text


def test_many_images_that_failed_alike_are_one_row():
    failures = tuple(Failure("a|b", "deletion", image, "same") for image in range(12))
    text = replace(FOUND, failures=failures).to_markdown()
    assert "| a\\|b | deletion | 0, 1, 2, 3, 4, 5, 6, 7 and 4 more | same |" in text


def test_csv(tmp_path):
    FOUND.to_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        found = list(csv.reader(file))
    assert found[0] == ["method", "metric", "image", "target", "value"]
    assert found[1:4] == [
        ["a|b", "deletion", "0", "3", "0.25"],
        ["a|b", "deletion", "1", "4", "0.75"],
        ["a|b", "insertion", "0", "3", "0.5"],
    ]
    assert found[8] == ["random", "insertion", "1", "4", ""]
    assert len(found) == 1 + 3 * 2 * 2


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_csv_has_no_formula_and_keeps_its_numbers(tmp_path):
    found = replace(
        FOUND,
        methods=("=1+1", "-x", "@me"),
        metrics={"+a": False, "insertion": True},
        names=("=cmd|' /C calc'!A0", "-0.5"),
        values=-FOUND.values,
    )
    found.to_csv(tmp_path / "table.csv")
    rows = rows_of(tmp_path / "table.csv")
    assert rows[:3] == [
        ["method", "metric", "image", "name", "target", "value"],
        ["'=1+1", "'+a", "0", "'=cmd|' /C calc'!A0", "3", "-0.25"],
        ["'=1+1", "'+a", "1", "'-0.5", "4", "-0.75"],
    ]
    assert {row[0] for row in rows[1:]} == {"'=1+1", "'-x", "'@me"}


def test_images_have_names_where_they_were_given(tmp_path):
    found = quietly(
        network(), images(), {"fails": fails_on_the_second, "fine": "random"}, ["deletion"],
        names=["cat.png", "dog|.png", "emu.png"], resume=tmp_path / "kept",
    )  # fmt: skip
    assert found.names == ("cat.png", "dog|.png", "emu.png")
    assert "| fails | the map | dog\\|.png | ValueError: not this |" in found.to_markdown()
    assert found.failures[0].image == 1
    found.to_csv(tmp_path / "table.csv")
    assert [row[2:4] for row in rows_of(tmp_path / "table.csv")[1:3]] == [
        ["0", "cat.png"],
        ["1", "dog|.png"],
    ]
    assert found.to_dict()["names"] == ["cat.png", "dog|.png", "emu.png"]
    assert Comparison.load(tmp_path / "kept").names == found.names


def fails_on_the_second(x, target):
    if any(torch.equal(each, images()[1]) for each in x):
        raise ValueError("not this")
    return x


def test_names_may_come_later_and_are_kept(tmp_path):
    given = network(), images(), ["random"], ["deletion"]
    assert quietly(*given, resume=tmp_path / "a").names == ()
    assert quietly(*given, resume=tmp_path / "a", names=["a", "b", "c"]).names == ("a", "b", "c")
    assert quietly(*given, resume=tmp_path / "a", names=list("xyz")).names == ("x", "y", "z")
    assert quietly(*given, resume=tmp_path / "a").names == ("x", "y", "z")


def test_json_is_strict_and_says_everything(tmp_path):
    FOUND.to_json(tmp_path / "table.json")

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads((tmp_path / "table.json").read_text(), parse_constant=refuse)
    assert found == FOUND.to_dict()
    assert found["methods"]["random"]["metrics"]["insertion"] == {
        "mean": 0.5, "low": 0.5, "high": 0.5, "images": 1, "rank": 1.5, "values": [0.5, None],
    }  # fmt: skip
    assert found["methods"]["none"]["overall_rank"] is None
    assert found["metrics"] == {
        "deletion": {"higher_is_better": False},
        "insertion": {"higher_is_better": True},
    }
    assert found["failures"][1]["is_applicable"] is False


def test_a_real_comparison_in_all_forms(tmp_path):
    found = quietly(network(), images(), ["random", "saliency"], ["deletion", "insertion"])
    found.to_json(tmp_path / "a.json")
    found.to_csv(tmp_path / "a.csv")
    assert found.to_markdown().count("| saliency |") == 3
    assert found.metric_png("deletion")[1:4] == found.ranks_png()[1:4] == b"PNG"


@pytest.mark.parametrize("write", ["to_csv", "to_json", "save"])
def test_a_folder_is_no_file(tmp_path, write):
    from captum_blackbox.errors import ArtifactError

    with pytest.raises(ArtifactError, match="it is a folder"):
        getattr(FOUND, write)(tmp_path)
