r"""What an attack wants of an explanation.

All of them look at maps as numbers of one channel that are not negative and add up to 1,

.. math:: I = \textstyle\sum_c |m_c| \big/ \sum_{c,i,j} |m_{cij}|

"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from captum_blackbox.errors import InputError
from captum_blackbox.shapes import PerImage, Saliency

_STILL = 1e-3  # of a pixel: the centre counts as not moved yet


class Task(NamedTuple):
    """What an attack knows about the images it started from.

    Attributes:
        clean: Normalised maps of the clean images ``(N, H, W)``, by the network that is judged.
        softened: The same by the surrogate that gives the direction.
        k: How many pixels are most important.
        top: These pixels of the clean maps, ``(N, H, W)``.
        region: The mask or the map aimed at, ``(N, H, W)``; ``None`` if there is none.
        away: A random unit vector for each image ``(N, 2)``, in which a centre starts to move.
    """

    clean: Saliency
    softened: Saliency
    k: int
    top: Tensor
    region: Tensor | None
    away: Tensor

    def rows(self, chosen: Tensor) -> "Task":
        """Return what is known of some of the images."""
        return Task(
            self.clean[chosen],
            self.softened[chosen],
            self.k,
            self.top[chosen],
            None if self.region is None else self.region[chosen],
            self.away[chosen],
        )


class Objective(ABC):
    """What is maximised, and by which criterion the best iterate is chosen.

    Derive from it for an aim of your own, and give an instance as ``mode``.

    Attributes:
        name: For tables.
        criterion: Name of the criterion that chooses among the iterates, see
            ``captum_blackbox.fragility.criteria``.
        needs_region: Whether a region or a map has to be given.
        needs_softened: Whether the loss looks at the surrogate's clean maps.
    """

    name: str
    criterion: str
    needs_region: bool = False
    needs_softened: bool = False

    @abstractmethod
    def loss(self, maps: Saliency, task: Task) -> PerImage:
        """Return what is to grow, a number for each image, differentiable.

        Args:
            maps: Normalised maps of the attacked images, by the surrogate.
            task: What is known of the clean ones.
        """


class TopK(Objective):
    """Take importance away from the ``k`` pixels that were most important (eq. 3 of the paper)."""

    name = "topk"
    criterion = "intersection"

    def loss(self, maps: Saliency, task: Task) -> PerImage:
        """Return less the importance of the pixels that were on top."""
        return -(maps * task.top).sum((1, 2))


class MassCenter(Objective):
    """Move the centre of mass away from where it was (eq. 4 of the paper).

    The distance has no gradient where it starts, at 0. There the centre is pushed in a random
    direction instead. The published code gets away by rounding the clean centre to whole pixels.
    """

    name = "mass_center"
    criterion = "center_shift"
    needs_softened = True

    def loss(self, maps: Saliency, task: Task) -> PerImage:
        """Return the distance of the centre from the surrogate's clean one, in pixels."""
        moved = centers(maps) - centers(task.softened)
        distance = moved.detach().norm(dim=1, keepdim=True)
        pushed = torch.where(distance > _STILL, moved.detach() / distance, task.away.to(moved))
        # The gradient of the distance is the direction of the move.
        return (moved * pushed).sum(1)


class Targeted(Objective):
    """Bring importance into a region."""

    name = "targeted"
    criterion = "region_mass"
    needs_region = True

    def loss(self, maps: Saliency, task: Task) -> PerImage:
        """Return the importance in the region."""
        return (maps * region_of(task)).sum((1, 2))


class TargetMap(Objective):
    """Make the explanation look like a map.

    References:
        Dombrowski et al., "Explanations can be manipulated and geometry is to blame", NeurIPS 2019.
    """

    name = "target_map"
    criterion = "target_cosine"
    needs_region = True

    def loss(self, maps: Saliency, task: Task) -> PerImage:
        """Return less the squared distance to the map, relative to the map's own square."""
        wanted = region_of(task)
        return -((maps - wanted) ** 2).sum((1, 2)) / (wanted**2).sum((1, 2))


class Random(Objective):
    """Put ``+radius`` or ``-radius`` on every number: the baseline of the paper.

    A draw that changes the label is drawn again, up to 16 times; a draw is never chosen by what it
    does to the explanation.
    """

    name = "random"
    criterion = "intersection"

    def loss(self, maps: Saliency, task: Task) -> PerImage:
        """Refuse: chance has no aim."""
        raise NotImplementedError("a random change has no loss")


class RandomWalk(Random):
    """Take random steps and keep the best iterate: what the published code calls random."""

    name = "random_walk"


OBJECTIVES: dict[str, Objective] = {
    each.name: each for each in (TopK(), MassCenter(), Targeted(), Random(), RandomWalk())
}


def objective_of(mode: str | Objective, region: Tensor | None) -> Objective:
    """Return the objective that a mode names.

    Args:
        mode: A name, or an objective of the user's own.
        region: For ``"targeted"``: a mask (booleans, integers, or zeros and ones), or a map whose
            values say how much of the importance each pixel is to get.

    Raises:
        InputError: Unknown mode, or a region that is missing.
    """
    if isinstance(mode, Objective):
        found = mode
    elif mode in OBJECTIVES:
        found = OBJECTIVES[mode]
    else:
        raise InputError(
            f"mode is one of {', '.join(map(repr, OBJECTIVES))}, or an Objective; got {mode!r}"
        )
    if found.needs_region and region is None:
        raise InputError(f"mode={found.name!r} needs a region: a mask (H, W), or a map to aim at")
    is_map = region is not None and region.is_floating_point() and not _is_mask(region)
    return TargetMap() if found is OBJECTIVES["targeted"] and is_map else found


def normalised(maps: Tensor) -> Saliency:
    """Return maps ``(N, C, H, W)`` of one channel, not negative, with a sum of 1; differentiable.

    A map that is 0 everywhere stays 0.

    Example:
        >>> normalised(torch.tensor([[[[1.0, -1.0]], [[0.0, 2.0]]]]))
        tensor([[[0.2500, 0.7500]]])
    """
    wide = torch.promote_types(maps.dtype, torch.float32)
    mass = maps.to(wide).abs().sum(1)
    total = mass.sum((1, 2), keepdim=True)
    return mass / torch.where(total > 0, total, 1.0)


def centers(maps: Saliency) -> Tensor:
    """Return the centre of mass of normalised maps, ``(N, 2)`` row and column; differentiable."""
    height, width = maps.shape[1:]
    rows = torch.arange(height, dtype=maps.dtype, device=maps.device)
    columns = torch.arange(width, dtype=maps.dtype, device=maps.device)
    return torch.stack([maps.sum(2) @ rows, maps.sum(1) @ columns], 1)


def region_of(task: Task) -> Tensor:
    """Return the region of a task that must have one.

    Raises:
        InputError: It has none.
    """
    if task.region is None:
        raise InputError("this objective needs a region: a mask (H, W), or a map to aim at")
    return task.region


def _is_mask(region: Tensor) -> bool:
    return bool(((region == 0) | (region == 1)).all())
