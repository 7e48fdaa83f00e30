"""The commands on a tiny model of the user's and a few pictures."""

import csv
import json
import math
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import torch
from page_reader import Reader
from PIL import Image
from typer.testing import CliRunner

from captum_blackbox.cli import app

NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3),
    )

def ask():
    network = make().eval()
    return lambda images: network(images).softmax(1)

def not_a_number():
    return lambda images: torch.full((len(images), 3), float("nan"))

def raising():
    raise RuntimeError("no licence")

def nothing():
    return 3
"""
PREPARED = ["--size", "16", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
QUICKLY = ["--queries", "24", "--epochs", "2"]


@pytest.fixture
def run(monkeypatch):
    """Run a command on small games; returns exit code, stdout and what a user sees on stderr."""
    from captum_blackbox.cli import options

    small = {
        name: options.Budget(masks=8, steps=4, queries=24, epochs=2) for name in options.BudgetName
    }
    monkeypatch.setattr(options, "BUDGETS", small)
    for name in ("demo", "explain", "distill"):
        monkeypatch.setattr(f"captum_blackbox.cli.{name}.BUDGETS", small)

    def call(*arguments):
        return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)

    return call


@pytest.fixture
def place(tmp_path):
    """A folder with ``net.py`` and ``photos``: twelve pictures, one of them in a folder below."""
    (tmp_path / "net.py").write_text(NETWORK)
    photos = tmp_path / "photos"
    (photos / "below").mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(12):
        pixels = random.integers(0, 256, size=(20 + i, 24, 3), dtype=np.uint8)
        folder = photos / "below" if i == 11 else photos
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return tmp_path


def model(place, name="make"):
    return ["--model", f"{place / 'net.py'}:{name}", "--images", place / "photos", *PREPARED]


def message(result):
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    return lines[0].removeprefix("error: ")


def queries(out):
    (file,) = out.glob("answers-*.sqlite")
    with sqlite3.connect(file) as ledger:
        return ledger.execute("SELECT queries FROM count").fetchone()[0]


def test_explain_writes_everything_and_skips_what_is_no_image(run, place):
    (place / "photos" / "notes <b>.txt").write_text("not an image")
    (place / "photos" / "03-broken.png").write_bytes(
        (place / "photos" / "00.png").read_bytes()[:300]
    )
    (place / "photos" / ".hidden").write_text("")
    out = place / "out"
    options = ["--budget", "standard", "--limit", 4]
    result = run("explain", *model(place), *QUICKLY, *options, "--out", out)
    assert result.exit_code == 0
    assert f"the page is {(out / 'report.html').resolve()}" in result.stderr

    found = json.loads((out / "results.json").read_text())
    notes, broken = (str(place / "photos" / each) for each in ("notes <b>.txt", "03-broken.png"))
    assert set(found["skipped"]) == {notes, broken}
    assert found["skipped"][notes] == "not an image"
    assert found["skipped"][broken].startswith("broken image: ")
    for path, reason in found["skipped"].items():
        assert result.stderr.count(f"skipped {path}: {reason}\n") == 1
    assert [image["name"] for image in found["images"]] == [f"{i:02d}.png" for i in range(4)]
    assert "explaining the first 4 images, 8 are left (--limit)" in result.stderr
    assert found["queries"] == queries(out)
    assert list(found["methods"]) == ["Layer sum", "Last-layer Grad-CAM", "RISE", "Random"]
    for name, method in found["methods"].items():
        for game in ("deletion", "insertion"):
            areas = [image["methods"][name][game] for image in found["images"]]
            assert math.isclose(method[game], sum(areas) / 4, rel_tol=1e-5)
            assert (method[f"{game}_difference"] is None) == (name == "Last-layer Grad-CAM")
    for image in found["images"]:
        assert math.isclose(sum(image["layers"].values()), 1, rel_tol=1e-5)
    assert all(layer["deletion"] is not None for layer in found["layers"].values())

    rows = list(csv.DictReader((out / "curves.csv").read_text().splitlines()))
    assert len(rows) == 4 * 4 * 2 * 5
    assert {row["fraction"] for row in rows} == {"0", "0.25", "0.5", "0.75", "1"}
    assert len(list((out / "maps").glob("*.png"))) == 4 * 4
    for picture in ("deletion", "insertion", "layer-shares", "layer-deletion"):
        Image.open(out / f"{picture}.png").load()


def test_the_page_shows_the_numbers_of_the_file(run, place):
    out = place / "out"
    assert run("explain", *model(place), *QUICKLY, "--limit", 3, "--out", out).exit_code == 0
    text, found = (out / "report.html").read_text(), json.loads((out / "results.json").read_text())
    rows = {row[0]: row for row in Reader(text).tables["summary"][1:]}
    assert list(rows) == list(found["methods"])
    for name, method in found["methods"].items():
        for cell, game in zip(rows[name][1:], ("deletion", "insertion"), strict=True):
            difference = "reference"
            if method[f"{game}_difference"]:
                mean, low, high = (
                    f"{method[f'{game}_difference'][key]:.3f}".replace("-0.000", "0.000")
                    for key in ("mean", "low", "high")
                )
                difference = f"{mean} [{low}, {high}]".replace("-", "−")
            # Three images are too few for a verdict.
            assert cell == f"{method[game]:.3f} {difference}"
    for image in found["images"]:
        assert f"{100 * image['probability']:.1f}\N{NO-BREAK SPACE}%" in text
    assert f"{100 * found['student']['agreement']:.1f}\N{NO-BREAK SPACE}%" in text
    assert "Only 3 images were judged" in text


def test_a_second_run_asks_nothing_and_finds_the_same(run, place):
    out = place / "out"
    arguments = ["explain", *model(place), *QUICKLY, "--limit", 2, "--out", out]
    assert run(*arguments).exit_code == 0
    asked, first = queries(out), (out / "results.json").read_text()
    assert asked > 24
    assert run(*arguments).exit_code == 0
    assert queries(out) == asked
    second = json.loads((out / "results.json").read_text())
    first = json.loads(first)
    assert {k: v for k, v in first.items() if k != "student"} == {
        k: v for k, v in second.items() if k != "student"
    }
    assert first["student"]["loss_curve"] == second["student"]["loss_curve"]


def test_explain_goes_on_where_distill_stopped(run, place):
    out = place / "out"
    assert run("distill", *model(place), *QUICKLY, "--out", out).exit_code == 0
    distilled = json.loads((out / "distillation.json").read_text())
    assert distilled["student"]["epochs_run"] == 2
    assert distilled["student"]["evaluated_images"] == 2
    before = (out / "student.safetensors").read_bytes()
    taught = ["explain", *model(place), *QUICKLY, "--limit", 2, "--out", out]
    result = run(*taught, "--methods", "random")
    assert result.exit_code == 0
    assert (out / "student.safetensors").read_bytes() == before
    found = json.loads((out / "results.json").read_text())
    assert found["student"]["loss_curve"] == distilled["student"]["loss_curve"]


def test_a_model_can_explain_itself(run, place):
    out = place / "out"
    options = ["--student", "self", "--limit", 2, "--layers", "2", "--normalize", "max"]
    assert run("explain", *model(place), *options, "--out", out).exit_code == 0
    found = json.loads((out / "results.json").read_text())
    assert found["student"] is None
    assert list(found["layers"]) == ["2"]
    first = found["images"][0]["methods"]
    assert first["Layer sum"] == first["Last-layer Grad-CAM"]  # there is one layer
    assert not (out / "student.safetensors").exists()
    text = (out / "report.html").read_text()
    assert "KL divergence" not in text
    assert f"<dd>{found['queries']}</dd>" in text


def test_last_layer_grad_cam_does_not_depend_on_the_layers_of_the_sum(run, place):
    found = []
    for layers in ("0", "2"):
        out = place / f"out{layers}"
        options = ["--student", "self", "--limit", 2, "--layers", layers]
        assert run("explain", *model(place), *options, "--out", out).exit_code == 0
        found.append(json.loads((out / "results.json").read_text())["methods"])
    assert (
        found[0]["Last-layer Grad-CAM"]["deletion"] == found[1]["Last-layer Grad-CAM"]["deletion"]
    )
    assert found[0]["Layer sum"]["deletion"] != found[1]["Layer sum"]["deletion"]


def test_without_its_reference_a_page_shows_no_differences(run, place):
    out = place / "out"
    options = ["--student", "self", "--limit", 1, "--methods", "layer-sum,random"]
    assert run("explain", *model(place), *options, "--out", out).exit_code == 0
    text = (out / "report.html").read_text()
    rows = {row[0]: row for row in Reader(text).tables["summary"][1:]}
    found = json.loads((out / "results.json").read_text())
    for name, method in found["methods"].items():
        assert rows[name][1:] == [f"{method['deletion']:.3f}", f"{method['insertion']:.3f}"]
    assert "mean difference" not in text
    assert "Only 1 image was judged:" in text


def test_a_changed_function_gets_its_own_answers_and_its_own_student(run, place):
    out = place / "out"
    options = ["--output-kind", "probs", "--limit", 2, "--methods", "random", "--out", out]
    arguments = ["explain", *model(place, "ask"), *QUICKLY, *options]
    students = []
    for network in (NETWORK, NETWORK.replace(".softmax(1)", ".neg().softmax(1)")):
        (place / "net.py").write_text(network)
        assert run(*arguments).exit_code == 0
        found = json.loads((out / "results.json").read_text())
        students.append((found["images"][0]["predicted"], found["student"]["loss_curve"]))
    assert students[0][0] != students[1][0]
    assert students[0][1] != students[1][1]


def test_the_settings_name_every_option_that_was_used(run, place):
    (place / "more").mkdir()
    (place / "more" / "a.txt").write_text("no image")
    (place / "more" / "b.png").write_bytes((place / "photos" / "00.png").read_bytes())
    out = place / "out"
    options = ["--transfer", place / "more", "--limit", 1, "--methods", "random", "--layers"]
    options.append("stages.0.0")
    result = run("explain", *model(place), *QUICKLY, *options, "--num-classes", 3, "--out", out)
    assert result.exit_code == 0
    found = json.loads((out / "results.json").read_text())
    assert found["skipped"] == {str(place / "more" / "a.txt"): "not an image"}
    said = {
        "--queries": "24",
        "--epochs": "2",
        "--transfer": str(place / "more"),
        "--limit": "1",
        "--methods": "random",
        "--layers": "stages.0.0",
        "--num-classes": "3",
        "--size": "16",
        "--budget": "quick",
    }
    assert said.items() <= found["settings"].items()
    assert found["settings"]["preparation"].startswith("shorter side 16 pixels (bilinear), centre ")
    assert "--student-weights" not in found["settings"]


def test_the_budget_says_how_long_a_student_learns(run, place):
    out = place / "out"
    assert run("distill", *model(place), "--budget", "paper", "--out", out).exit_code == 0
    found = json.loads((out / "distillation.json").read_text())
    assert found["student"]["epochs_run"] == 2
    assert found["queries"] == 24 + 2  # two are held out
    assert found["settings"]["--budget"] == "paper"


def test_a_function_is_explained_through_a_student(run, place):
    (place / "names.txt").write_text("cat\n<i>dog</i>\ncow\n")
    out = place / "out"
    options = ["--output-kind", "probs", "--classes", place / "names.txt", "--limit", 2]
    result = run("explain", *model(place, "ask"), *QUICKLY, *options, "--out", out)
    assert result.exit_code == 0
    found = json.loads((out / "results.json").read_text())
    assert {image["predicted"] for image in found["images"]} <= {"cat", "<i>dog</i>", "cow"}
    assert "<i>" not in (out / "report.html").read_text()


def test_weights_are_read_from_every_kind_of_file(run, place):
    from safetensors.torch import save_file

    sys.path.insert(0, str(place))
    try:
        import net
    finally:
        sys.path.remove(str(place))
    state = {name: value + 1 for name, value in net.make().state_dict().items()}
    save_file(state, place / "w.safetensors")
    torch.save(state, place / "w.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, place / "w.pth")
    answers = []
    for file in ("w.safetensors", "w.pt", "w.pth"):
        out = place / file.replace(".", "-")
        options = [
            "--student",
            "self",
            "--limit",
            1,
            "--methods",
            "random",
            "--weights",
            place / file,
        ]
        assert run("explain", *model(place), *options, "--out", out).exit_code == 0
        answers.append(json.loads((out / "results.json").read_text())["images"][0]["probability"])
    assert len(set(answers)) == 1


def test_the_student_s_doubtful_agreement_is_said_and_shown(run, place):
    # A student that does not learn at all: its last layer is fixed at zero.
    (place / "dull.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                        nn.Linear(2, 3))\n"
        "    nn.init.zeros_(net[3].weight).requires_grad_(False)\n"
        "    net[3].bias.requires_grad_(False).copy_(__import__('torch').tensor([-9., -9., -9.]))\n"
        "    return net\n"
    )
    out = place / "out"
    student = ["--student", f"{place / 'dull.py'}:make"]
    result = run("explain", *model(place), *QUICKLY, *student, "--limit", 2, "--out", out)
    assert result.exit_code == 0
    agreement = json.loads((out / "results.json").read_text())["student"]["agreement"]
    shown = "Do not trust the Grad-CAM maps below." in (out / "report.html").read_text()
    said = "warning: the student agrees with the black box" in result.stderr
    assert shown == said == (agreement < 0.7)


def test_help_is_quick_because_torch_waits():
    code = (
        "import sys; sys.argv = ['x', 'explain', '--help']\n"
        "from captum_blackbox.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--student-weights" in done.stdout
