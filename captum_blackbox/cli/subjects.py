"""What is explained: the images that a command names, or scenes for the built-in network."""

from collections.abc import Sequence
from pathlib import Path

import torch
import typer

from captum_blackbox.cli.images import Preparation, load_images
from captum_blackbox.cli.messages import say
from captum_blackbox.cli.opened_model import OpenedModel
from captum_blackbox.cli.options import DEMO
from captum_blackbox.cli.run import Subject
from captum_blackbox.concepts import SCENE_CLASSES, Scenes

EXPLAINED_SEED = 71_001
FITTED_SEED = EXPLAINED_SEED + 3
"""Of the scenes that are explained, and fitted to; the built-in network was not trained on them."""


def subject_of(
    opened: OpenedModel, images: Sequence[Path] | None, limit: int
) -> tuple[Subject, dict[str, str], int]:
    """Return what to explain, what was skipped, and how many images are left."""
    if not images:
        need_demo(opened.spec, "--images")
        say("rendering scenes")
        return scene_subject(limit, opened.preparation), {}, 0
    loaded = load_images(images, opened.preparation, limit=limit)
    loaded.report_skipped()
    if loaded.left:
        say(f"explaining the first {len(loaded.names)} images, {loaded.left} are left (--limit)")
    pictures = opened.preparation.pictures(loaded.inputs)
    subject = Subject(loaded.inputs, pictures, loaded.names, opened.class_names)
    return subject, loaded.skipped, loaded.left


def scene_subject(count: int, preparation: Preparation | None = None) -> Subject:
    """Return scenes to explain, one of each class first, as far as ``count`` goes.

    Args:
        count: How many.
        preparation: How a scene becomes the network's input; as it is if not given.
    """
    size = 64 if preparation is None else preparation.size
    scenes = Scenes(4 * max(count, len(SCENE_CLASSES)), seed=EXPLAINED_SEED, size=size)
    labels = scenes.labels
    first = [int((labels == label).nonzero()[0]) for label in range(len(SCENE_CLASSES))]
    others = [i for i in range(len(scenes)) if i not in first]
    order = torch.tensor((first + others)[:count])
    images = scenes.images[order]
    return Subject(
        inputs=images if preparation is None else preparation.normalised(images),
        pictures=images,
        names=[f"scene {i}" for i in order.tolist()],
        class_names=SCENE_CLASSES,
        truth=labels[order],
        objects=(scenes.masks("object")[order] > 0).float(),
    )


def need_demo(spec: str, option: str) -> None:
    """Refuse a command without images, but for the built-in network.

    Raises:
        BadParameter: It is another.
    """
    if spec != DEMO:
        raise typer.BadParameter(f"give {option}; only --model {DEMO} can do without images")
