"""By which number the best iterate of an attack is chosen, and when an attack has succeeded."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from captum_blackbox.errors import InputError
from captum_blackbox.fragility.objectives import Task, region_of
from captum_blackbox.fragility.result import Measures
from captum_blackbox.metrics import (
    center_shift,
    cosine_similarity,
    pixel_ranks,
    rank_correlation,
    region_mass,
)
from captum_blackbox.shapes import PerImage, Saliency

Criterion: TypeAlias = Callable[[Saliency, Task], PerImage]
"""Normalised maps of attacked images ``(N, H, W)``, by the network that is judged, and what is
known of the clean ones → a number for each image; larger is a better attack."""

SuccessTest: TypeAlias = Callable[[Measures, Measures], Tensor]
"""Measures of the clean and of the attacked images → whether each attack succeeded, ``(N,)``."""


def _intersection(maps: Saliency, task: Task) -> PerImage:
    common = (pixel_ranks(maps) < task.k) & task.top
    return -common.flatten(1).sum(1).double() / task.k


def _target_cosine(maps: Saliency, task: Task) -> PerImage:
    return cosine_similarity(maps, region_of(task).to(maps))


CRITERIA: dict[str, Criterion] = {
    "intersection": _intersection,
    "correlation": lambda maps, task: -rank_correlation(task.clean, maps),
    "center_shift": lambda maps, task: center_shift(task.clean, maps),
    "region_mass": lambda maps, task: region_mass(maps, region_of(task)),
    "target_cosine": _target_cosine,
}


def criterion_of(name: str | Criterion) -> Criterion:
    """Return the criterion that a name stands for; larger is a better attack.

    ``"intersection"`` and ``"correlation"`` are turned around, so that fewer common pixels and a
    lower rank correlation are better.

    Raises:
        InputError: There is none of this name.
    """
    if callable(name):
        return name
    if name not in CRITERIA:
        raise InputError(
            f"criterion is one of {', '.join(map(repr, CRITERIA))}, or a function; got {name!r}"
        )
    return CRITERIA[name]


def topk_below(share: float) -> SuccessTest:
    """Return a test that is passed where fewer than a share of the top pixels are left.

    Example:
        >>> from captum_blackbox.fragility import Measures
        >>> test = topk_below(0.5)
    """
    return lambda _, attacked: attacked.intersection < share


def correlation_below(value: float) -> SuccessTest:
    """Return a test that is passed where the rank correlation has fallen below a value."""
    return lambda _, attacked: attacked.rank_correlation < value


def center_moved(pixels: float) -> SuccessTest:
    """Return a test that is passed where the centre of mass has moved by more than some pixels."""
    return lambda _, attacked: attacked.center_shift > pixels
