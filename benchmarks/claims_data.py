"""The black boxes, images and students that the claims are measured on."""

import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from captum_blackbox import BlackBox
from captum_blackbox.concepts import SCENE_CLASSES, Scenes
from captum_blackbox.demo import load_demo_network
from captum_blackbox.student import TransferSet, distill
from captum_blackbox.student.networks import SmallCNN

CALIBRATION = 8
JUDGING = 300
SHARED = Path(__file__).parents[2] / "shared" / "data"
WORK = Path(__file__).parent / ".work"


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        images: How many images are explained.
        questions: How many a student is taught with.
        epochs: How often it sees them.
        seed: Of the choice of images, the students and the random methods.
        device: Where networks run.
    """

    images: int
    questions: int
    epochs: int
    seed: int
    device: str


@dataclass(frozen=True)
class Study:
    """A black box, the images to explain and who explains them.

    Attributes:
        box: The black box.
        images: Explained, ``(N, C, H, W)``; no student was taught with them.
        calibration: Others, for weights that are learned.
        students: Name → network; the box's own network is named ``itself``.
        reports: Student → how its distillation went.
        facts: What else a reader has to know.
    """

    box: BlackBox
    images: Tensor
    calibration: Tensor
    students: Mapping[str, nn.Module]
    reports: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def real_data() -> ModuleType:
    """Return the module that loads real networks and images, in the folder the user names."""
    folder = Path(os.environ.get("CAPTUM_BLACKBOX_DATA", SHARED))
    if not (folder / "networks.py").is_file():
        raise SystemExit("CAPTUM_BLACKBOX_DATA must name the folder with the real networks")
    spec = importlib.util.spec_from_file_location("real_networks", folder / "networks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def demo(plan: Plan) -> Study:
    """Return the built-in network on scenes that it was not trained on."""
    network = load_demo_network(plan.device)
    # Collections of scenes: no two seeds share one.
    explained, calibration, asked, judging = (81_001 + 10 * plan.seed + i for i in range(4))
    student, report = taught(
        "demo",
        BlackBox(network, output="logits", cache=":memory:"),
        Scenes(min(2000, plan.questions), seed=asked).images,
        Scenes(JUDGING, seed=judging).images,
        len(SCENE_CLASSES),
        plan,
        width=12,
    )
    return Study(
        BlackBox(network, output="logits"),
        Scenes(plan.images, seed=explained).images.to(plan.device),
        Scenes(CALIBRATION, seed=calibration).images.to(plan.device),
        {"small_cnn": student, "itself": network},
        {"small_cnn": report},
        {"box": "the built-in network", "images": "scenes of 64×64 pixels, values from 0 to 1"},
    )


def cifar(plan: Plan) -> Study:
    """Return the CIFAR-10 ResNet-20; a student learns from images that are not explained."""
    data = real_data()
    network = data.resnet20_cifar10().to(plan.device)
    pixels, _, classes = data.cifar10()
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(plan.seed))
    images = data.normalise(pixels[order])
    sizes = [plan.images, CALIBRATION, JUDGING, len(images) - plan.images - CALIBRATION - JUDGING]
    explained, calibration, judging, asked = images.split(sizes)
    student, report = taught(
        "cifar",
        BlackBox(network, output="logits", cache=":memory:"),
        asked[: plan.questions],
        judging,
        len(classes),
        plan,
        width=16,
    )
    return Study(
        BlackBox(network, output="logits"),
        explained.to(plan.device),
        calibration.to(plan.device),
        {"small_cnn": student, "itself": network},
        {"small_cnn": report},
        {"box": "CIFAR-10 ResNet-20", "images": "CIFAR-10 test images, 32×32, normalised"},
    )


def imagenet(plan: Plan) -> Study:
    """Return the ImageNet SqueezeNet, explained by its own weights, on photographs."""
    data = real_data()
    network = data.squeezenet_imagenet().to(plan.device)
    pixels, _, _ = data.photographs()
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(plan.seed))
    images = data.normalise(pixels[order[: plan.images + CALIBRATION]]).to(plan.device)
    # A processor is faster on few large images at a time.
    at_once = 8 if plan.device == "cpu" else 64
    return Study(
        BlackBox(network, output="logits", batch_size=at_once),
        images[: plan.images],
        images[plan.images :],
        {"itself": network},
        facts={"box": "ImageNet SqueezeNet 1.0", "images": "photographs, 224×224, normalised"},
    )


STUDIES: Mapping[str, Callable[[Plan], Study]] = {
    "demo": demo,
    "cifar": cifar,
    "imagenet": imagenet,
}


def taught(
    name: str,
    box: BlackBox,
    asked: Tensor,
    judging: Tensor,
    classes: int,
    plan: Plan,
    width: int,
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a student taught by the answers of ``box`` alone, and how that went.

    A run that stopped goes on; one that ended is read from its checkpoint.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        student = SmallCNN(classes, width=width).to(plan.device)
    checkpoint = WORK / f"{name}-{plan.questions}-{plan.epochs}-{plan.seed}.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report says how far the student agrees
        report = distill(
            box,
            student,
            TransferSet(asked, plan.questions, seed=plan.seed),
            epochs=plan.epochs,
            batch_size=32,
            optimizer=lambda weights: torch.optim.Adam(weights, lr=3e-3),
            validation=judging,
            checkpoint=checkpoint,
            seed=plan.seed,
            device=plan.device,
        )
    return student, report.to_dict()
