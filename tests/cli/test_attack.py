"""The command that attacks explanations: on the built-in network, and on tiny networks."""

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Command
from page_reader import EVIL, page_of
from PIL import Image
from safetensors.torch import load_file

from captum_blackbox.audit import METHODS as AUDITED
from captum_blackbox.cli import attack_cells
from captum_blackbox.cli.attack_options import ATTACK_BUDGETS, METHODS, parse_radii
from captum_blackbox.compare.attributions import BY_GRADIENT
from captum_blackbox.fragility import InterpretationAttack

NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F

def make():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3),
    )
    network[6].weight.data *= 20
    return network

def no_convolution():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 3))

class Choosy(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = make()

    def forward(self, x):
        if x.isclose(torch.ones(())).all((1, 2, 3)).any() and torch.is_grad_enabled():
            raise RuntimeError("too bright")
        return self.inner(x)

def choosy():
    return Choosy()

def ask():
    return lambda images: images.mean((2, 3))
"""
PREPARED = ["--size", "16", "--mean", "0.4,0.5,0.6", "--std", "0.5,0.25,0.2"]
FEW = ["--methods", "gradient,grad-cam", "--limit", 3, "--steps", 4]
CELLS = [
    f"{method}--{mode}--8-255"
    for method in ("gradient", "grad-cam")
    for mode in ("topk", "mass-center", "random")
]

pytestmark = pytest.mark.filterwarnings("ignore::captum_blackbox.errors.ExplanationWarning")

command = Command("attack")
run, done, failure, misuse = command.run, command.done, command.failure, command.misuse


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ``net.py`` and ``photos``: 5 pictures, a note and a broken file."""
    folder = tmp_path_factory.mktemp("attack")
    (folder / "net.py").write_text(NETWORK)
    photos = folder / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for i in range(5):
        pixels = random.integers(0, 256, size=(20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.png")
    (photos / "note.txt").write_text("no image")
    (photos / "x-broken.png").write_bytes((photos / "0.png").read_bytes()[:300])
    mask = np.zeros((16, 16), np.uint8)
    mask[:8, :8] = 255
    Image.fromarray(mask).save(folder / "corner.png")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(folder / "black.png")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def whole(place):
    """A run that is done: its answer and what it wrote."""
    result = done(*model(), *FEW, "--out", "whole")
    return result, json.loads(Path("whole/attack.json").read_text())


def model(name="make", images="photos"):
    return ["--model", f"net.py:{name}", "--images", images, *PREPARED]


def read(path):
    return json.loads(Path(path).read_text())


@pytest.mark.usefixtures("place")
class TestFiles:
    def test_all_are_there(self, whole):
        result, found = whole
        assert f"the page is {Path('whole/report.html').resolve()}" in result.stderr
        assert "explaining the first 3 images, 3 are left (--limit)" in result.stderr
        assert [each["name"] for each in found["methods"]] == ["Gradient", "Grad-CAM"]
        assert found["k"] == round(0.02 * 256)
        assert found["left_out"] == {}
        assert found["settings"]["--steps"] == "4"
        assert found["settings"]["--methods"] == "gradient,grad-cam"
        for path, reason in found["skipped"].items():
            assert result.stderr.count(f"skipped {path}: {reason}\n") == 1
        assert found["skipped"] == {"photos/note.txt": "not an image"}
        for cell in CELLS:
            assert len(list(Path("whole/attacked", cell).glob("*.png"))) == 3
        assert len(list(Path("whole/maps").glob("*.png"))) == 3
        Image.open("whole/maps/0000-0.png").load()

    def test_a_change_stays_within_the_radius_in_pixels_and_keeps_the_prediction(self, whole):
        from captum_blackbox.cli.images import choose_preparation, load_images
        from captum_blackbox.cli.models import make_network

        preparation = choose_preparation(16, "0.4,0.5,0.6", "0.5,0.25,0.2", None)
        clean = load_images([Path("photos")], preparation, limit=3).inputs
        network = make_network("net.py:make")
        std = torch.tensor(preparation.std).view(3, 1, 1)
        for cell in CELLS:
            attacked = load_file(f"whole/attacked/{cell}.safetensors")["inputs"]
            change = (attacked - clean) * std
            assert 0 < change.abs().max() <= 8 / 255 + 1e-6
            pixels = attacked * std + torch.tensor(preparation.mean).view(3, 1, 1)
            assert -1e-6 <= pixels.min() <= pixels.max() <= 1 + 1e-6
            assert torch.equal(network(attacked).argmax(1), network(clean).argmax(1))
            for i in range(3):
                saved = np.asarray(Image.open(f"whole/attacked/{cell}/000{i}-{i}.png"))
                exact = 255 * pixels[i].permute(1, 2, 0).clamp(0, 1).numpy()
                assert np.abs(saved - exact).max() <= 0.5 + 1e-3

    def test_the_numbers_are_those_of_the_library(self, whole):
        from captum.attr import Saliency

        from captum_blackbox.cli.images import choose_preparation, load_images
        from captum_blackbox.cli.models import make_network

        preparation = choose_preparation(16, "0.4,0.5,0.6", "0.5,0.25,0.2", None)
        clean = load_images([Path("photos")], preparation, limit=3).inputs
        attack = InterpretationAttack.normalized(
            Saliency(make_network("net.py:make")), mean=preparation.mean, std=preparation.std
        )
        expected = attack.run(clean, 8 / 255, 2 / 255, 4, mode="mass_center")
        found = load_file("whole/attacked/gradient--mass-center--8-255.safetensors")
        torch.testing.assert_close(found["inputs"], expected.inputs)
        for i, image in enumerate(whole[1]["images"]):
            (numbers,) = (
                each
                for each in image["attacks"]
                if (each["method"], each["mode"]) == ("gradient", "mass-center")
            )
            for name in ("center_shift", "intersection", "rank_correlation", "confidence", "l2"):
                value = float(getattr(expected.attacked, name)[i])
                assert math.isclose(numbers[name], value, rel_tol=1e-5, abs_tol=1e-9)
            assert numbers["best_step"] == int(expected.best_step[i])

    def test_table_and_json_say_the_same(self, whole):
        rows = list(csv.DictReader(Path("whole/attack.csv").read_text().splitlines()))
        assert len(rows) == 6 * 3
        of = {(row["image"], row["method"], row["mode"]): row for row in rows}
        for image in whole[1]["images"]:
            for attack in image["attacks"]:
                row = of[image["name"], attack["method"], attack["mode"]]
                assert row["radius"] == attack["radius"] == "8/255"
                assert row["predicted"] == image["predicted"]
                for name in ("intersection", "ssim", "confidence", "label_kept"):
                    assert math.isclose(float(row[name]), attack[name], rel_tol=1e-5, abs_tol=1e-9)
                assert row["region_mass"] == ""
                assert attack["region_mass"] is None

    def test_means_follow_from_the_images(self, whole):
        found = whole[1]
        for row in found["attacks"]:
            values = [
                attack["intersection"]
                for image in found["images"]
                for attack in image["attacks"]
                if METHODS[attack["method"]] == row["method"]
                and {"topk": "most important pixels", "mass-center": "centre of mass"}.get(
                    attack["mode"], "random signs"
                )
                == row["mode"]
            ]
            assert math.isclose(row["intersection"]["mean"], sum(values) / 3, rel_tol=1e-9)
            assert (row["difference"] is None) == (row["mode"] == "random signs")


@pytest.mark.usefixtures("place")
class TestPage:
    def test_it_shows_the_numbers_of_the_file(self, whole):
        text, found = page_of("whole/report.html").text, whole[1]
        for method in found["methods"]:
            assert f"{method['name']} {method['sentence']}".replace("\xa0", " ") in text
            where = f"{method['broken'][0]} of {method['broken'][1]}"
            assert f"{where} {100 * method['aimed']:.1f} %" in text
        assert "Only 3 images were attacked" in text
        assert "A failed attack proves nothing." in text
        for image in found["images"]:
            assert f"predicted {image['predicted']}, {100 * image['probability']:.1f} %" in text

    def test_the_attack_shown_is_the_one_that_leaves_least(self, whole):
        text, image = page_of("whole/report.html").text, whole[1]["images"][0]
        for method in ("gradient", "grad-cam"):
            aimed = [
                each
                for each in image["attacks"]
                if each["method"] == method and each["mode"] != "random"
            ]
            least = min(each["intersection"] for each in aimed)
            said = rf"{METHODS[method]} Aim: [a-z ]+, radius 8/255. Top pixels left ([0-9.]+) %"
            shown = re.findall(said, text)
            assert len(shown) == 3
            assert shown[0] == f"{100 * least:.1f}"

    def test_names_of_files_and_classes_are_harmless(self, place):
        (place / "evil").mkdir(exist_ok=True)
        name = "<img src=x onerror=y>'.png"
        (place / "evil" / name).write_bytes(Path("photos/1.png").read_bytes())
        Path("classes.txt").write_text("\n".join([EVIL] * 3))
        options = ["--classes", "classes.txt", "--methods", "grad-cam", "--steps", 1]
        done(*model(images="evil"), *options, "--out", "harmless")
        page = page_of("harmless/report.html")
        assert not page.all("script")
        assert not page.handlers
        assert "".join(page.words).count(EVIL) >= 2
        assert "".join(page.words).count(name) >= 1
        assert list(Path("harmless/maps").glob("*")) == [
            Path("harmless/maps/0000-img-src-x-onerror-y.png")
        ]


@pytest.mark.usefixtures("place")
class TestResume:
    def test_a_killed_run_goes_on_where_it_stopped(self, whole, monkeypatch):
        attack, seen = InterpretationAttack.run, []

        def dying(self, *arguments, **options):
            seen.append(options["mode"])
            if len(seen) == 5:
                raise KeyboardInterrupt
            return attack(self, *arguments, **options)

        with monkeypatch.context() as killed:
            killed.setattr(InterpretationAttack, "run", dying)
            assert run(*model(), *FEW, "--out", "killed").exit_code != 0
        kept = {path.stem for path in Path("killed/attacked").glob("*.safetensors")}
        assert kept == set(CELLS[:4])
        assert not Path("killed/report.html").exists()
        seen.clear()
        monkeypatch.setattr(
            InterpretationAttack,
            "run",
            lambda *given, **options: seen.append(options["mode"]) or attack(*given, **options),
        )
        result = done(*model(), *FEW, "--out", "killed")
        assert seen == ["mass_center", "random"]
        assert "4 of 6 attacks were done before, and are used again" in result.stderr
        for name in ("images", "attacks", "methods"):
            assert read("killed/attack.json")[name] == whole[1][name]

    def test_another_radius_or_seed_is_another_attack(self, monkeypatch):
        seen = []
        made = attack_cells.KeptCells.made

        def noting(self, cell, *rest):
            seen.append(cell.stem)
            return made(self, cell, *rest)

        monkeypatch.setattr(attack_cells.KeptCells, "made", noting)
        options = ["--methods", "grad-cam", "--modes", "random", "--limit", 1, "--out", "again"]
        done(*model(), *options)
        done(*model(), *options)
        assert seen == ["grad-cam--random--8-255"]
        done(*model(), *options, "--radii", "4/255,8/255")
        assert seen[1:] == ["grad-cam--random--4-255"]
        done(*model(), *options, "--seed", 1)
        assert seen[2:] == ["grad-cam--random--8-255"]
        Path("again/attacked/grad-cam--random--8-255.safetensors").write_bytes(b"half")
        done(*model(), *options, "--seed", 1)
        assert seen[3:] == ["grad-cam--random--8-255"]


@pytest.mark.usefixtures("place")
class TestChoices:
    def test_every_method_can_be_attacked(self):
        options = ["--methods", ",".join(METHODS), "--modes", "topk", "--steps", 1, "--limit", 1]
        done(*model(), *options, "--out", "every")
        found = read("every/attack.json")
        assert [each["name"] for each in found["methods"]] == list(METHODS.values())
        assert found["left_out"] == {}
        assert found["methods"][0]["chance"] is None

    def test_methods_are_those_of_an_audit_by_the_same_names(self):
        assert list(METHODS) == list(BY_GRADIENT)
        assert {name: AUDITED[name].name for name in BY_GRADIENT} == METHODS

    def test_importance_is_brought_into_a_region(self):
        options = ["--modes", "targeted,random", "--region", "corner.png", "--steps", 8]
        options += ["--methods", "gradient", "--radii", "16/255", "--limit", 2]
        done(*model(), *options, "--out", "region")
        found = read("region/attack.json")
        before, after = found["attacks"][0]["region_mass"]
        assert after > before > 0
        maps = load_file("region/attacked/gradient--targeted--16-255.safetensors")["clean_maps"]
        assert math.isclose(before, float(maps[:, :8, :8].sum((1, 2)).mean()), rel_tol=1e-5)
        text = page_of("region/report.html").text
        assert f"The region held {100 * before:.0f} % of the importance" in text
        assert "In the region" in text

    def test_lengths_of_the_whole_change(self):
        options = ["--norm", "L2", "--radii", "0.5", "--methods", "grad-cam", "--steps", 2]
        done(*model(), *options, "--modes", "topk", "--limit", 1, "--out", "length")
        (attack,) = read("length/attack.json")["images"][0]["attacks"]
        assert 0.4 < attack["l2"] <= 0.5 + 1e-6
        assert attack["linf"] < 0.5

    def test_what_the_network_lacks_is_left_out_and_said(self):
        options = ["--methods", "gradient,grad-cam", "--modes", "topk", "--steps", 1, "--limit", 1]
        result = done(*model("no_convolution"), *options, "--out", "left")
        found = read("left/attack.json")
        assert list(found["left_out"]) == ["Grad-CAM"]
        assert [each["name"] for each in found["methods"]] == ["Gradient"]
        reason = found["left_out"]["Grad-CAM"]
        assert f"Grad-CAM is left out: {reason}" in result.stderr
        text = page_of("left/report.html").text
        assert f"Grad-CAM is left out. {reason}." in text
        said = failure(*model("no_convolution"), "--methods", "grad-cam", "--out", "left")
        assert said.startswith("no explanation can be attacked; Grad-CAM: ")

    def test_an_image_that_the_network_refuses_is_reported_and_the_rest_goes_on(self, place):
        (place / "some").mkdir(exist_ok=True)
        (place / "some" / "a.png").write_bytes(Path("photos/0.png").read_bytes())
        Image.fromarray(np.full((16, 16, 3), 255, np.uint8)).save(place / "some" / "b.png")
        plain = ["--size", "16", "--mean", "0,0,0", "--std", "1,1,1"]
        options = ["--methods", "gradient", "--modes", "random", "--out", "choosy"]
        done("--model", "net.py:choosy", "--images", "some", *plain, *options)
        first, second = read("choosy/attack.json")["images"]
        assert first["attacks"][0]["reason"] == ""
        assert second["attacks"][0]["reason"] == "too bright"
        assert second["attacks"][0]["intersection"] is None
        text = page_of("choosy/report.html").text
        assert "nan" not in text
        assert {path.name for path in Path("choosy/maps").glob("*")} == {"0000-a.png"}
        assert "b.png could not be attacked everywhere, and is missing there: too bright" in text
        again = done("--model", "net.py:choosy", "--images", "some", *plain, *options)
        assert "used again" not in again.stderr

    def test_radii_are_read_as_fractions_and_sorted(self):
        radii = parse_radii("8/255, 0.01,1/255")
        assert [radius.text for radius in radii] == ["1/255", "0.01", "8/255"]
        assert [radius.value for radius in radii] == [1 / 255, 0.01, 8 / 255]

    def test_budgets_are_those_of_the_documents(self):
        found = {
            name.value: (budget.steps, len(parse_radii(budget.radii)), budget.passes)
            for name, budget in ATTACK_BUDGETS.items()
        }
        assert found == {"quick": (20, 1, 10), "standard": (100, 3, 32), "paper": (300, 4, 100)}
        assert [r.text for r in parse_radii(ATTACK_BUDGETS["paper"].radii)] == [
            "1/255",
            "2/255",
            "4/255",
            "8/255",
        ]


@pytest.mark.usefixtures("place")
class TestBadUsage:
    def test_a_function_has_no_gradients(self):
        said = failure(*model("ask"), "--out", "out")
        assert said.startswith(
            "an attack follows gradients through a network, but net.py:ask is a function that can "
            "only be called; teach a student first (captum-blackbox distill)"
        )
        assert "InterpretationAttack(DistilledLayerSumGradCAM.load(path, box, student))" in said

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--methods", "grad-cmm"], "got 'grad-cmm'; did you mean grad-cam"),
            (["--methods", "input_x_gradient"], "did you mean input-x-gradient"),
            (["--methods", "rise"], "--methods are some of gradient, input-x-gradient"),
            (["--methods", "ig,ig"], "--methods are each once, got 'ig,ig'"),
            (["--modes", "mass_center"], "did you mean mass-center"),
            (["--modes", "targeted"], "the mode targeted needs --region"),
            (["--region", "corner.png"], "--region is for the mode targeted; add it to --modes"),
            (["--radii", "8/0"], "--radii are positive numbers with commas"),
            (["--radii", "0"], "got '0'"),
            (["--radii", "nan"], "got 'nan'"),
            (["--radii", "4/255,4/255"], "--radii are each once"),
            (["--norm", "L2"], "--norm L2 needs --radii"),
            (["--steps", "0"], "'--steps'"),
        ],
    )
    def test_options_that_cannot_be_used(self, options, said):
        assert said in misuse(*model(), *options, "--out", "out")

    def test_a_region_without_white(self):
        options = ["--modes", "targeted", "--region", "black.png", "--out", "out"]
        assert "--region 'black.png' has nothing white" in failure(*model(), *options)
        options = ["--modes", "targeted", "--region", "photos/note.txt", "--out", "out"]
        assert "is not an image that can be read" in failure(*model(), *options)

    def test_more_important_pixels_than_there_are(self):
        said = failure(*model(), "--k", 1000, "--steps", 1, "--out", "out")
        assert said.startswith("no explanation can be attacked; Gradient: ")


def test_help_is_quick_because_torch_waits():
    code = (
        "import sys; sys.argv = ['x', 'attack', '--help']\n"
        "from captum_blackbox.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--region" in result.stdout


def test_one_line_attacks_the_built_in_network(tmp_path):
    options = ["--methods", "gradient", "--limit", 2, "--steps", 4, "--out", tmp_path]
    done("--model", "demo", *options)
    found = read(tmp_path / "attack.json")
    assert [image["true"] for image in found["images"]] == [
        image["predicted"] for image in found["images"]
    ]
    aimed, _, chance = (row["intersection"]["mean"] for row in found["attacks"])
    assert aimed < chance - 0.2
    assert found["methods"][0]["breaks_at"] == "8/255"
    text = page_of(tmp_path / "report.html").text
    assert "How fragile are explanations of the built-in network?" in text
