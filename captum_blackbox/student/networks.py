"""Students that are ready to be trained, by name."""

import difflib
from importlib import import_module
from itertools import pairwise

from torch import Tensor, nn

from captum_blackbox.errors import InputError, ShapeError

_SMALLEST = 4  # pixels along a side of which two poolings leave one
_TORCHVISION = ("mobilenet_v3_small", "resnet18", "squeezenet1_1")
STUDENTS = ("small_cnn", *_TORCHVISION)
"""The names that :func:`student_network` knows."""


def student_network(name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    """Return an untrained student by name, initialised from torch's global random state.

    ``"small_cnn"`` (0.3 M weights) suits images from 8 to some 100 pixels wide. It pools twice: of
    an image of 8 × 8 pixels its last maps have 2 × 2 cells, and below 4 × 4 it raises
    :class:`~captum_blackbox.errors.ShapeError` when it is called. ``"resnet18"`` (11 M),
    ``"squeezenet1_1"`` (0.7 M) and ``"mobilenet_v3_small"`` (1.5 M) are torchvision's, for
    photographs. Any other ``nn.Module`` with logits ``(N, num_classes)`` serves as well.

    Args:
        name: One of ``STUDENTS``.
        num_classes: Number of classes of the black box.
        in_channels: Channels of its images.

    Raises:
        InputError: There is no such student, or a number is not positive.

    Example:
        >>> import torch
        >>> student = student_network("small_cnn", num_classes=5, in_channels=1)
        >>> student(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 5])
    """
    for label, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise InputError(f"{label} must be at least 1, got {value}")
    if name == "small_cnn":
        return SmallCNN(num_classes, in_channels)
    if name not in _TORCHVISION:
        near = difflib.get_close_matches(name, STUDENTS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise InputError(f"a student is one of {', '.join(STUDENTS)}, got {name!r}{hint}")
    models = import_module("torchvision.models")
    network: nn.Module = getattr(models, name)(weights=None, num_classes=num_classes)
    if in_channels != 3:
        _replace_first_convolution(network, in_channels)
    return network


class SmallCNN(nn.Module):
    """Six 3×3 convolutions in three stages, global average pooling, one linear layer.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of the images.
        width: Channels of the first stage; the second has twice, the third four times as many.

    Example:
        >>> sum(weights.numel() for weights in SmallCNN(10).parameters())
        288746
    """

    def __init__(self, num_classes: int, in_channels: int = 3, *, width: int = 32) -> None:
        super().__init__()
        stages = [
            nn.Sequential(_convolution(inner, outer), _convolution(outer, outer))
            for inner, outer in pairwise([in_channels, width, 2 * width, 4 * width])
        ]
        self.stages = nn.Sequential(
            stages[0], nn.MaxPool2d(2), stages[1], nn.MaxPool2d(2), stages[2]
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` of images ``(N, in_channels, H, W)``, H and W ≥ 4.

        Raises:
            ShapeError: An image has fewer pixels than that along a side.
        """
        height, width = images.shape[-2:]
        if min(height, width) < _SMALLEST:
            raise ShapeError(
                f"SmallCNN pools twice, so that images need {_SMALLEST} × {_SMALLEST} pixels or "
                f"more, got {height} × {width}; enlarge them, for a student by student_preprocess"
            )
        logits: Tensor = self.classifier(self.pool(self.stages(images)).flatten(1))
        return logits


def _convolution(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()
    )


def _replace_first_convolution(network: nn.Module, in_channels: int) -> None:
    name, first = next(
        (name, each) for name, each in network.named_modules() if isinstance(each, nn.Conv2d)
    )
    fitting = nn.Conv2d(
        in_channels,
        first.out_channels,
        (first.kernel_size[0], first.kernel_size[1]),
        (first.stride[0], first.stride[1]),
        (int(first.padding[0]), int(first.padding[1])),
        bias=first.bias is not None,
    )
    nn.init.kaiming_normal_(fitting.weight, mode="fan_out", nonlinearity="relu")
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, fitting)
