"""The commands on patterns: on the built-in network, and on tiny networks and pictures."""

import csv
import functools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Command
from page_reader import page_of
from PIL import Image
from safetensors.torch import load_file

from captum_blackbox.cli import patterns_fit, patterns_quality
from captum_blackbox.patterns import fitting

NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F

def make(*end, gate=nn.ReLU):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), gate(), nn.Conv2d(4, 4, 3, padding=1), gate(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3), *end,
    )
    network[6].weight.data *= 50  # so that what is done to an image shows
    return network

def with_softmax():
    return make(nn.Softmax(1))

def smooth():
    return make(gate=nn.GELU)

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 3)

    def forward(self, x):
        x = F.relu(x + self.first(x))
        return self.last(x.mean((2, 3)))

def functional():
    return Functional()

def two_outputs():
    return nn.Conv2d(3, 3, 1)

def ask():
    return lambda images: images.mean((2, 3))
"""
PREPARED = ["--size", "16", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
PEERS = ["Gradient", "DeConvNet", "Guided Backprop", "PatternNet"]
JUDGED = ["Gradient × input", "LRP", "PatternAttribution", "Random"]

pytestmark = pytest.mark.filterwarnings("ignore::captum_blackbox.errors.ExplanationWarning")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with ``net.py`` and ``photos``: 24 pictures, a note and a broken file."""
    (tmp_path / "net.py").write_text(NETWORK)
    photos = tmp_path / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for i in range(24):
        pixels = random.integers(0, 256, size=(20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{i:02d}.png")
    (photos / "note.txt").write_text("no image")
    (photos / "x-broken.png").write_bytes((photos / "00.png").read_bytes()[:300])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few_scenes(monkeypatch):
    monkeypatch.setattr(patterns_fit, "_SCENES", 40)
    monkeypatch.setattr(patterns_quality, "_SCENES", (30, 30, 20))


command = Command("patterns")
run, done, failure, misuse = command.run, command.done, command.failure, command.misuse


def model(name="make"):
    return ["--model", f"net.py:{name}", "--images", "photos", *PREPARED]


def read(path):
    return json.loads(Path(path).read_text())


@pytest.mark.usefixtures("place")
class TestFit:
    def test_it_writes_patterns_and_what_was_seen(self):
        result = done("fit", *model(), "--out", "out")
        found = read("out/fit.json")
        assert f"the patterns are {Path('out/patterns.safetensors').resolve()}" in result.stderr
        assert "3 layers have patterns, fitted to 24 images" in result.stderr
        fitted = found["patterns"]["patterns.safetensors"]
        assert {name: layer["units"] for name, layer in fitted["layers"].items()} == {
            "0": 4,
            "2": 4,
            "6": 3,
        }
        assert (fitted["images"], fitted["batches"], fitted["regime"]) == (24, 1, "positive")
        assert fitted["input_shape"] == [3, 16, 16]
        assert set(found["skipped"]) == {"photos/note.txt", "photos/x-broken.png"}
        for path, reason in found["skipped"].items():
            assert result.stderr.count(f"skipped {path}: {reason}\n") == 1
        assert found["settings"]["--regime"] == "positive"
        assert not list(Path("out").glob("patterns-checkpoint*"))

    def test_the_patterns_are_those_of_the_library(self):
        from captum_blackbox.cli.images import choose_preparation, load_images
        from captum_blackbox.cli.models import make_network
        from captum_blackbox.patterns import Patterns

        options = ["--regime", "two_component", "--final", "linear", "--regime-centering"]
        done("fit", *model(), *options, "--out", "out")
        network = make_network("net.py:make")
        preparation = choose_preparation(16, "0.5,0.5,0.5", "0.5,0.5,0.5", None)
        images = load_images([Path("photos")], preparation).inputs
        expected = Patterns.fit(
            network,
            [images],
            regime="two_component",
            final="linear",
            regime_centering=True,
            show_progress=False,
        )
        found = Patterns.load("out/patterns.safetensors", network)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])
        assert found.negative.keys() == expected.negative.keys()

    def test_a_killed_run_goes_on_where_it_stopped(self, monkeypatch):
        from captum_blackbox.cli.opened_model import OpenedModel

        done("fit", *model(), "--out", "whole")
        monkeypatch.setattr(OpenedModel, "batch_size", 4)
        often = functools.partial(fitting.fit_patterns, checkpoint_every=2)
        monkeypatch.setattr(patterns_fit, "fit_patterns", often)
        update, seen = fitting.Gathering.update, []

        def dying(self, batch, number):
            seen.append(number)
            if len(seen) == 5:
                raise KeyboardInterrupt
            update(self, batch, number)

        with monkeypatch.context() as killed:
            killed.setattr(fitting.Gathering, "update", dying)
            assert run("fit", *model(), "--out", "out").exit_code != 0
        assert len(list(Path("out").glob("patterns-checkpoint-*.safetensors"))) == 1
        assert not Path("out/patterns.safetensors").exists()

        def noting(self, batch, number):
            seen.append(number)
            update(self, batch, number)

        monkeypatch.setattr(fitting.Gathering, "update", noting)
        done("fit", *model(), "--out", "out")
        assert seen == [0, 1, 2, 3, 4, 4, 5]  # what was kept last held four batches
        found, whole = (load_file(f"{out}/patterns.safetensors") for out in ("out", "whole"))
        for name in whole:
            torch.testing.assert_close(found[name], whole[name], rtol=1e-4, atol=1e-6)

    def test_a_second_run_reads_what_the_first_wrote_unless_something_changed(self):
        done("fit", *model(), "--out", "out")
        again = "were fitted so before, and are used again"
        assert again in done("fit", *model(), "--out", "out").stderr
        assert again not in done("fit", *model(), "--regime", "linear", "--out", "out").stderr
        assert read("out/fit.json")["patterns"]["patterns.safetensors"]["regime"] == "linear"
        Path("photos/00.png").unlink()
        changed = done("fit", *model(), "--regime", "linear", "--out", "out")
        assert again not in changed.stderr
        Path("out/patterns.safetensors").write_bytes(b"half")
        mended = done("fit", *model(), "--regime", "linear", "--out", "out")
        assert again not in mended.stderr

    def test_a_network_without_rules_is_refused_and_can_be_taken_as_it_is(self):
        assert "gelu in '1' (GELU)" in failure("fit", *model("smooth"), "--out", "out")
        done("fit", *model("smooth"), "--allow-non-relu", "--out", "out")

    def test_a_function_has_no_patterns(self):
        assert failure("fit", *model("ask"), "--out", "out") == (
            "patterns belong to the layers of a network, but net.py:ask is a function that can "
            "only be called; give a network, or see captum-blackbox explain"
        )

    def test_a_network_that_does_not_take_the_images_is_named(self):
        mono = ["--model", "net.py:make", "--images", "photos", "--size", "16", "--mean", "0"]
        said = failure("fit", *mono, "--std", "1", "--out", "out")
        assert said.startswith(
            "net.py:make raised RuntimeError on an image of shape (1, 1, 16, 16)"
        )
        assert said.endswith("correct --size, --mean and --std, or the network")
        assert failure("fit", *model("two_outputs"), "--out", "out") == (
            "net.py:two_outputs must return scores (images, classes), got (1, 3, 16, 16)"
        )

    def test_bad_usage(self):
        prepared = ["--model", "net.py:make", *PREPARED]
        assert "give --images; only --model demo can do without images" in misuse("fit", *prepared)
        assert "--model demo has its own weights and 10 classes" in misuse(
            "fit", "--model", "demo", "--weights", "w.pt"
        )
        assert "'quadratic' is not one of" in misuse("fit", *model(), "--regime", "quadratic")


@pytest.mark.usefixtures("place")
class TestAttribute:
    def test_it_writes_everything(self):
        fit = ["--every", 3, "--limit", 3, "--regime-centering"]
        result = done("attribute", *model(), *fit, "--out", "out")
        assert f"the page is {Path('out/report.html').resolve()}" in result.stderr
        assert "explaining the first 3 images, 22 are left (--limit)" in result.stderr
        found = read("out/results.json")
        assert found["patterns"]["images"] == 24
        assert found["left_out"] == {}
        assert list(found["methods"]) == JUDGED
        assert found["degradation"] == {"patch": 2, "every": 3}
        for name, method in found["methods"].items():
            areas = [image["aopc"][name] for image in found["images"]]
            assert math.isclose(method["aopc"], sum(areas) / 3, rel_tol=1e-5)
            assert (method["aopc_difference"] is None) == (name == "Random")
        for image in found["images"]:
            rest = image["logit"] - image["attributed"]
            assert math.isclose(image["delta"], rest, rel_tol=1e-4, abs_tol=1e-5)
        rows = list(csv.DictReader(Path("out/curves.csv").read_text().splitlines()))
        assert len(rows) == 3 * 4 * (64 // 3 + 1)
        assert {int(row["patches"]) for row in rows} == set(range(0, 64, 3))
        assert len(list(Path("out/maps").glob("*.png"))) == 3 * 7
        for name in ("montage", "degradation"):
            Image.open(f"out/{name}.png").load()

    def test_the_maps_are_those_of_the_library(self, monkeypatch):
        from captum_blackbox.cli import patterns_presentation
        from captum_blackbox.cli.models import make_network
        from captum_blackbox.patterns import PatternAttribution, Patterns

        seen = {}

        def keep(folder, subject, maps, *rest, **settings):
            seen.update(maps=maps, subject=subject)
            return Path("page")

        monkeypatch.setattr("captum_blackbox.cli.patterns_attribute.write_patterns", keep)
        assert patterns_presentation.write_patterns is not keep
        options = ["--limit", 9, "--output-seed", "one", "--every", 20]
        done("attribute", *model(), *options, "--out", "out")
        network = make_network("net.py:make")
        method = PatternAttribution(network, Patterns.load("out/patterns.safetensors", network))
        inputs = seen["subject"].inputs
        expected, delta = method.attribute(inputs, output_seed="one", return_convergence_delta=True)
        torch.testing.assert_close(seen["maps"].attributions["PatternAttribution"], expected)
        torch.testing.assert_close(seen["maps"].deltas, delta)
        leaf = inputs.clone().requires_grad_()
        best = network(leaf).max(1).values
        torch.testing.assert_close(seen["maps"].logits, best.detach())
        (gradient,) = torch.autograd.grad(best.sum(), leaf)
        torch.testing.assert_close(seen["maps"].signals["Gradient"], gradient)
        torch.testing.assert_close(seen["maps"].attributions["Gradient × input"], gradient * inputs)

    def test_the_page_shows_the_numbers_of_the_file(self):
        done("attribute", *model(), "--limit", 2, "--every", 9, "--out", "out")
        page, found = page_of("out/report.html"), read("out/results.json")
        rows = {row[0]: row[1] for row in page.tables["summary"][1:]}
        assert list(rows) == JUDGED
        for name, method in found["methods"].items():
            assert rows[name].startswith(f"{method['aopc']:.3f} ".replace("-", "−"))
        for image in found["images"]:
            logit, total = (f"{image[key]:.2f}" for key in ("logit", "attributed"))
            said = f"logit {logit}, sum of PatternAttribution {total}".replace("-", "−")
            assert said.replace("−0.00", "0.00") in page.text
        for name in (*PEERS, *JUDGED[:-1]):
            assert sum(alt.startswith(f"{name} of 0") for alt in page.alts) == 2
        assert "fitted to 24 images only" in page.text
        assert "Only 2 images were judged" in page.text
        assert "http" not in Path("out/report.html").read_text()

    def test_a_file_of_patterns_is_used_as_it_is(self):
        done("fit", *model(), "--out", "fitted")
        options = ["--patterns", "fitted/patterns.safetensors", "--limit", 1, "--every", 30]
        done("attribute", *model(), *options, "--out", "out")
        assert not Path("out/patterns.safetensors").exists()
        assert read("out/results.json")["patterns"]["images"] == 24
        other = failure("attribute", *model("functional"), *options, "--out", "other")
        assert "these patterns were fitted to another model" in other

    def test_images_to_fit_to_can_be_others(self):
        Path("one.png").write_bytes(Path("photos/03.png").read_bytes())
        shown = ["--model", "net.py:make", "--images", "one.png", *PREPARED]
        options = ["--fit-images", "photos", "--every", 30]
        done("attribute", *shown, *options, "--out", "out")
        found = read("out/results.json")
        assert [image["name"] for image in found["images"]] == ["one.png"]
        assert found["patterns"]["images"] == 24
        assert set(found["skipped"]) == {"photos/note.txt", "photos/x-broken.png"}

    def test_a_second_run_fits_and_asks_nothing(self):
        from captum_blackbox.black_box import BlackBox

        arguments = ["attribute", *model(), "--limit", 2, "--every", 9, "--out", "out"]
        done(*arguments)
        first = read("out/results.json")
        asked = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BlackBox, "_ask", lambda *given: asked.append(given), raising=True)
            second = done(*arguments)
        assert not asked
        assert "are used again" in second.stderr
        assert read("out/results.json") == first

    def test_what_does_not_fit_the_network_is_left_out_and_said(self):
        options = ["--limit", 1, "--every", 30, "--residual", "pattern"]
        result = done("attribute", *model("functional"), *options, "--out", "out")
        found = read("out/results.json")
        assert list(found["left_out"]) == ["DeConvNet", "Guided Backprop", "LRP"]
        assert found["left_out"]["LRP"].startswith(
            "Zennit has no rule for add in 'the model itself' (Functional)"
        )
        assert found["left_out"]["DeConvNet"].startswith("Captum changes the gradient of nn.ReLU")
        assert list(found["methods"]) == ["Gradient × input", "PatternAttribution", "Random"]
        page = page_of("out/report.html")
        for name, reason in found["left_out"].items():
            assert f"{name} is left out: {reason}" in result.stderr
            assert f"{name} is left out. {reason}." in page.text
            assert not any(alt.startswith(f"{name} of") for alt in page.alts)

    def test_a_softmax_at_the_end_is_taken_off(self):
        arguments = ["attribute", *model("with_softmax"), "--limit", 2, "--every", 30]
        assert failure(*arguments, "--out", "out") == (
            "the network ends in a Softmax, so that it returns probs, not logits; give "
            "--output-kind probs"
        )
        done(*arguments, "--output-kind", "probs", "--out", "out")
        done("attribute", *model(), "--limit", 2, "--every", 30, "--out", "plain")
        for found, plain in zip(
            read("out/results.json")["images"], read("plain/results.json")["images"], strict=True
        ):
            assert math.isclose(found["probability"], plain["probability"], rel_tol=1e-4)
            assert math.isclose(found["logit"], plain["logit"], rel_tol=1e-4)
            for name, area in plain["aopc"].items():
                assert math.isclose(found["aopc"][name], area, rel_tol=1e-3, abs_tol=1e-5)

    def test_bad_usage(self):
        assert "'labels' is not one of" in misuse("attribute", *model(), "--output-kind", "labels")
        assert "give --images" in misuse("attribute", "--model", "net.py:make", *PREPARED)


@pytest.mark.usefixtures("place")
class TestQuality:
    def test_it_writes_and_prints_what_it_measured(self):
        result = done("quality", *model(), "--out", "out")
        found = read("out/quality.json")
        assert list(found["rho"]) == ["filter", "linear", "two_component", "random"]
        lines = [line.split() for line in result.stdout.splitlines()]
        assert lines[0] == ["estimator", "mean", "rho", "layers"]
        for name, mean, layers in lines[1:]:
            means = [row["mean"] for row in found["table"] if row["estimator"] == name]
            means = [each for each in means if each is not None]
            assert mean == f"{sum(means) / len(means):.3f}"
            assert int(layers) == len(means) > 0
        assert len(lines) == 5
        rows = list(csv.DictReader(Path("out/quality.csv").read_text().splitlines()))
        assert len(rows) == 4 * 3
        Image.open("out/quality.png").load()
        assert found["settings"]["command"] == "patterns quality"
        assert set(found["skipped"]) == {"photos/note.txt", "photos/x-broken.png"}
        # 24 images and the broken one, shared out 10 : 10 : 5.
        fitted = read("out/fit.json")["patterns"]
        assert {each["images"] for each in fitted.values()} <= {9, 10}
        assert "are used again" in done("quality", *model(), "--out", "out").stderr

    def test_parts_are_disjoint_and_complete(self):
        from captum_blackbox.cli.patterns_quality import _split

        paths = [Path(f"{i}.png") for i in range(23)]
        parts = _split(paths, (2, 2, 1), 0, "--images")
        assert [len(part) for part in parts] == [9, 9, 5]
        assert sorted(str(path) for part in parts for path in part) == sorted(map(str, paths))
        assert parts != _split(paths, (2, 2, 1), 1, "--images")

    def test_bad_usage(self):
        prepared = ["--model", "net.py:make", *PREPARED]
        both = "give --images, or both --fit-images and --eval-images"
        assert both in misuse("quality", *prepared, "--fit-images", "photos")
        assert both in misuse(
            "quality", *model(), *("--fit-images", "photos", "--eval-images", "photos")
        )
        assert "only --model demo can do without" in misuse("quality", *prepared)
        Path("three").mkdir()
        for name in ("00.png", "01.png", "02.png"):
            Path("three", name).write_bytes(Path("photos", name).read_bytes())
        assert failure("quality", *prepared, "--images", "three", "--out", "out") == (
            "--images has 3 images, and at least 5 are needed to hold some out; a few hundred are "
            "a start"
        )


@pytest.mark.usefixtures("few_scenes")
class TestDemo:
    def test_one_line_explains_the_built_in_network(self, tmp_path):
        out = tmp_path / "out"
        done("attribute", "--model", "demo", "--limit", 11, "--every", 7, "--out", out)
        found = read(out / "results.json")
        assert len({image["true"] for image in found["images"]}) == 10
        assert found["left_out"] == {}
        assert found["degradation"]["patch"] == 9
        assert found["patterns"]["images"] == 40
        assert found["settings"]["--regime-centering"] == "True"
        assert (
            "The signal that the built-in network responds to" in page_of(out / "report.html").text
        )

    def test_its_patterns_can_be_fitted_and_judged(self, tmp_path):
        done("fit", "--model", "demo", "--no-regime-centering", "--out", tmp_path)
        assert "--regime-centering" not in read(tmp_path / "fit.json")["settings"]
        result = done("quality", "--model", "demo", "--out", tmp_path / "quality")
        assert result.stdout.count("\n") == 5


def test_where_the_paper_s_patterns_are_unstable_the_page_says_so(tmp_path, few_scenes):
    options = ["--limit", 1, "--every", 20, "--no-regime-centering"]
    done("attribute", "--model", "demo", *options, "--out", tmp_path)
    found = read(tmp_path / "results.json")["patterns"]["layers"].values()
    unstable = sum(len(layer["unstable"]) for layer in found)
    assert (
        f"{unstable} of 426 units have a pattern that is huge"
        in page_of(tmp_path / "report.html").text
    )


@pytest.mark.slow
def test_patterns_find_what_matters_to_the_built_in_network(tmp_path):
    done("attribute", "--model", "demo", "--limit", 24, "--out", tmp_path)
    areas = {k: each["aopc"] for k, each in read(tmp_path / "results.json")["methods"].items()}
    assert areas["PatternAttribution"] > areas["Random"] + 0.1
    assert areas["PatternAttribution"] > areas["Gradient × input"] + 0.1


def test_help_is_quick_because_torch_waits():
    code = (
        "import sys; sys.argv = ['x', 'patterns', 'attribute', '--help']\n"
        "from captum_blackbox.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--output-seed" in result.stdout
