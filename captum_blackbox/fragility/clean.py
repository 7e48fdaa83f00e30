"""What is known of clean images before they are attacked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_blackbox._compat import class_targets
from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.fragility.chance import unit_vectors
from captum_blackbox.fragility.objectives import Objective, Task, normalised
from captum_blackbox.fragility.prediction import labels_of, number_of_classes
from captum_blackbox.fragility.surrogate import Sharpness, softened
from captum_blackbox.fragility.victims import Victim
from captum_blackbox.metrics import pixel_ranks
from captum_blackbox.shapes import Images, Labels, Target, check_maps

_SHARE = 0.02  # of the pixels: 1000 of 227 x 227, as published


class Clean(NamedTuple):
    """Clean images, their explanations and what the network says of them.

    Attributes:
        images: ``(N, C, H, W)``.
        maps: Explanations by the network that is judged.
        scores: That decide the label.
        target: The class explained, ``(N,)``.
        label: The label that is kept, ``(N,)``.
        extra: Passed to the network after the images.
    """

    images: Images
    maps: Tensor
    scores: Tensor
    target: Labels
    label: Labels
    extra: tuple[Any, ...]

    def rows(self, chosen: Tensor) -> "Clean":
        """Return some of the images; arguments that are not one for each stay whole."""
        extra = tuple(
            each[chosen]
            if isinstance(each, Tensor) and each.dim() and len(each) == len(self.images)
            else each
            for each in self.extra
        )
        return Clean(
            self.images[chosen],
            self.maps[chosen],
            self.scores[chosen],
            self.target[chosen],
            self.label[chosen],
            extra,
        )

    @property
    def has_label(self) -> Tensor:
        """Whether the prediction is the label, ``(N,)``."""
        return labels_of(self.scores) == self.label


def judged(
    victim: Victim,
    images: Images,
    target: Labels,
    extra: tuple[Any, ...],
    defence_beta: Sharpness | None = None,
    known: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return maps by the network as it is judged, and the scores that decide the label.

    Args:
        victim: The explanation.
        images: ``(N, C, H, W)``.
        target: The class explained.
        extra: Passed to the network after the images.
        defence_beta: Soften the network for the maps.
        known: The scores, where somebody has asked for them already.
    """
    with softened(victim.network, defence_beta):
        maps, scores = victim.explain(images, target, extra)
    if known is not None:
        scores = known
    elif scores is None or defence_beta is not None:
        scores = victim.scores(images, extra)
    return maps.detach(), scores.detach().to(images.device)


def explain_clean(
    victim: Victim,
    images: Images,
    target: Target,
    label: Target,
    extra: tuple[Any, ...],
    defence_beta: Sharpness | None,
) -> Clean:
    """Ask the network for labels and explanations of the clean images.

    Raises:
        TargetError: ``target`` or ``label`` do not name a class.
        InputError: An explanation is not finite.

    Warns:
        ExplanationWarning: An explanation is 0 everywhere.
    """
    scores = victim.scores(images, extra).to(images.device)
    broken = (~scores.reshape(len(scores), -1).isfinite().all(1)).nonzero().flatten().tolist()
    if broken:
        raise InputError(
            f"the scores of image {broken[0]} are not finite; look for NaN in the image and the "
            "weights, or attack it in float32"
        )
    predicted, classes = labels_of(scores), number_of_classes(scores)
    count, device = len(images), images.device
    labels = max(classes, 2)  # one score has two labels
    kept = predicted if label is None else class_targets(label, count, labels, device)
    if target is not None:
        explained = class_targets(target, count, classes, device)
    else:
        explained = predicted if classes > 1 else torch.zeros_like(predicted)
    maps, _ = judged(victim, images, explained, extra, defence_beta, known=scores)
    if maps.dim() != 4 or len(maps) != count:
        raise ShapeError(
            f"expected maps (N, C, H, W) of {count} images, and {victim.name} made "
            f"{tuple(maps.shape)}"
        )
    check_maps(maps, "nothing explains the target, and there is nothing to move")
    return Clean(images, maps, scores, explained, kept, extra)


def task_of(
    victim: Victim,
    clean: Clean,
    objective: Objective,
    *,
    beta: Sharpness | None,
    k: int | None,
    region: Tensor | None,
    own: Sequence[torch.Generator],
) -> Task:
    """Return what an objective needs to know.

    Raises:
        InputError: ``k`` is not between 1 and the pixels of a map, or the region is empty.
        ShapeError: The region does not fit the maps.
    """
    maps = normalised(clean.maps)
    k = most_important(maps, k)
    soft = maps
    if objective.needs_softened:
        with softened(victim.network, beta):
            soft = normalised(victim.explain(clean.images, clean.target, clean.extra).maps)
    away = unit_vectors(own).to(maps)
    return Task(maps, soft.detach(), k, pixel_ranks(maps) < k, _region_like(maps, region), away)


def most_important(maps: Tensor, k: int | None) -> int:
    """Return how many pixels of a map ``(N, …, H, W)`` are most important; a 50th by default.

    Raises:
        InputError: ``k`` is not between 1 and the pixels of a map.
    """
    pixels = maps.shape[-2] * maps.shape[-1]
    k = max(1, round(_SHARE * pixels)) if k is None else k
    if not 1 <= k <= pixels:
        raise InputError(
            f"k is between 1 and the {pixels} pixels of a map {tuple(maps.shape[-2:])}, got {k}"
        )
    return k


def _region_like(maps: Tensor, region: Tensor | None) -> Tensor | None:
    """Return a mask, or a map with a sum of 1, for each image."""
    if region is None:
        return None
    if region.shape not in {maps.shape, maps.shape[1:]}:
        raise ShapeError(
            f"expected a region {tuple(maps.shape[1:])}, or one for each map "
            f"{tuple(maps.shape)}, got shape {tuple(region.shape)}"
        )
    is_mask = not region.is_floating_point()
    wanted = (region != 0 if is_mask else region).to(maps).expand_as(maps)
    sums = wanted.sum((1, 2))
    if not bool((sums > 0).all()) or not bool((wanted >= 0).all()):
        raise InputError("a region has some pixels that are not 0, and none that is negative")
    if bool(((wanted == 0) | (wanted == 1)).all()):
        return wanted
    return wanted / sums.view(-1, 1, 1)
