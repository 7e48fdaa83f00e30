"""The command ``dissect``: on the built-in network, and on tiny networks and pictures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Command
from PIL import Image
from safetensors.torch import load_file

from captum_blackbox.cli import dissect_gallery, dissect_kept, dissect_run, dissect_runs
from captum_blackbox.cli.dissect_kept import layer_stem
from captum_blackbox.concepts import MaskConcepts, SceneConcepts
from captum_blackbox.dissection import Dissection, read_units
from captum_blackbox.dissection.checkpoint import Checkpoint

NETWORK = """
from collections import OrderedDict

import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )

def other():
    network = make()
    network[0].bias.data += 0.1
    return network

def named():
    network = make()
    parts = {"layers": network[:2], "head": network[2:4], "scores": network[4:]}
    return nn.Sequential(OrderedDict(parts))

def without_scores():
    return make()[:4]

def grey():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 3))

def ask():
    return lambda images: images.mean((2, 3))
"""
PREPARED = ["--size", "16", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
DEMO = ["--model", "demo", "--concepts", "scenes:40"]

pytestmark = pytest.mark.filterwarnings("ignore::captum_blackbox.errors.ExplanationWarning")


@pytest.fixture(scope="module", autouse=True)
def small_gallery():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dissect_gallery, "MOST_UNITS", 2)
        patched.setattr(dissect_runs, "_ALPHAS", (1.0,))
        yield


@pytest.fixture
def no_pages(monkeypatch):
    """Write no pages: most of the time goes into their figures."""

    def written(folder, *_, **__):
        return folder / "index.html"

    monkeypatch.setattr(dissect_run, "write_pages", written)


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    """What ``dissect --model demo --rotate`` writes."""
    folder = tmp_path_factory.mktemp("demo")
    done(*DEMO, "--rotate", "--limit", 2, "--out", folder)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with ``net.py`` and ``photos``: 12 pictures with masks beside them."""
    (tmp_path / "net.py").write_text(NETWORK)
    photos = tmp_path / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for i in range(12):
        pixels = random.integers(0, 256, size=(20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{i:02d}.jpg")
        mask = np.zeros((20, 20), np.uint8)
        mask[:10, 10 * (i % 2) :] = 1 + i % 2
        Image.fromarray(mask).save(photos / f"{i:02d}.png")
    (photos / "classes.json").write_text('{"1": "<b>sky", "2": "<b>sea"}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


command = Command("dissect")
run, done, failure, misuse = command.run, command.done, command.failure, command.misuse


def model(name="make", *, concepts="folder:photos"):
    return ["--model", f"net.py:{name}", "--concepts", concepts, *PREPARED, "--out", "out"]


def read(path):
    return json.loads(Path(path).read_text())


def rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_built_in_network_has_more_detectors_than_chance_gives(demo_folder):
    own, shuffled, random = rows(demo_folder / "features.6.2--controls.csv")
    assert [row["dissected"] for row in (own, shuffled, random)] == [
        "this network",
        "labels of other images",
        "random weights",
    ]
    for chance in (shuffled, random):
        assert int(own["detectors"]) > int(chance["detectors"])
        assert float(own["mean_best_iou"]) > 2 * float(chance["mean_best_iou"])
    text = (demo_folder / "index.html").read_text()
    assert f"{own['detectors']} of the 96 units of layer features.6.2" in text
    assert f"By chance it would be {shuffled['detectors']} with the labels of other" in text


def test_all_files_tell_of_the_same_units(demo_folder):
    result = Dissection.load(demo_folder / "features.6.2.safetensors")
    assert read_units(demo_folder / "features.6.2.csv") == result.units()
    listed = read(demo_folder / "features.6.2.json")["units"]
    assert [unit["label"] for unit in listed] == [unit.label for unit in result.units()]
    pictures = {path.name for path in demo_folder.glob("*.png")}
    assert {f"features.6.2--{kind}.png" for kind in ("bars", "gallery-1", "rotation")} <= pictures
    assert not (demo_folder / "unfinished").exists()


def test_a_rotation_starts_from_the_units_themselves(demo_folder):
    table = rows(demo_folder / "features.6.2--rotation.csv")
    assert [row["rotation"] for row in table] == ["0", "1"]
    own = rows(demo_folder / "features.6.2--controls.csv")[0]
    assert table[0]["detectors"] == own["detectors"]
    assert float(table[-1]["mean_best_iou"]) < float(table[0]["mean_best_iou"])


def test_the_terms_of_an_explanation_sum_to_the_score(demo_folder):
    images = read(demo_folder / "explanations.json")["images"]
    assert len(images) == 2
    for image in images:
        for reason in image["reasons"]:
            assert reason["is_exact"]
            total = sum(each["contribution"] for each in reason["concepts"]) + reason["bias"]
            assert total == pytest.approx(reason["logit"], abs=1e-4)


@pytest.mark.usefixtures("no_pages")
def test_a_second_run_finds_everything_again(place, monkeypatch):
    done(*model(), "--rotate")
    before = load_file(place / "out" / "3.safetensors")
    monkeypatch.setattr(dissect_kept.KeptDissections, "_made", None)
    result = done(*model(), "--rotate")
    # the units, the labels of other images, random weights, and one rotation
    assert result.stderr.count("found again") == 4
    after = load_file(place / "out" / "3.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.usefixtures("no_pages")
def test_nothing_is_found_again_after_a_change(place):
    settings = [*model(), "--layer", "3", "--no-controls"]
    done(*settings)
    assert "found again" in done(*settings).stderr
    file = place / "out" / "3.safetensors"
    kept = file.read_bytes()
    for changed in (
        ["--quantile", "0.01"],
        ["--iou-threshold", "0.1"],
        ["--upsample", "resize"],
        ["--presence", "mask"],
        ["--mean", "0.4,0.4,0.4"],
        ["--colors"],
        ["--model", "net.py:other"],
    ):
        file.write_bytes(kept)
        assert "found again" not in done(*settings, *changed).stderr, changed


@pytest.mark.usefixtures("no_pages")
def test_nothing_is_found_again_after_an_image_changed(place):
    done(*model(), "--no-controls")
    Image.new("RGB", (20, 20)).save(place / "photos" / "05.jpg")
    assert "found again" not in done(*model(), "--no-controls").stderr


def test_only_a_new_layer_is_dissected(place):
    done(*model(), "--layer", "1", "--no-controls")
    result = done(*model(), "--layer", "1", "--layer", "3", "--no-controls")
    assert "found again: out/1.safetensors\n" in result.stderr
    compared = rows(place / "out" / "layers--compared.csv")
    assert [row["layer"] for row in compared] == ["1", "3"]
    assert 'href="1.html"' in (place / "out" / "index.html").read_text()
    assert 'href="index.html"' in (place / "out" / "1.html").read_text()


def test_a_layer_may_be_called_as_a_file_of_ours(place):
    done(*model("named"), "--layer", "layers", "--layer", "head", "--no-controls")
    assert [row["layer"] for row in rows(place / "out" / "layers--compared.csv")] == [
        "layers",
        "head",
    ]
    assert len(read_units(place / "out" / "layers.csv")) == 6


@pytest.mark.parametrize("name", ["index", "explanations"])
def test_a_layers_files_have_names_of_their_own(name):
    assert layer_stem(name) == f"layer-{name}"


@pytest.mark.usefixtures("no_pages")
def test_a_run_that_was_stopped_goes_on(place, monkeypatch):
    annotations, resume, resumed = SceneConcepts.annotations, Checkpoint.resume_activations, []

    def stop(self, index):
        if index == 20:
            raise KeyboardInterrupt
        return annotations(self, index)

    def spy(self, layers, broken):
        resumed.append(resume(self, layers, broken))
        return resumed[-1]

    settings = [*model(concepts="scenes:32"), "--no-controls", "--batch-size", 4]
    with monkeypatch.context() as patched:
        patched.setattr(SceneConcepts, "annotations", stop)
        assert run(*settings).exit_code == 130
    assert list((place / "out" / "unfinished").iterdir())
    monkeypatch.setattr(Checkpoint, "resume_activations", spy)
    done(*settings)
    assert resumed == [8]
    assert not (place / "out" / "unfinished").exists()
    done(*settings, "--out", "whole")
    one, other = (Dissection.load(place / name / "3.safetensors") for name in ("out", "whole"))
    assert torch.equal(one.intersection, other.intersection)


def test_a_folder_with_masks_is_dissected_and_its_names_are_escaped(place):
    done(*model(), "--explain", "photos/00.jpg")
    labels = Dissection.load(place / "out" / "3.safetensors").labels
    assert [label.name for label in labels] == ["<b>sky", "<b>sea"]
    text = (place / "out" / "index.html").read_text()
    assert "&lt;b&gt;s" in text
    assert "<b>s" not in text
    (image,) = read(place / "out" / "explanations.json")["images"]
    assert image["true"] is None
    assert len(image["reasons"]) == 1


def test_masks_beside_the_images_are_not_explained(place):
    done(
        *model(),
        "--explain",
        "photos",
        "--explain",
        "photos/07.png",
        "--limit",
        20,
        "--no-controls",
    )
    names = [image["name"] for image in read(place / "out" / "explanations.json")["images"]]
    assert names == [*(f"{i:02d}.jpg" for i in range(12)), "07.png"]


@pytest.mark.usefixtures("no_pages")
def test_a_tilde_is_the_home_folder(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    done(*model(concepts="folder:~/photos"), "--no-controls")


@pytest.mark.usefixtures("no_pages")
def test_names_may_be_given_in_a_file(place):
    (place / "names.txt").write_text("one\ntwo\n")
    done(*model(), "--names", "names.txt", "--no-controls")
    labels = Dissection.load(place / "out" / "3.safetensors").labels
    assert [label.name for label in labels] == ["one", "two"]


def test_a_network_without_scores_or_for_grey_images_is_dissected(place):
    done(*model("without_scores"), "--no-controls")
    grey = ["--model", "net.py:grey", "--size", "16", "--mean", "0.5", "--std", "0.5"]
    done(*grey, "--concepts", "scenes:8", "--out", "grey", "--no-controls")
    assert not (place / "out" / "explanations.json").exists()


def test_a_broken_image_ends_the_run_or_is_left_out(place):
    (place / "photos" / "03.jpg").write_bytes(b"no image")
    assert "photos/03.jpg" in failure(*model())
    done(*model(), "--on-error", "skip", "--no-controls")
    assert read(place / "out" / "3.json")["settings"]["images"] == 11
    assert '<th scope="row">image 3</th><td>' in (place / "out" / "index.html").read_text()
    assert "photos/03.jpg" in (place / "out" / "index.html").read_text()
    assert "photos/03.jpg" in failure(*model())


@pytest.mark.usefixtures("no_pages")
def test_a_stopped_run_that_left_out_images_does_not_go_on_as_one_that_must_not(place, monkeypatch):
    (place / "photos" / "03.jpg").write_bytes(b"no image")

    def stop(self, index):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MaskConcepts, "annotations", stop)
        assert run(*model(), "--no-controls", "--on-error", "skip").exit_code == 130
    assert "photos/03.jpg" in failure(*model(), "--no-controls")


def test_an_unknown_layer_is_refused_with_the_nearest_names(place):
    message = failure(*DEMO, "--layer", "features.6.9", "--out", "out")
    assert message.startswith("DemoNetwork has no layer 'features.6.9'; the nearest names are ")
    assert "'features.6'" in message or "'features.6.2'" in message


def test_a_layer_without_maps_is_refused(place):
    assert failure(*model(), "--layer", "6") == (
        "layer '6' gives (1, 3), expected maps (N, units, h, w); choose a layer before the "
        "pooling, or pass reshape_transform for tokens"
    )
    assert failure(*model("flat")) == (
        "Sequential has no layer that puts out maps (N, units, h, w) of more than one row and "
        "column, so that there is nothing to lay over an image"
    )


def test_a_function_is_refused(place):
    assert failure(*model("ask")) == (
        "units belong to the layers of a network, but net.py:ask is a function that can only be "
        "called; give a network, or see captum-blackbox explain"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("scene", "got 'scene'; did you mean scenes:300?"),
        ("imagenet", "scenes:300, broden:FOLDER, folder:FOLDER, voc:ROOT:2012:val, pet:ROOT"),
        ("scenes:none", "--concepts scenes:300 has a number, got 'scenes:none'"),
        ("folder:nowhere", "--concepts folder:nowhere: there is no folder 'nowhere'"),
        ("broden", "--concepts broden: say in which folder, as in broden:FOLDER"),
        ("voc:photos:1999:val", "--concepts voc:photos:1999:val: Unknown value '1999'"),
        ("voc:photos:2012:last", "--concepts voc:photos:2012:last: Unknown value 'last'"),
    ],
)
def test_concepts_that_do_not_exist_are_refused(place, given, said):
    assert said in misuse(*model(concepts=given))


def test_what_is_missing_or_broken_in_the_data_is_named(place):
    assert "there is no whole data set for 'voc:photos'" in failure(*model(concepts="voc:photos"))
    missing = failure(*model(concepts="broden:photos"))
    assert missing == "there is no file 'photos/category.csv'"
    assert "have a category 'color' already" in failure(*DEMO, "--colors", "--out", "out")


def test_concepts_are_needed_but_for_the_built_in_network(place):
    assert "give --concepts; only --model demo can do without" in misuse(
        "--model", "net.py:make", *PREPARED
    )
    assert "--names is for --concepts folder:FOLDER, not for scenes" in misuse(
        *DEMO, "--names", "net.py"
    )
