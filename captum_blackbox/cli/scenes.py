"""Scenes in place of images, for the built-in network."""

import torch

from captum_blackbox.cli.images import Preparation
from captum_blackbox.cli.run import Subject
from captum_blackbox.concepts import SCENE_CLASSES, Scenes

EXPLAINED_SCENES = 71_001
"""The collection that is explained; the built-in network was not trained on it."""


def scene_subject(count: int, preparation: Preparation | None = None) -> Subject:
    """Return scenes to explain, one of each class first, as far as ``count`` goes.

    Args:
        count: How many.
        preparation: How a scene becomes the network's input; as it is if not given.
    """
    size = 64 if preparation is None else preparation.size
    scenes = Scenes(4 * max(count, len(SCENE_CLASSES)), seed=EXPLAINED_SCENES, size=size)
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
