"""A real network explains itself on real photographs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from captum_blackbox.cli import app, options


@pytest.mark.real
def test_the_imagenet_squeezenet_is_explained_with_its_names(data, tmp_path, monkeypatch):
    small = {options.BudgetName.QUICK: options.Budget(masks=4, steps=4, queries=1, epochs=1)}
    monkeypatch.setattr("captum_blackbox.cli.explain.BUDGETS", small)
    folder = Path(data.__file__).parent
    arguments = [
        "explain",
        *("--model", "torchvision:squeezenet1_0"),
        *("--weights", folder / "squeezenet1_0_imagenet.safetensors"),
        *("--classes", folder / "imagenet_classes.json"),
        *("--images", folder / "photographs"),
        *("--preset", "imagenet", "--student", "self", "--limit", 2, "--out", tmp_path),
    ]
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["skipped"] == {str(folder / "photographs" / "labels.json"): "not an image"}
    assert [image["predicted"] for image in found["images"]] == ["tench", "tiger_shark"]
    assert len(found["layers"]) == 26
