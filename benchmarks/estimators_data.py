"""The networks and images that PatternNet and PatternAttribution are judged on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from claims_data import real_data
from torch import Tensor, nn

from captum_blackbox.concepts import Scenes
from captum_blackbox.demo import load_demo_network


@dataclass(frozen=True)
class Subject:
    """A network with four collections of images that share none.

    Attributes:
        name: What both are, for a reader.
        model: The network; its ReLUs are modules of their own that do not work in place.
        fitting: Patterns are fitted to these.
        directions: The best direction v of the quality criterion is found on these.
        judging: The criterion is evaluated on these.
        explained: Maps of these are degraded; a part of ``judging``.
        patch: Edge of the patches that are degraded.
        every: Patches between two points of a curve.
        last: Layer for Grad-CAM.
    """

    name: str
    model: nn.Module
    fitting: Tensor
    directions: Tensor
    judging: Tensor
    explained: Tensor
    patch: int
    every: int
    last: str


def squeezenet(images: int | None) -> Subject:
    """Return SqueezeNet on photographs; no BatchNorm, no additions."""
    data = real_data()
    pixels, _, _ = data.photographs()
    model = _apart(data.squeezenet_imagenet())
    return _photographs(
        "SqueezeNet 1.0 on ImageNet photographs",
        model,
        data.normalise(pixels),
        images,
        "features.12",
    )


def mobilenet(images: int | None) -> Subject:
    """Return MobileNet on photographs; depth-wise, residual, BatchNorm folded."""
    data = real_data()
    pixels, _, _ = data.photographs()
    model = _apart(data.mobilenet_imagenet())
    return _photographs(
        "MobileNet v2 on ImageNet photographs",
        model,
        data.centred(pixels),
        images,
        "features.18",
    )


def cifar(images: int | None) -> Subject:
    """Return the CIFAR ResNet-20; residual with BatchNorm."""
    data = real_data()
    pixels, _, _ = data.cifar10()
    inputs = data.normalise(pixels[_order(len(pixels))])
    return Subject(
        "ResNet-20 on CIFAR-10",
        _apart(data.resnet20_cifar10()),
        inputs[:1500],
        inputs[1500:3000],
        inputs[3000:],
        inputs[3000 : 3000 + (images or 200)],
        patch=4,
        every=2,
        last="layer3",
    )


def demo(images: int | None) -> Subject:
    """Return the built-in network on scenes; BatchNorm."""
    fitting, directions, judging = (Scenes(600, seed=82_001 + i).images for i in range(3))
    return Subject(
        "the built-in network on scenes",
        load_demo_network(),
        fitting,
        directions,
        judging,
        judging[: images or 200],
        patch=8,
        every=2,
        last="features.6",
    )


SUBJECTS: dict[str, Callable[[int | None], Subject]] = {
    "demo": demo,
    "cifar": cifar,
    "squeezenet": squeezenet,
    "mobilenet": mobilenet,
}


def _photographs(
    name: str, model: nn.Module, inputs: Tensor, images: int | None, last: str
) -> Subject:
    inputs = inputs[_order(len(inputs))]
    return Subject(
        name,
        model,
        inputs[:120],
        inputs[120:240],
        inputs[240:],
        inputs[240 : 240 + (images or 60)],
        patch=9,
        every=5,
        last=last,
    )


def _order(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _apart(model: nn.Module) -> nn.Module:
    """Let no ReLU work in place, for Captum's and Zennit's hooks."""
    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.inplace = False
    return model
