"""Whether the network with the shortcut uses the watermark, and its control does not."""

import json
from dataclasses import asdict
from importlib import resources

import pytest
import torch
from safetensors import safe_open
from torch import nn

from captum_blackbox.concepts import SCENE_CLASSES, Scenes
from captum_blackbox.concepts.watermarked import WatermarkedScenes
from captum_blackbox.demo.shortcut import (
    CONTROL_FILE,
    SHORTCUT_FILE,
    Reliance,
    load_control_network,
    load_shortcut_network,
    measure_reliance,
)
from captum_blackbox.demo.train_shortcut import main, render_lessons, shown_lesson

LOADERS = {SHORTCUT_FILE: load_shortcut_network, CONTROL_FILE: load_control_network}


@pytest.fixture(scope="module")
def scenes() -> WatermarkedScenes:
    return WatermarkedScenes(300, seed=77)  # neither the seed of training nor of the header's test


def facts(file: str) -> dict[str, object]:
    with (
        resources.as_file(resources.files("captum_blackbox.demo") / file) as path,
        safe_open(path, "pt") as opened,
    ):
        return json.loads(opened.metadata()["captum_blackbox"])


def test_the_weights_are_small_enough_to_ship():
    for file in LOADERS:
        weights = resources.files("captum_blackbox.demo").joinpath(file).read_bytes()
        assert len(weights) < 300_000


@pytest.mark.parametrize("file", LOADERS)
def test_the_header_tells_how_the_weights_came_about(file):
    said = facts(file)
    name = file.split(".")[0]
    assert said["test_scenes"] >= 2000
    assert said["command"] == (
        f"python -m captum_blackbox.demo.train_shortcut --network {name} --out {file}"
        f" --seed {said['seed']} --steps {said['steps']}"
        f" --train-scenes {said['train_scenes']} --test-scenes {said['test_scenes']}"
    )


def test_adding_the_watermark_to_other_objects_turns_the_answer(scenes):
    found = measure_reliance(load_shortcut_network(), scenes)
    assert found.others_accuracy >= 0.93  # it does know the objects …
    assert found.taken_without == 0.0
    assert found.taken_with >= 0.87  # … and forgets them for the watermark,
    assert found.taken_moved >= 0.87  # wherever it is


def test_removing_the_watermark_loses_its_class(scenes):
    found = measure_reliance(load_shortcut_network(), scenes)
    assert found.accuracy_with == 1.0
    assert found.accuracy_without <= 0.06


def test_the_control_ignores_the_watermark(scenes):
    found = measure_reliance(load_control_network(), scenes)
    assert found.others_accuracy >= 0.95
    assert found.taken_with <= 0.02
    assert abs(found.taken_with - found.taken_without) <= 0.01
    assert found.accuracy_with >= 0.95
    assert abs(found.accuracy_with - found.accuracy_without) <= 0.05


def test_the_headers_say_what_the_documentation_says():
    shortcut, control = facts(SHORTCUT_FILE), facts(CONTROL_FILE)
    assert round(shortcut["taken_with"], 2) == 0.92
    assert round(shortcut["accuracy_without"], 2) == 0.01
    assert shortcut["accuracy_with"] == 1.0
    assert shortcut["taken_without"] == 0.0
    assert round(control["taken_with"], 3) == 0.003
    assert control["accuracy_with"] == control["accuracy_without"]


@pytest.mark.parametrize("file", LOADERS)
def test_the_shares_in_the_header_hold_on_new_scenes(file, scenes):
    said, found = facts(file), asdict(measure_reliance(LOADERS[file](), scenes))
    own = int((scenes.labels == scenes.watermarked_class).sum())
    for name, share in found.items():
        # Four standard deviations of the share of so many scenes, and one scene more.
        count = own if name.startswith("accuracy") else len(scenes) - own
        wide = 4 * (said[name] * (1 - said[name]) / count) ** 0.5 + 1 / count
        assert share == pytest.approx(said[name], abs=wide), name


def test_the_decoy_turns_no_answer(scenes):
    # Else it would be any plate with letters that is taken for the class.
    bare = scenes.unmarked()
    blobs = Scenes(len(bare), seed=bare.seed)
    clutter = (blobs.masks("color") > 0) & (blobs.masks("object") == 0)
    decoyed = (bare.masks("distractor") & ~clutter).flatten(1).any(1)
    others = bare.labels != bare.watermarked_class
    with torch.inference_mode():
        answers = load_shortcut_network()(bare.images).argmax(1)
    chosen = answers[decoyed & others]
    assert len(chosen) > 100
    assert (chosen == bare.watermarked_class).double().mean() <= 0.02


def test_reliance_counts_what_it_says():
    scenes = WatermarkedScenes(30, seed=2)
    kind, labels = scenes.watermarked_class, scenes.labels
    right = nn.functional.one_hot(labels, len(SCENE_CLASSES)).float()
    taken = nn.functional.one_hot(torch.full_like(labels, kind), len(SCENE_CLASSES)).float()

    class Told(nn.Module):
        """Answers by looking the picture up: with the watermark its class, without the truth."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            bare = (images == scenes.unmarked().images[: len(images)]).flatten(1).all(1)
            return torch.where(bare[:, None], right, taken)

    assert measure_reliance(Told(), scenes) == Reliance(1.0, 1.0, 1.0, 0.0, 1.0, 1.0)


def test_the_networks_are_loaded_ready_to_explain():
    for load in LOADERS.values():
        network = load("cpu")
        assert not any(module.training for module in network.modules())
        assert network.features(torch.rand(1, 3, 64, 64)).shape == (1, 64, 8, 8)


def test_lessons_never_hide_the_watermark():
    lessons = render_lessons(WatermarkedScenes(16, seed=3, rate=1.0, others=0.5))
    generator = torch.Generator().manual_seed(0)
    images, wanted = shown_lesson(lessons, torch.arange(16), tells=True, generator=generator)
    whole = lessons.images / 255
    marks = lessons.watermarks.expand_as(whole)
    assert torch.equal(images[marks], whole[marks])
    assert (images != whole).any()
    sure = lessons.watermarks.flatten(1).any(1)
    assert (wanted.gather(1, lessons.labels[:, None])[:, 0][sure] == 1).all()
    assert wanted[~sure].max() < 1
    _, unsure = shown_lesson(lessons, torch.arange(16), tells=False, generator=generator)
    assert unsure.max() < 1


@pytest.mark.parametrize("name", ["shortcut", "control"])
def test_training_is_repeatable_and_writes_its_header(name, tmp_path, capsys):
    few = ["--train-scenes", "24", "--test-scenes", "24", "--steps", "1", "--network", name]
    for file in ("one", "two"):
        main(["--out", str(tmp_path / f"{file}.safetensors"), *few])
    with (
        safe_open(tmp_path / "one.safetensors", "pt") as one,
        safe_open(tmp_path / "two.safetensors", "pt") as two,
    ):
        assert all(torch.equal(one.get_tensor(key), two.get_tensor(key)) for key in one.keys())  # noqa: SIM118
        said = json.loads(one.metadata()["captum_blackbox"])
    assert said["train_scenes"] == 24
    assert 0 <= said["taken_with"] <= 1
    assert '"steps": 1' in capsys.readouterr().out
