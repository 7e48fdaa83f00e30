"""Which layers carry the explanation, and weights that follow from it."""

from collections import OrderedDict
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import InputError, check_choice
from captum_blackbox.metrics import deletion, insertion
from captum_blackbox.student.layer_maps import LayerMaps

ImportanceKind: TypeAlias = Literal["energy", "deletion", "leave_one_out"]


def layer_importance(
    box: BlackBox,
    images: Tensor,
    layer_maps: LayerMaps,
    target: Tensor,
    kind: ImportanceKind,
    step: int | None = None,
    show_progress: bool = False,
) -> "OrderedDict[str, Tensor]":
    """Return layer name → importance per image ``(N,)``.

    Args:
        box: Plays the deletion game, for the kinds that need it.
        images: ``(N, C, H, W)``.
        layer_maps: Layer name → enlarged map ``(N, 1, H, W)``; their sum is the explanation.
        target: The class explained, ``(N,)``.
        kind: ``"energy"``: the layer's share of the sum, in ``[0, 1]``, higher is more important,
            no queries. ``"deletion"``: deletion AUC of the layer's map alone, *lower* is more
            important. ``"leave_one_out"``: by how much the deletion AUC of the sum rises without
            the layer, higher is more important, negative where the layer does harm.
        step: Pixels per step of the game.
        show_progress: Show a bar that counts layers.

    Raises:
        InputError: ``kind`` is unknown.
    """
    check_choice("kind", kind, get_args(ImportanceKind))
    if kind == "energy":
        # In float32: half precision cannot hold a sum over so many pixels.
        energy = {name: each.float().sum((1, 2, 3)) for name, each in layer_maps.items()}
        total = torch.stack(list(energy.values())).sum(0)
        shared = total.where(total > 0, torch.ones_like(total))
        return OrderedDict((name, each / shared) for name, each in energy.items())
    layers = tqdm(layer_maps, desc=kind, unit="layer", disable=not show_progress)
    if kind == "deletion":
        return OrderedDict(
            (name, deletion(box, images, layer_maps[name], target, step=step).auc)
            for name in layers
        )
    base = deletion(box, images, _sum_without(layer_maps, None), target, step=step).auc
    return OrderedDict(
        (name, deletion(box, images, _sum_without(layer_maps, name), target, step=step).auc - base)
        for name in layers
    )


def learned_weights(
    box: BlackBox,
    images: Tensor,
    layer_maps: LayerMaps,
    target: Tensor,
    step: int | None = None,
    show_progress: bool = False,
) -> dict[str, float]:
    """Return layer name → λ, the mean of insertion less deletion AUC of the layer's map alone.

    A layer that does not do better than nothing gets 0; the weights sum to 1.

    Raises:
        InputError: No layer does better than nothing.
    """
    gaps = {}
    for name in tqdm(layer_maps, desc="layer weights", unit="layer", disable=not show_progress):
        inserted = insertion(box, images, layer_maps[name], target, step=step).auc
        deleted = deletion(box, images, layer_maps[name], target, step=step).auc
        gaps[name] = max(0.0, float((inserted - deleted).mean()))
    total = sum(gaps.values())
    if total == 0:
        raise InputError(
            "no layer's map raises the score faster than it lowers it; distil longer, or give "
            "other images"
        )
    return {name: gap / total for name, gap in gaps.items()}


def _sum_without(layer_maps: LayerMaps, left_out: str | None) -> Tensor:
    # Added up anew: subtracting would leave rounding where there were ties.
    total = torch.zeros_like(next(iter(layer_maps.values())))
    for name, each in layer_maps.items():
        if name != left_out:
            total = total + each
    return total
