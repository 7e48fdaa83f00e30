"""The command ``audit``: a network, the demo, a black box, and what a user gets wrong."""

import json

import numpy as np
import pytest
from commands import Command
from page_reader import page_of
from PIL import Image

from captum_blackbox.cli import audit_run

audit = Command("audit")
NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))

def one_class():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 1))

def digits():
    import numpy
    from sklearn.linear_model import LogisticRegression
    from captum_blackbox import BlackBox

    x = numpy.random.default_rng(0).random((30, 192))
    estimator = LogisticRegression().fit(x, numpy.arange(30) % 3)
    return lambda images: torch.tensor(estimator.predict_proba(images.flatten(1).numpy()))
"""
PREPARED = ["--images", "photos", "--size", "8", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
QUICK = ["--limit", "2", "--out", "out"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "photos").mkdir()
    for name in ("a&b", "b", "c"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
        pixels[0, 0] = ord(name[0])
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(audit_run.BUDGETS, "quick", tiny())
    return tmp_path


def tiny():
    from captum_blackbox.audit import AuditBudget

    return AuditBudget(8, 4, 4, 2, 2, 2, {"8/255": 8 / 255}, ("topk", "random"), 2, 8, 1)


def test_a_network_of_the_user(place):
    result = audit.done("--model", "net.py:make", *PREPARED, *QUICK, "--methods", "ig,grad-cam")
    assert f"the page is {(place / 'out' / 'report.html').resolve()}" in result.stderr
    found = json.loads((place / "out" / "audit.json").read_text())
    assert {each["key"] for each in found["methods"]} == {"ig", "grad-cam", "random"}
    assert [each["name"] for each in found["images"]] == ["a&b.png", "b.png"]
    page = page_of(place / "out" / "report.html")
    assert "How far can explanations of net.py:make be trusted?" in page.text
    assert "notes.txt" in page.text
    assert "2 judged, 1 left out" in page.text
    assert not (place / "out" / "answers.sqlite").exists()


def test_the_demo_knows_the_cause_and_names_concepts(place, monkeypatch):
    monkeypatch.setattr(audit_run, "_DEMO_CONCEPTS", "scenes:12")
    monkeypatch.setattr(audit_run, "_DEMO_FITTED", 20)
    audit.done("--model", "demo", *QUICK, "--methods", "pattern-attribution")
    found = json.loads((place / "out" / "audit.json").read_text())
    assert found["images"][0]["true"]
    assert found["methods"][0]["area"] > 0
    assert len(found["concepts"]) == 2
    assert found["concepts"][0]["is_exact"]
    assert "Concepts that carried" in (place / "out" / "report.html").read_text()


def test_an_estimator_of_scikit_learn_is_a_black_box(place):
    kind = ["--output-kind", "probs", "--fit-images", "photos", "--student", "small_cnn"]
    audit.done("--model", "net.py:digits", *PREPARED, *QUICK, *kind)
    found = json.loads((place / "out" / "audit.json").read_text())
    assert {each["key"] for each in found["methods"]} == {"distilled", "rise", "random"}
    assert 0 <= found["student_agreement"] <= 1


def test_a_folder_without_images(place):
    (place / "empty").mkdir()
    said = audit.failure("--model", "net.py:make", "--images", "empty", *PREPARED[2:], *QUICK)
    assert said == "there is no image in 'empty' (0 files skipped; it is empty)"


def test_no_images_at_all(place):
    assert "give --images" in audit.misuse("--model", "net.py:make", *PREPARED[2:], *QUICK)


def test_a_method_that_is_not_known(place):
    said = audit.failure("--model", "net.py:make", *PREPARED, *QUICK, "--methods", "gradcam")
    assert said.startswith("there is no method 'gradcam'; the nearest names are 'grad-cam'")
    assert "names with commas" in audit.misuse(
        "--model", "net.py:make", *PREPARED, *QUICK, "--methods", "ig,,rise"
    )


def test_one_class(place):
    said = audit.failure("--model", "net.py:one_class", *PREPARED, *QUICK, "--methods", "ig")
    assert said.startswith("the model tells one class only")


def test_a_layer_without_concepts(place):
    said = audit.failure("--model", "net.py:make", *PREPARED, *QUICK, "--layer", "0")
    assert said.endswith("give --concepts, too")


def test_the_identity_of_a_file_is_its_content(place):
    from captum_blackbox.cli.options import DeviceName, ModelOptions, OutputKindName
    from captum_blackbox.cli.question import identity_of

    def identity(model, weights=None):
        return identity_of(
            ModelOptions(
                model, weights, OutputKindName.LOGITS, None, None, None, None, None, None,
                DeviceName.CPU,
            )
        )  # fmt: skip

    before = identity("net.py:make")
    assert before and before != identity("net.py:digits")
    assert identity("torchvision:resnet18") == identity("demo") == ""
    (place / "net.pt").write_bytes(b"1")
    with_weights = identity("net.py:make", "net.pt")
    (place / "net.pt").write_bytes(b"2")
    assert len({before, with_weights, identity("net.py:make", "net.pt")}) == 3
    (place / "net.py").write_text(NETWORK + "\n")
    assert identity("net.py:make") != before


def test_the_audit_is_what_the_help_starts_with():
    from captum_blackbox.cli import app

    assert app.info.epilog == "Start with: captum-blackbox audit --model demo"
    assert app.registered_commands[0].callback.__name__ == "audit"
