"""Attribution maps of any form as one number per pixel, and the order of their pixels."""

from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Int32
from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError, check_choice
from captum_blackbox.shapes import Saliency

Channels: TypeAlias = Literal["sum", "abs_sum", "max_abs"]
"""How the channels of a pixel become one number."""

Ties: TypeAlias = Literal["index", "random", "reference"]
"""Which of several equal pixels comes first."""

Ranks: TypeAlias = Int32[Tensor, "batch height width"]


def one_channel(maps: Tensor, channels: Channels = "sum") -> Saliency:
    """Return one number per pixel, ``(N, H, W)``, in float32 or wider.

    Args:
        maps: ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, C, H, W)``.
        channels: ``"sum"`` adds the channels, signs included; ``"abs_sum"`` adds their absolute
            values; ``"max_abs"`` takes the largest absolute value. Maps without channels are read
            as maps of one channel.

    Raises:
        ShapeError: Another shape, an empty map, or complex numbers.
        InputError: NaN or infinite values, or an unknown ``channels``.

    Example:
        >>> maps = torch.tensor([[[[1.0, -4.0]], [[2.0, 3.0]]]])
        >>> one_channel(maps), one_channel(maps, "max_abs")
        (tensor([[[ 3., -1.]]]), tensor([[[2., 4.]]]))
    """
    check_choice("channels", channels, get_args(Channels))
    if maps.dim() not in {3, 4} or maps.numel() == 0 or maps.is_complex():
        raise ShapeError(
            "expected real-valued maps (N, H, W), (N, 1, H, W) or (N, C, H, W), not empty, got "
            f"{maps.dtype} of shape {tuple(maps.shape)}"
        )
    maps = maps.detach().to(torch.promote_types(maps.dtype, torch.float32))
    finite = maps.isfinite()
    if not bool(finite.all()):
        bad = int((~finite).sum())
        raise InputError(
            f"{bad} of {maps.numel()} map values are NaN or infinite; such pixels have no place in "
            "an order of importance"
        )
    by_channel = maps[:, None] if maps.dim() == 3 else maps
    if channels == "sum":
        return by_channel.sum(1)
    return by_channel.abs().sum(1) if channels == "abs_sum" else by_channel.abs().amax(1)


def pixel_ranks(saliency: Saliency, ties: Ties = "index", *, seed: int = 0) -> Ranks:
    """Return each pixel's place in the order of decreasing importance; 0 is the most important.

    Args:
        saliency: Importance ``(N, H, W)``; larger is more important.
        ties: Among equal pixels ``"index"`` takes the one with the smaller flat index first;
            ``"random"`` follows one permutation of the pixels, the same for every image;
            ``"reference"`` takes the larger flat index first, as the published code of RISE does
            (its ``flip(argsort)``, here with a stable sort).
        seed: For ``ties="random"``.

    Raises:
        InputError: ``ties`` is unknown.

    Example:
        >>> saliency = torch.tensor([[[1.0, 5.0, 1.0]]])
        >>> pixel_ranks(saliency), pixel_ranks(saliency, "reference")
        (tensor([[[1, 0, 2]]], dtype=torch.int32), tensor([[[2, 0, 1]]], dtype=torch.int32))
    """
    check_choice("ties", ties, get_args(Ties))
    flat = saliency.flatten(1)
    pixels = flat.shape[1]
    if ties == "reference":
        order = flat.argsort(dim=1, stable=True).flip(1)
    elif ties == "random":
        # Drawn on the CPU, so that every device sees the same permutation.
        generator = torch.Generator().manual_seed(seed)
        shuffled = torch.randperm(pixels, generator=generator).to(flat.device)
        order = shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    else:
        order = flat.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(pixels, dtype=torch.int32, device=flat.device).expand_as(order)
    return (
        torch.empty_like(places, memory_format=torch.contiguous_format)
        .scatter_(1, order, places)
        .view_as(saliency)
    )
