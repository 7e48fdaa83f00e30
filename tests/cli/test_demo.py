"""The demo writes its page; at full size its student imitates the network."""

import json

import pytest
import torch
from typer.testing import CliRunner

from captum_blackbox.cli import app
from captum_blackbox.cli import demo as module
from captum_blackbox.cli.options import Budget, BudgetName
from captum_blackbox.cli.run import _object_shares
from captum_blackbox.concepts import SCENE_CLASSES


def demo(out):
    result = CliRunner().invoke(app, ["demo", "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"the page is {(out / 'report.html').resolve()}" in result.stderr
    return json.loads((out / "results.json").read_text())


def test_a_small_demo_writes_its_page(tmp_path, monkeypatch):
    small = Budget(masks=4, steps=3, queries=1, epochs=1)
    monkeypatch.setattr(module, "BUDGETS", {BudgetName.QUICK: small})
    for name, value in (("_ASKED_SCENES", 32), ("_JUDGING_SCENES", 8), ("_EPOCHS", 1)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "_EXPLAINED_SCENES", len(SCENE_CLASSES))
    found = demo(tmp_path)
    assert sorted(image["true"] for image in found["images"]) == sorted(SCENE_CLASSES)
    assert all(0 <= each["object_share"] <= 1 for each in found["methods"].values())
    text = (tmp_path / "report.html").read_text()
    assert "On the object" in text
    assert f"here {100 * found['object_area']:.1f}\N{NO-BREAK SPACE}%" in text
    # Chance is what a map without a clue reaches.
    assert abs(found["methods"]["Random"]["object_share"] - found["object_area"]) < 0.01


def test_the_share_on_the_object_does_not_depend_on_what_rise_adds_everywhere():
    objects = torch.tensor([[[1.0, 0.0]]])
    maps = torch.tensor([[[[0.6, 0.5]]]])
    shares = _object_shares({"RISE": maps, "Random": maps}, objects)
    torch.testing.assert_close(shares["RISE"], torch.ones(1).double())
    torch.testing.assert_close(shares["Random"], torch.full((1,), 6 / 11).double())


@pytest.mark.slow
def test_the_demo_shows_what_it_promises(tmp_path):
    found = demo(tmp_path)
    assert found["student"]["agreement"] >= 0.95
    assert found["student"]["evaluated_on"] == "validation"
    assert {path.name for path in tmp_path.iterdir()} >= {
        "report.html",
        "results.json",
        "curves.csv",
        "student.safetensors",
        "answers.sqlite",
        "checkpoint.safetensors",
        "maps",
    }
    assert found["methods"]["Layer sum"]["insertion"] > found["methods"]["Random"]["insertion"]
