"""What a user gets wrong, and what the command then says."""

import importlib.util
import re

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from captum_blackbox.cli import app

NETWORK = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))

def ask():
    return lambda images: images.mean((2, 3))

def not_a_number():
    return lambda images: torch.full((len(images), 3), float("nan"))

def failing():
    def fail(images):
        raise TimeoutError("the service is down")
    return fail

def raising():
    raise RuntimeError("no licence")

def nothing():
    return 3
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "photos").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, size=(16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


PREPARED = ["--images", "photos", "--size", "8", "--mean", "0,0,0", "--std", "1,1,1"]
SELF = ["--student", "self", "--methods", "random"]


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


def failure(*arguments):
    result = run("explain", *arguments, "--out", "out")
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0].removeprefix("error: ")


def misuse(*arguments):
    result = run("explain", *arguments, "--out", "out")
    assert result.exit_code == 2
    # The frame around the message depends on the terminal.
    return " ".join(result.stderr.replace("│", " ").split()).replace(": Path", ": path")


@pytest.mark.usefixtures("place")
class TestModel:
    def test_words_that_name_no_model(self):
        assert (
            "--model is torchvision:NAME, timm:NAME or file.py:factory; got 'resnet18'"
            in misuse("--model", "resnet18", *PREPARED)
        )

    def test_random_weights(self):
        assert (
            "--model torchvision:resnet18 without --weights has random weights: there is nothing "
            "to explain"
        ) in misuse("--model", "torchvision:resnet18", *PREPARED)

    def test_a_network_that_torchvision_does_not_have(self, place):
        torch.save({}, place / "w.pt")
        assert failure("--model", "torchvision:resnet19", "--weights", "w.pt", *PREPARED) == (
            "torchvision has no classification network 'resnet19'; did you mean resnet18, "
            "resnet152, resnet101?"
        )

    @pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
    def test_timm_is_an_extra(self, place):
        torch.save({}, place / "w.pt")
        assert failure("--model", "timm:resnet18", "--weights", "w.pt", *PREPARED) == (
            "timm:resnet18 needs the package timm: pip install 'captum-blackbox[timm]'"
        )

    def test_a_file_that_is_not_there(self):
        assert failure("--model", "nett.py:make", *PREPARED) == (
            "there is no file 'nett.py'; --model is torchvision:NAME, timm:NAME or file.py:factory"
        )

    def test_a_factory_that_is_not_there(self):
        assert failure("--model", "net.py:mak", *PREPARED) == (
            "net.py:mak must return a network or a function; there is no such name"
        )

    def test_a_factory_that_returns_something_else(self):
        assert failure("--model", "net.py:nothing", *PREPARED) == (
            "net.py:nothing must return a network or a function; got a int"
        )

    def test_a_factory_that_raises(self):
        assert failure("--model", "net.py:raising", *PREPARED) == (
            "net.py:raising raised RuntimeError: no licence; the factory is called without "
            "arguments"
        )

    def test_a_function_cannot_be_opened(self):
        assert failure("--model", "net.py:ask", *PREPARED, *SELF) == (
            "--student self opens the model, but net.py:ask is a function that can only be "
            "called; choose a student"
        )

    def test_cuda_that_is_not_there(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert failure("--model", "net.py:make", *PREPARED, "--device", "cuda") == (
            "--device cuda was asked for, but torch finds no CUDA; use --device cpu"
        )


@pytest.mark.usefixtures("place")
class TestWeights:
    def weights(self, name, model="net.py:make"):
        return failure("--model", model, "--weights", name, *PREPARED, *SELF)

    def test_no_file(self):
        assert self.weights("w.pt") == "there is no file 'w.pt'; correct --weights"
        assert failure("--model", "net.py:make", *PREPARED, "--student-weights", "s.pt") == (
            "there is no file 's.pt'; correct --student-weights"
        )

    def test_another_network(self, place):
        torch.save({"0.weight": torch.zeros(5), "7.bias": torch.zeros(1)}, place / "w.pt")
        assert self.weights("w.pt") == (
            "the weights in 'w.pt' do not fit Sequential: 5 entries differ, the first is "
            "'0.weight' with (5,) in the file and (2, 3, 3, 3) in the network"
        )

    def test_code_in_a_file_is_not_run(self, place):
        torch.save(torch.nn.Linear(2, 2), place / "w.pt")
        assert self.weights("w.pt") == (
            "'w.pt' holds more than weights, and code in it is not run; save "
            "network.state_dict() instead"
        )

    def test_a_file_of_something_else(self, place):
        (place / "w.safetensors").write_text("nonsense")
        assert self.weights("w.safetensors").startswith(
            "'w.safetensors' cannot be read as weights: "
        )

    def test_torchvision_s_names_belong_to_torchvision(self):
        assert self.weights("IMAGENET1K_V1") == (
            "weights are a .safetensors, .pt or .pth file, or, with torchvision:NAME, the name of "
            "torchvision weights; got 'IMAGENET1K_V1' for 'net.py:make'"
        )

    def test_a_name_that_torchvision_does_not_have(self):
        assert self.weights("V9", "torchvision:squeezenet1_0") == (
            "torchvision has the weights DEFAULT, IMAGENET1K_V1 for squeezenet1_0, not V9"
        )

    def test_nothing_is_downloaded(self, place, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(place / "hub"))
        said = self.weights("IMAGENET1K_V1", "torchvision:squeezenet1_0")
        assert said.startswith(
            "the weights SqueezeNet1_0_Weights.IMAGENET1K_V1 are not on this machine ("
        )
        assert "and nothing is downloaded here; fetch https://" in said
        assert not (place / "hub").exists()


@pytest.mark.usefixtures("place")
class TestImages:
    def test_how_images_are_prepared_must_be_said(self):
        assert (
            "how the model wants its images is not known: give --preset imagenet or --preset half, "
            "or --size, --mean and --std"
        ) in misuse("--model", "net.py:make", "--images", "photos", "--size", "8")

    def test_numbers_that_are_none(self):
        images = ["--images", "photos", "--size", "8"]
        assert "--mean is numbers with commas, got 'a'" in misuse(
            "--model", "net.py:make", *images, "--mean", "a", "--std", "1"
        )
        assert "--std must be above 0, got '0'" in misuse(
            "--model", "net.py:make", *images, "--mean", "0", "--std", "0"
        )
        assert "--mean and --std need one number each, or three, got 3 and 1" in misuse(
            "--model", "net.py:make", *images, "--mean", "0,0,0", "--std", "1"
        )

    def test_a_folder_that_is_not_there(self):
        assert "'--images': path 'photoss' does not exist." in misuse(
            "--model", "net.py:make", "--images", "photoss", "--preset", "half"
        )

    def test_a_folder_without_images(self, place):
        (place / "texts").mkdir()
        (place / "texts" / "a.txt").write_text("a")
        assert failure("--model", "net.py:make", *PREPARED[2:], "--images", "texts") == (
            "there is no image in 'texts' (1 file skipped; texts/a.txt: not an image)"
        )

    def test_grey_images_for_a_model_of_colours(self):
        said = failure(
            "--model",
            "net.py:make",
            "--images",
            "photos",
            "--size",
            "8",
            "--mean",
            "0",
            "--std",
            "1",
        )
        assert said.startswith("the black box raised RuntimeError on images 0 to 0 of 1: ")

    def test_a_transfer_folder_that_is_not_there(self):
        assert "'--transfer': path 'more' does not exist." in misuse(
            "--model", "net.py:make", *PREPARED, "--transfer", "more"
        )


@pytest.mark.usefixtures("place")
class TestAnswers:
    def test_logits_declared_as_probabilities(self):
        said = failure("--model", "net.py:make", *PREPARED, *SELF, "--output-kind", "probs")
        assert said.startswith("output='probs' was declared, but ")

    def test_nan(self):
        assert failure("--model", "net.py:not_a_number", *PREPARED) == (
            "the black box answered NaN for image 0 of the batch"
        )

    def test_a_box_that_raises(self):
        said = failure("--model", "net.py:failing", *PREPARED)
        assert said.startswith(
            "the black box raised TimeoutError on images 0 to 0 of 1: the service is down; answers "
            "so far are kept in "
        )

    def test_another_number_of_classes(self):
        said = failure("--model", "net.py:make", *PREPARED, *SELF, "--num-classes", "7")
        assert said == "expected 7 classes; the black box answered 3"

    def test_labels_without_a_number_of_classes(self):
        for kind in ("labels", "topk"):
            assert (
                f"--output-kind {kind} does not tell how many classes there are: give --num-classes"
            ) in misuse("--model", "net.py:make", *PREPARED, "--output-kind", kind)

    @pytest.mark.parametrize("student", [SELF, []], ids=["self", "student"])
    def test_another_number_of_names(self, place, student):
        (place / "names.txt").write_text("cat\ndog\n")
        said = failure("--model", "net.py:make", *PREPARED, *student, "--classes", "names.txt")
        assert said == (
            "expected 3 class names, one for each class that the model answers, got 2; correct the "
            "file given to --classes"
        )

    def test_the_answers_of_another_model(self, place):
        torch.manual_seed(0)
        assert (
            run("explain", "--model", "net.py:make", *PREPARED, *SELF, "--out", "out").exit_code
            == 0
        )
        said = failure("--model", "net.py:make", *PREPARED, *SELF)  # other random weights
        assert re.match(r"'out/answers-\w{8}\.sqlite' does not belong here: model is ", said)


@pytest.mark.usefixtures("place")
class TestExplanation:
    def test_a_layer_that_is_not_there(self):
        said = failure("--model", "net.py:make", *PREPARED, *SELF, "--layers", "1,00")
        assert "'00'" in said

    def test_methods_that_are_not_there(self):
        known = "--methods are some of layer-sum, grad-cam, rise, random, each once; got "
        assert known + "'lime'" in misuse("--model", "net.py:make", *PREPARED, "--methods", "lime")
        assert known + "'rise,rise'" in misuse(
            "--model", "net.py:make", *PREPARED, "--methods", "rise,rise"
        )

    def test_a_student_that_is_not_there(self):
        said = failure("--model", "net.py:make", *PREPARED, "--student", "resnet19")
        assert said.endswith("got 'resnet19' (did you mean 'resnet18'?)")

    def test_class_names_that_are_none(self, place):
        (place / "names.json").write_text('{"a": 1}')
        assert failure("--model", "net.py:make", *PREPARED, "--classes", "names.json") == (
            "'names.json' must hold class names: one a line, or a JSON list of strings"
        )

    def test_a_folder_that_cannot_be_written_is_refused_before_any_work(self, place):
        (place / "file").write_text("")
        for command in (
            ["demo"],
            ["explain", "--model", "missing.py:make", *PREPARED],
            ["distill", "--model", "missing.py:make", *PREPARED],
        ):
            result = run(*command, "--out", "file/out")
            assert result.exit_code == 1
            assert result.stderr == (
                "error: cannot write in 'file/out': Not a directory; give --out a folder that can "
                "be written\n"
            )
