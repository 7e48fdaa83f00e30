"""The user's model as a black box, and how to ask it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import typer
from torch import Tensor, nn

from captum_blackbox.black_box import BlackBox
from captum_blackbox.cli import results as files
from captum_blackbox.cli.images import Preparation, choose_preparation, read_class_names
from captum_blackbox.cli.models import (
    WEIGHT_FILES,
    device_named,
    load_weights,
    make_network,
    torchvision_weights,
)
from captum_blackbox.cli.options import ModelOptions, OutputKindName
from captum_blackbox.errors import InputError

_NEED_NUM_CLASSES = (OutputKindName.TOPK, OutputKindName.LABELS)


@dataclass(frozen=True)
class Question:
    """A black box and how to ask it.

    Attributes:
        box: The black box.
        preparation: How an image becomes its input.
        class_names: Of its classes, as far as they are known.
        device: Where networks run.
        checkpoint: Where the training of a student on its answers is kept.
    """

    box: BlackBox
    preparation: Preparation
    class_names: Sequence[str]
    device: torch.device
    checkpoint: Path

    def count_classes(self, images: Tensor) -> int:
        """Ask about one image how many classes there are, and see that their names fit.

        Raises:
            InputError: There are more or fewer names than classes.
        """
        classes = self.box(images[:1]).shape[1]
        if self.class_names and len(self.class_names) != classes:
            raise InputError(
                f"expected {classes} class names, one for each class that the model answers, got "
                f"{len(self.class_names)}; correct the file given to --classes"
            )
        return classes


def open_question(options: ModelOptions, out: Path) -> Question:
    """Return the box, with its answers kept in ``out``.

    Raises:
        BadParameter: The options do not say enough.
        CaptumBlackboxError: Something cannot be read, or ``out`` cannot be written.
    """
    files.check_folder(out)
    device = device_named(options.device)
    weights = options.weights
    if weights is None and options.model.startswith(("torchvision:", "timm:")):
        raise typer.BadParameter(
            f"--model {options.model} without --weights has random weights: there is nothing to "
            "explain"
        )
    if options.num_classes is None and options.output_kind in _NEED_NUM_CLASSES:
        raise typer.BadParameter(
            f"--output-kind {options.output_kind} does not tell how many classes there are: give "
            "--num-classes"
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
    is_module = isinstance(network, nn.Module)
    identity = _identity(options)
    box = BlackBox(
        network.to(device) if isinstance(network, nn.Module) else network,
        output=options.output_kind.value,
        num_classes=options.num_classes,
        cache=out / files.belonging_to(files.ANSWERS_FILE, identity),
        batch_size=_batch_size(preparation.size, device),
        device=None if is_module else "cpu",
    )
    checkpoint = out / files.belonging_to(files.CHECKPOINT_FILE, identity)
    return Question(box, preparation, class_names, device, checkpoint)


def _identity(options: ModelOptions) -> str:
    # Of a function nothing else tells a changed model from the one that gave the kept answers.
    source, _, factory = options.model.rpartition(":")
    if not source.endswith(".py"):
        return ""  # a network of a library: its weights are its identity
    digest = hashlib.sha256(factory.encode())
    for path in (source, options.weights):
        if path is not None:
            with Path(path).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:8]


def _batch_size(size: int, device: torch.device) -> int:
    # A processor's cache holds few large images: a batch of 64 takes much longer per image.
    return 64 if device.type != "cpu" or size <= 128 else 8
