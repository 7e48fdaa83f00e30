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
from captum_blackbox.cli.images import Preparation
from captum_blackbox.cli.opened_model import OpenedModel, open_model
from captum_blackbox.cli.options import ModelOptions, OutputKindName

_NEED_NUM_CLASSES = (OutputKindName.TOPK, OutputKindName.LABELS)


@dataclass(frozen=True)
class Question:
    """A black box and how to ask it.

    Attributes:
        box: The black box.
        opened: The model in it, and how it takes images.
        checkpoint: Where the training of a student on its answers is kept.
    """

    box: BlackBox
    opened: OpenedModel
    checkpoint: Path

    @property
    def preparation(self) -> Preparation:
        """How an image becomes the box's input."""
        return self.opened.preparation

    @property
    def class_names(self) -> Sequence[str]:
        """Of its classes, as far as they are known."""
        return self.opened.class_names

    @property
    def device(self) -> torch.device:
        """Where networks run."""
        return self.opened.device

    def count_classes(self, images: Tensor) -> int:
        """Ask about one image how many classes there are, and see that their names fit.

        Raises:
            InputError: There are more or fewer names than classes.
        """
        classes = self.box(images[:1]).shape[1]
        self.opened.check_classes(classes)
        return classes


def open_question(options: ModelOptions, out: Path) -> Question:
    """Return the box, with its answers kept in ``out``.

    Raises:
        BadParameter: The options do not say enough.
        CaptumBlackboxError: Something cannot be read, or ``out`` cannot be written.
    """
    files.check_folder(out)
    if options.num_classes is None and options.output_kind in _NEED_NUM_CLASSES:
        raise typer.BadParameter(
            f"--output-kind {options.output_kind} does not tell how many classes there are: give "
            "--num-classes"
        )
    return question_of(open_model(options), options, out)


def question_of(opened: OpenedModel, options: ModelOptions, out: Path) -> Question:
    """Return a model that is open already as a box, with its answers kept in ``out``."""
    identity = identity_of(options)[:8]
    box = BlackBox(
        opened.function,
        output=options.output_kind.value,
        num_classes=options.num_classes,
        cache=out / files.belonging_to(files.ANSWERS_FILE, identity),
        batch_size=opened.batch_size,
        device=None if isinstance(opened.function, nn.Module) else "cpu",
    )
    checkpoint = out / files.belonging_to(files.CHECKPOINT_FILE, identity)
    return Question(box, opened, checkpoint)


def identity_of(options: ModelOptions) -> str:
    """Return what tells the user's file from another one; empty for networks of a library.

    The weights of these are known without it; of a function nothing else tells a changed one from
    the one that gave the answers that were kept.
    """
    source, _, factory = options.model.rpartition(":")
    if not source.endswith(".py"):
        return ""
    digest = hashlib.sha256(factory.encode())
    for path in (source, options.weights):
        if path is not None:
            with Path(path).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
