"""Fragility curves as Markdown, CSV, JSON and files."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from attacked_networks import small_cnn, some_images
from captum.attr import Saliency

from captum_blackbox import InterpretationAttack
from captum_blackbox.errors import ArtifactError
from captum_blackbox.fragility.curves import fragility_curves
from captum_blackbox.fragility.curves_result import (
    MEASURES,
    CurveFailure,
    FragilityCurves,
    radius_name,
)
from captum_blackbox.fragility.transfer import TRANSFERRED

AT = {"mode": "topk", "radius": 8 / 255}


@pytest.fixture(scope="module")
def curves():
    """From attacks, with an image that does not count, a judge and a failure."""
    model, images = small_cnn(), some_images(3)
    label = model(images).argmax(1)
    label[1] = (label[1] + 1) % 3
    found = fragility_curves(
        {"a|b": InterpretationAttack(Saliency(model))},
        images,
        label=label,
        modes=["topk", "random"],
        radii=(2 / 255, 8 / 255),
        k=6,
        step_num=6,
        transfer_to={"judge": InterpretationAttack(Saliency(model))},
    )
    failure = CurveFailure("a|b", "topk", 8 / 255, (1, 2), "RuntimeError: broken")
    return FragilityCurves(
        found.methods, found.modes, found.radii, found.values, found.judges, found.transfer,
        (failure,), found.settings
    )  # fmt: skip


def equal(one, other):
    assert (one.methods, one.modes, one.radii) == (other.methods, other.modes, other.radii)
    assert (one.judges, one.failures) == (other.judges, other.failures)
    assert json.loads(json.dumps(one.settings)) == json.loads(json.dumps(other.settings))
    for name in ("values", "transfer"):
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True
        )


def test_json_brings_back_what_was_written(curves, tmp_path):
    path = tmp_path / "curves.json"
    curves.to_json(path)
    equal(FragilityCurves.from_json(path), curves)
    found = json.loads(path.read_text())
    assert found == json.loads(json.dumps(curves.to_dict()))
    row = next(r for r in found["rows"] if (r["mode"], r["radius"]) == ("topk", 8 / 255))
    assert row["judge"] is None and row["values"]["intersection"][1] is None
    mean = curves.mean("a|b", "intersection", **AT)
    assert row["means"]["intersection"] == {
        "mean": mean.mean, "low": mean.low, "high": mean.high, "images": 2
    }  # fmt: skip


def test_a_file_brings_back_what_was_saved(curves, tmp_path):
    path = tmp_path / "curves.safetensors"
    curves.save(path)
    equal(FragilityCurves.load(path), curves)


@pytest.mark.parametrize("text", ["", "[]", '{"kind": "else"}'])
def test_other_files_are_refused(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=r"other\.json"):
        FragilityCurves.from_json(path)
    with pytest.raises(ArtifactError):
        FragilityCurves.load(path)
    with pytest.raises(ArtifactError, match="cannot read"):
        FragilityCurves.from_json(tmp_path / "none.json")


def test_csv_has_a_row_for_each_number(curves, tmp_path):
    path = tmp_path / "curves.csv"
    curves.to_csv(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3 * (len(MEASURES) + len(TRANSFERRED))
    chosen = [
        row
        for row in rows
        if (row["method"], row["judge"], row["mode"], row["measure"])
        == ("a|b", "judge", "random", "cosine")
        and float(row["radius"]) == 2 / 255
    ]
    scores = curves.scores("a|b", "cosine", mode="random", radius=2 / 255, judge="judge").tolist()
    assert [row["image"] for row in chosen] == ["0", "1", "2"]
    for row, score in zip(chosen, scores, strict=True):
        assert row["value"] == ("" if score != score else str(score))


def test_the_tables_say_what_was_measured(curves):
    text = curves.to_markdown()
    assert text.startswith("Means over 2 images with 95 % bootstrap intervals")
    assert "| method | objective | 2/255 | 8/255 |" in text
    found = curves.mean("a|b", "intersection", **AT)
    assert f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] |" in text
    numbers = [curves.mean("a|b", name, **AT).mean for name in ("ssim", "success", "confidence")]
    assert f"| {' / '.join(f'{number:.3f}' for number in numbers)} |" in text
    kept = curves.mean("a|b", "label_kept", judge="judge", **AT).mean
    assert "a\\|b → judge" in text and f", {kept:.3f} |" in text
    assert "| a\\|b | topk | 8/255 | 1, 2 | RuntimeError: broken |" in text
    assert "Only 3 images" in text


def test_what_was_not_measured_is_a_dash(curves):
    empty = FragilityCurves(
        curves.methods, curves.modes, curves.radii, torch.full_like(curves.values, torch.nan)
    )
    assert "| a\\|b | topk | – | – |" in empty.to_markdown()
    assert empty.to_dict()["rows"][0]["means"] == {}


@pytest.mark.parametrize(
    ("radius", "name"),
    [(1 / 255, "1/255"), (0.5 / 255, "0.5/255"), (0.1, "0.1"), (0.0, "0"), (3.0, "3")],
)
def test_a_radius_is_written_as_people_do(radius, name):
    assert radius_name(radius) == name


def test_csv_has_no_formula_and_keeps_its_numbers(curves, tmp_path):
    path = tmp_path / "curves.csv"
    replace(curves, methods=("=1+1",), values=-curves.values).to_csv(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"'=1+1"}
    assert any(row["value"].startswith("-0.") for row in rows)
