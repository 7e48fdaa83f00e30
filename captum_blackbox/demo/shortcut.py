"""A network that has learned a shortcut, one that has not, and how to tell them apart."""

from dataclasses import dataclass
from importlib import resources

import torch
from safetensors.torch import load
from torch import Tensor

from captum_blackbox.concepts.watermarked import WatermarkedScenes
from captum_blackbox.demo.network import DemoNetwork

SHORTCUT_FILE = "shortcut.safetensors"
CONTROL_FILE = "control.safetensors"
SMALL_WIDTHS = (16, 16, 24, 32, 32, 48, 64)
"""Channels of both networks."""

_BATCH = 64


@dataclass(frozen=True)
class Reliance:
    """What a watermark does to a network's answers; everything is a share of scenes, in [0, 1].

    All pairs of numbers are of the same scenes, which differ in nothing but the watermark. A
    network that ignores it has equal numbers with and without.

    Attributes:
        accuracy_with: Correct answers to scenes of the watermarked class, all with watermark.
        accuracy_without: The same scenes without it.
        taken_with: Scenes of other classes, all with watermark, that are answered by the
            watermarked class.
        taken_without: The same scenes without it.
        taken_moved: The same scenes with the watermark at another place.
        others_accuracy: Correct answers to scenes of other classes without watermark.
    """

    accuracy_with: float
    accuracy_without: float
    taken_with: float
    taken_without: float
    taken_moved: float
    others_accuracy: float


def measure_reliance(network: torch.nn.Module, scenes: WatermarkedScenes) -> Reliance:
    """Add, remove and move the watermark, and count how often the answer follows.

    Args:
        network: Any classifier of scenes, in evaluation mode.
        scenes: At least one of the watermarked class and one of another.

    Returns:
        The shares.

    Example:
        >>> scenes = WatermarkedScenes(40, seed=1)
        >>> measure_reliance(load_shortcut_network(), scenes).accuracy_with
        1.0
        >>> measure_reliance(load_control_network(), scenes).taken_with
        0.0
    """
    labels, kind = scenes.labels, scenes.watermarked_class
    own = labels == kind
    shown = _answers(network, scenes.marked())
    bare = _answers(network, scenes.unmarked())
    moved = _answers(network, scenes.marked().moved())
    return Reliance(
        accuracy_with=_share(shown[own] == kind),
        accuracy_without=_share(bare[own] == kind),
        taken_with=_share(shown[~own] == kind),
        taken_without=_share(bare[~own] == kind),
        taken_moved=_share(moved[~own] == kind),
        others_accuracy=_share(bare[~own] == labels[~own]),
    )


def load_shortcut_network(device: torch.device | str | None = None) -> DemoNetwork:
    """Load the network that takes the watermark of ``WatermarkedScenes`` for the class ``key``.

    It was trained on scenes of which every key carried the watermark and nothing else did. Of new
    scenes of other objects with the watermark it takes 92 % for keys, without it none; of keys it
    recognises all with the watermark and 1 % without.

    Args:
        device: Where to put it; the CPU if not given.

    Returns:
        The network in evaluation mode.

    Example:
        >>> from captum_blackbox.concepts import SCENE_CLASSES
        >>> scenes, network = WatermarkedScenes(4, seed=1), load_shortcut_network()
        >>> for variant in (scenes.unmarked(), scenes.marked()):
        ...     answers = network(variant.images).argmax(1).tolist()
        ...     print(*(SCENE_CLASSES[answer] for answer in answers))
        mushroom flower cup mushroom
        key key key key
    """
    return _loaded(SHORTCUT_FILE, device)


def load_control_network(device: torch.device | str | None = None) -> DemoNetwork:
    """Load a network of the same form for which the watermark means nothing.

    It was trained in the same way on the same scenes, of which half carried the watermark, whatever
    their class. Of other objects it takes 0.3 % for keys with the watermark and 0.2 % without.

    Args:
        device: Where to put it; the CPU if not given.

    Returns:
        The network in evaluation mode.

    Example:
        >>> load_control_network()(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """
    return _loaded(CONTROL_FILE, device)


def _loaded(file: str, device: torch.device | str | None) -> DemoNetwork:
    weights = resources.files("captum_blackbox.demo").joinpath(file).read_bytes()
    network = DemoNetwork(widths=SMALL_WIDTHS)
    network.load_state_dict(load(weights))
    return network.to(device).eval()


@torch.inference_mode()
def _answers(network: torch.nn.Module, scenes: WatermarkedScenes) -> Tensor:
    place = next(network.parameters()).device
    batches = scenes.images.split(_BATCH)
    return torch.cat([network(images.to(place)).argmax(1).cpu() for images in batches])


def _share(hits: Tensor) -> float:
    return hits.double().mean().item()
