"""The model that the command line names, and how it takes images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor, nn

from captum_blackbox.cli.images import Preparation, choose_preparation, read_class_names
from captum_blackbox.cli.models import (
    WEIGHT_FILES,
    device_named,
    load_weights,
    make_network,
    torchvision_weights,
)
from captum_blackbox.cli.options import DEMO, ModelOptions
from captum_blackbox.concepts import SCENE_CLASSES
from captum_blackbox.demo import load_demo_network
from captum_blackbox.errors import InputError
from captum_blackbox.hooks import evaluating

_DEMO_SIZE = 64  # of the scenes


@dataclass(frozen=True)
class OpenedModel:
    """A model and how it takes images.

    Attributes:
        spec: How the command line names it.
        function: The model; a network is on ``device``.
        preparation: How an image becomes its input.
        class_names: Of its classes, as far as they are known.
        device: Where networks run.
    """

    spec: str
    function: Callable[..., Any]
    preparation: Preparation
    class_names: Sequence[str]
    device: torch.device

    @property
    def batch_size(self) -> int:
        """How many images it takes at a time."""
        # A processor's cache holds few large images: a batch of 64 takes much longer per image.
        return 64 if self.device.type != "cpu" or self.preparation.size <= 128 else 8

    @property
    def short_name(self) -> str:
        """For a title: the model without its folder or library."""
        if self.spec == DEMO:
            return "the built-in network"
        source, _, name = self.spec.rpartition(":")
        return f"{Path(source).name}:{name}" if source.endswith(".py") else name

    def network(
        self, image: Tensor, *, what: str = "patterns", gives_scores: bool = True
    ) -> nn.Module:
        """Return the model where it is a network that takes such an image.

        Args:
            image: ``(1, C, H, W)``.
            what: What belongs to its layers, for the message.
            gives_scores: Whether it has to return the scores of classes.

        Raises:
            InputError: It is a function, it raises, or it has another number of classes than there
                are names.
        """
        network = self.function
        if not isinstance(network, nn.Module):
            raise InputError(
                f"{what} belong to the layers of a network, but {self.spec} is a "
                f"{type(network).__name__} that can only be called; give a network, or see "
                "captum-blackbox explain"
            )
        if next(network.parameters(), None) is None:
            raise InputError(
                f"{what} belong to layers with weights, and {self.spec} has no weights"
            )
        try:
            with torch.no_grad(), evaluating(network):
                scores = network(image.to(self.device))
        except Exception as error:
            raise InputError(
                f"{self.spec} raised {type(error).__name__} on an image of shape "
                f"{tuple(image.shape)}: {error}; correct --size, --mean and --std, or the network"
            ) from error
        if gives_scores:
            self._check_scores(scores)
        return network

    def _check_scores(self, scores: object) -> None:
        shape = tuple(getattr(scores, "shape", ()))
        if len(shape) != 2:
            raise InputError(
                f"{self.spec} must return scores (images, classes), got "
                f"{shape or type(scores).__name__}"
            )
        self.check_classes(shape[1])

    def check_classes(self, classes: int) -> None:
        """See that there is a name for each class, where there are names.

        Raises:
            InputError: There are more or fewer.
        """
        if self.class_names and len(self.class_names) != classes:
            raise InputError(
                f"expected {classes} class names, one for each class that the model answers, got "
                f"{len(self.class_names)}; correct the file given to --classes"
            )


def open_model(options: ModelOptions) -> OpenedModel:
    """Return the model with its weights.

    Raises:
        BadParameter: The options do not say enough.
        CaptumBlackboxError: Something cannot be read.
    """
    device = device_named(options.device)
    if options.model == DEMO:
        return _built_in(options, device)
    weights = options.weights
    if weights is None and options.model.startswith(("torchvision:", "timm:")):
        raise typer.BadParameter(
            f"--model {options.model} without --weights has random weights: there is nothing to "
            "explain"
        )
    named = weights is not None and Path(weights).suffix not in WEIGHT_FILES
    entry = torchvision_weights(options.model, weights) if weights and named else None
    preparation = choose_preparation(
        options.size,
        options.mean,
        options.std,
        options.preset,
        None if entry is None else entry.transforms(),
    )
    class_names: Sequence[str] = () if entry is None else entry.meta["categories"]
    if options.classes is not None:
        class_names = read_class_names(options.classes)
    network = make_network(options.model, num_classes=options.num_classes)
    if weights is not None:
        load_weights(network, weights, spec=options.model)
    function = network.to(device) if isinstance(network, nn.Module) else network
    return OpenedModel(options.model, function, preparation, class_names, device)


def _built_in(options: ModelOptions, device: torch.device) -> OpenedModel:
    if options.weights is not None or options.num_classes not in {None, len(SCENE_CLASSES)}:
        raise typer.BadParameter(
            f"--model {DEMO} has its own weights and {len(SCENE_CLASSES)} classes; leave out "
            "--weights and --num-classes"
        )
    preparation = choose_preparation(
        options.size or _DEMO_SIZE, options.mean or "0,0,0", options.std or "1,1,1", options.preset
    )
    names: Sequence[str] = SCENE_CLASSES
    if options.classes is not None:
        names = read_class_names(options.classes)
    return OpenedModel(DEMO, load_demo_network(device), preparation, names, device)
