"""What an axiom is checked on: a network, images, and the classes to explain."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_blackbox._compat import class_targets
from captum_blackbox.errors import InputError
from captum_blackbox.shapes import Target, check_images
from captum_blackbox.testing import SmallNetwork, small_network, some_images

FITTING = 128
"""Images for methods that are fitted."""


@dataclass(frozen=True)
class Case:
    """A network and images for it.

    Attributes:
        model: In evaluation mode; a copy, if it is the user's.
        inputs: ``(N, C, H, W)``.
        target: Class to explain of each image, ``(N,)``.
        data: Images like these, for methods that are fitted.
    """

    model: nn.Module
    inputs: Tensor
    target: Tensor
    data: Tensor


def case(
    model: nn.Module | None,
    inputs: Tensor | None,
    target: Target,
    seed: int,
    *,
    units: int = 6,
    count: int = 4,
) -> Case:
    """Return the user's network and images, or a small random network and images for it.

    Args:
        model: The user's; ``None`` for a small network.
        inputs: For that model; ``None`` for random images, which only small networks take.
        target: Class to explain; ``None`` for the prediction of each image.
        seed: Of network and images.
        units: Width of the small network.
        count: How many random images.

    Raises:
        InputError: A model came without images.
    """
    if inputs is None and model is not None and not isinstance(model, SmallNetwork):
        raise InputError("a model of your own needs images of your own; name them in inputs=…")
    model = small_network(seed, units=units) if model is None else copy.deepcopy(model).eval()
    data = some_images(FITTING, seed + 1) if inputs is None else inputs
    inputs = some_images(count, seed) if inputs is None else inputs.detach()
    check_images(inputs)
    with torch.no_grad():
        scores = model(inputs)
    if target is None:
        return Case(model, inputs, scores.argmax(1), data)
    return Case(
        model, inputs, class_targets(target, len(scores), scores.shape[1], scores.device), data
    )
