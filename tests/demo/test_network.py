import json
from importlib import resources

import pytest
import torch
from safetensors import safe_open
from torch import nn

from captum_blackbox.concepts import SCENE_CLASSES, Scenes
from captum_blackbox.demo import DemoNetwork, load_demo_network
from captum_blackbox.demo.network import WEIGHTS_FILE
from captum_blackbox.demo.train import hide_squares, main, wanted_probabilities


@pytest.fixture(scope="module")
def network() -> DemoNetwork:
    return load_demo_network()


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(500, seed=77)  # neither the seed of training nor of the test in the header


@pytest.fixture(scope="module")
def facts() -> dict[str, object]:
    with (
        resources.as_file(resources.files("captum_blackbox.demo") / WEIGHTS_FILE) as path,
        safe_open(path, "pt") as file,
    ):
        return json.loads(file.metadata()["captum_blackbox"])


def test_the_weights_are_small_enough_to_ship():
    weights = resources.files("captum_blackbox.demo").joinpath(WEIGHTS_FILE).read_bytes()
    assert len(weights) < 1_000_000


def test_the_header_tells_how_the_weights_came_about(facts):
    assert facts["test_scenes"] >= 2000
    assert facts["command"] == (
        "python -m captum_blackbox.demo.train --out weights.safetensors"
        f" --seed {facts['seed']} --epochs {facts['epochs']}"
        f" --train-scenes {facts['train_scenes']} --test-scenes {facts['test_scenes']}"
    )


def test_the_accuracy_in_the_header_holds_on_new_scenes(network, scenes, facts):
    with torch.inference_mode():
        accuracy = (network(scenes.images).argmax(1) == scenes.labels).float().mean().item()
    assert accuracy > 0.97
    assert facts["test_accuracy"] > 0.97
    assert accuracy == pytest.approx(facts["test_accuracy"], abs=0.015)


def test_probabilities_are_not_saturated(network, scenes):
    with torch.inference_mode():
        top = network(scenes.images).softmax(1).amax(1)
    assert 0.8 < top.mean() < 0.97


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_blank_picture_is_answered_by_chance(network, value):
    with torch.inference_mode():
        probabilities = network(torch.full((1, 3, 64, 64), value)).softmax(1)
    assert probabilities.max() < 0.25


def test_the_object_is_the_cause_of_the_prediction(network, scenes):
    objects = (scenes.masks("object") > 0).unsqueeze(1)
    grey = torch.full_like(scenes.images, 0.5)

    def correct(images):
        with torch.inference_mode():
            return network(images).softmax(1).gather(1, scenes.labels[:, None]).mean().item()

    object_only = correct(torch.where(objects, scenes.images, grey))
    background_only = correct(torch.where(objects, grey, scenes.images))
    assert object_only > 0.7
    assert background_only < 0.4  # what is left is the object's outline


def test_the_network_takes_other_sizes(network):
    with torch.inference_mode():
        assert network(torch.rand(2, 3, 48, 80)).shape == (2, len(SCENE_CLASSES))
        assert network(torch.rand(1, 3, 7, 7)).shape == (1, len(SCENE_CLASSES))


def test_the_network_is_loaded_ready_to_explain(network):
    assert not any(module.training for module in network.modules())
    assert next(load_demo_network("cpu").parameters()).device.type == "cpu"
    assert network.features(torch.rand(1, 3, 64, 64)).shape == (1, 96, 8, 8)
    runs: dict[nn.Module, int] = {}
    for module in network.modules():
        module.register_forward_hook(
            lambda module, args, output: runs.update({module: runs.get(module, 0) + 1})
        )
    network(torch.rand(1, 3, 64, 64))
    assert set(runs.values()) == {1}
    assert len(runs) == len(list(network.modules()))
    assert not any(module.inplace for module in network.modules() if isinstance(module, nn.ReLU))


def test_hidden_squares_hide_what_they_say():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(64, 3, 64, 64, generator=generator)
    objects = torch.zeros(64, 1, 64, 64)
    objects[..., 16:48, 16:48] = 1
    shown, visible = hide_squares(images, objects, 1.0, generator)
    kept = (shown == images).all(1, keepdim=True)
    assert torch.allclose((kept * objects).sum((1, 2, 3)) / objects.sum((1, 2, 3)), visible)
    assert 0.4 < (visible == 1).float().mean() < 0.7
    untouched, _ = hide_squares(images, objects, 0.0, generator)
    assert torch.equal(untouched, images)


def test_wanted_probabilities_fade_to_chance():
    wanted = wanted_probabilities(torch.tensor([0, 0, 0]), torch.tensor([1.0, 0.25, 0.0]), 10)
    assert torch.allclose(wanted.sum(1), torch.ones(3))
    assert torch.allclose(wanted[:, 0], torch.tensor([0.91, 0.505, 0.1]))


def test_training_is_repeatable_and_writes_its_header(tmp_path, capsys):
    few = ["--train-scenes", "32", "--test-scenes", "8", "--epochs", "1"]
    for name in ("one", "two"):
        main(["--out", str(tmp_path / f"{name}.safetensors"), *few])
    with (
        safe_open(tmp_path / "one.safetensors", "pt") as one,
        safe_open(tmp_path / "two.safetensors", "pt") as two,
    ):
        assert all(torch.equal(one.get_tensor(key), two.get_tensor(key)) for key in one.keys())  # noqa: SIM118
        facts = json.loads(one.metadata()["captum_blackbox"])
    assert facts["train_scenes"] == 32
    assert 0 <= facts["test_accuracy"] <= 1
    assert '"epochs": 1' in capsys.readouterr().out
