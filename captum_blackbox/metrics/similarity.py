"""How alike two explanations of the same image are, and where an explanation lies."""

import torch
from torch import Tensor

from captum_blackbox.errors import BatchMessage, InputError, ShapeError, warn_user
from captum_blackbox.metrics.maps import Channels, one_channel, pixel_ranks

_SHARE = 0.02  # of the pixels: 1000 of 227 x 227, as published


def topk_intersection(
    a: Tensor, b: Tensor, k: int | None = None, *, channels: Channels = "abs_sum"
) -> Tensor:
    """Return the share of the most important pixels that two explanations have in common.

    Of equal pixels the one with the smaller flat index comes first, so a map shares all with
    itself.

    Args:
        a: Maps ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, C, H, W)``.
        b: Maps of the same images.
        k: How many pixels are most important; by default a 50th of them.
        channels: How the channels of a pixel become one number.

    Returns:
        ``(N,)`` in [0, 1]; 1 is the same. By chance it is ``k / (H * W)``.

    Raises:
        ShapeError: The maps do not fit each other.
        InputError: ``k`` is not between 1 and the number of pixels, or a value is not finite.

    References:
        Ghorbani, Abid, Zou, "Interpretation of Neural Networks Is Fragile", AAAI 2019, sec. 3.

    Example:
        >>> a, b = torch.tensor([[[4.0, 3.0, 0.0]]]), torch.tensor([[[4.0, 0.0, 3.0]]])
        >>> topk_intersection(a, b, k=2)
        tensor([0.5000], dtype=torch.float64)
    """
    first, second = _pair(a, b, channels)
    pixels = first[0].numel()
    if k is None:
        k = max(1, round(_SHARE * pixels))
    if not 1 <= k <= pixels:
        raise InputError(f"k is between 1 and the {pixels} pixels of a map, got {k}")
    common = (pixel_ranks(first) < k) & (pixel_ranks(second) < k)
    return common.flatten(1).sum(1).double() / k


def rank_correlation(a: Tensor, b: Tensor, *, channels: Channels = "abs_sum") -> Tensor:
    """Return Spearman's rank correlation of two explanations; equal pixels share the mean rank.

    Args:
        a: Maps ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, C, H, W)``.
        b: Maps of the same images.
        channels: How the channels of a pixel become one number.

    Returns:
        ``(N,)`` in [-1, 1]; 1 is the same order. 0 where a map is the same everywhere and so has no
        order.

    Raises:
        ShapeError: The maps do not fit each other.
        InputError: A value is not finite.

    Warns:
        ExplanationWarning: A map is the same everywhere.

    Example:
        >>> a = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
        >>> rank_correlation(a, a.exp()), rank_correlation(a, 5 - a)
        (tensor([1.], dtype=torch.float64), tensor([-1.], dtype=torch.float64))
    """
    first, second = (_average_ranks(each) for each in _pair(a, b, channels))
    first, second = (each - each.mean(1, keepdim=True) for each in (first, second))
    sizes = ((first**2).sum(1) * (second**2).sum(1)).sqrt()
    flat = (sizes == 0).nonzero().flatten().tolist()
    if flat:
        pattern = "a map of {image} is the same everywhere{count}; the rank correlation is set to 0"
        warn_user(BatchMessage.about(pattern, flat, len(sizes)))
    return (first * second).sum(1) / _positive(sizes)


def center_of_mass(maps: Tensor, *, channels: Channels = "abs_sum") -> Tensor:
    """Return the mean place of an explanation, weighted by absolute importance.

    Returns:
        ``(N, 2)``: row and column in pixels, counted from 0 at the centre of the first. The middle
        of the image for a map that is 0 everywhere.

    Raises:
        ShapeError: These are no maps.
        InputError: A value is not finite.

    Example:
        >>> center_of_mass(torch.tensor([[[0.0, 1.0, 3.0]]]))
        tensor([[0.0000, 1.7500]], dtype=torch.float64)
    """
    mass = one_channel(maps, channels).abs().double()
    total = mass.sum((1, 2), keepdim=True)
    share = torch.where(total > 0, mass / total, 1 / mass[0].numel())
    height, width = mass.shape[1:]
    rows = torch.arange(height, dtype=mass.dtype, device=mass.device)
    columns = torch.arange(width, dtype=mass.dtype, device=mass.device)
    return torch.stack([share.sum(2) @ rows, share.sum(1) @ columns], 1)


def center_shift(a: Tensor, b: Tensor, *, channels: Channels = "abs_sum") -> Tensor:
    """Return how far apart the centres of mass of two explanations are, ``(N,)`` in pixels.

    Args:
        a: Maps ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, C, H, W)``.
        b: Maps of the same images.
        channels: How the channels of a pixel become one number.

    Returns:
        Euclidean distance, 0 or more; 0 is the same. Unlike in the published code, centres are not
        rounded to whole pixels.

    Raises:
        ShapeError: The maps do not fit each other.
        InputError: A value is not finite.

    Example:
        >>> corner, other = torch.zeros(2, 1, 5, 4)
        >>> corner[0, 0, 0], other[0, 4, 3] = 1, 1
        >>> center_shift(corner, other)
        tensor([5.], dtype=torch.float64)
    """
    _pair(a, b, channels)
    first, second = (center_of_mass(each, channels=channels) for each in (a, b.to(a.device)))
    distance: Tensor = (first - second).norm(dim=1)
    return distance


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of the angle between two explanations, signs and channels included.

    Returns:
        ``(N,)`` in [-1, 1]; 1 is the same up to scale, 0 where a map is 0 everywhere.

    Raises:
        ShapeError: The maps do not fit each other.
        InputError: A value is not finite.

    Example:
        >>> cosine_similarity(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 1.0]]]))
        tensor([0.7071], dtype=torch.float64)
    """
    _pair(a, b, "sum")
    if a.shape != b.shape:
        raise ShapeError(f"expected maps of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    first, second = (each.detach().double().flatten(1) for each in (a, b.to(a.device)))
    first, second = (each / _positive(each.norm(dim=1, keepdim=True)) for each in (first, second))
    return (first * second).sum(1)


def region_mass(maps: Tensor, region: Tensor, *, channels: Channels = "abs_sum") -> Tensor:
    """Return which share of an explanation's absolute importance lies in a region.

    Args:
        maps: ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, C, H, W)``.
        region: ``(H, W)``, or ``(N, H, W)`` with one for each image; not 0 is inside.
        channels: How the channels of a pixel become one number.

    Returns:
        ``(N,)`` in [0, 1]; 0 for a map that is 0 everywhere.

    Raises:
        ShapeError: The region does not fit the maps.
        InputError: A value is not finite.

    Example:
        >>> region_mass(torch.tensor([[[1.0, -3.0]]]), torch.tensor([[0, 1]]))
        tensor([0.7500], dtype=torch.float64)
    """
    mass = one_channel(maps, channels).abs().double()
    if region.shape not in {mass.shape, mass.shape[1:]}:
        raise ShapeError(
            f"expected a region {tuple(mass.shape[1:])}, or one for each map "
            f"{tuple(mass.shape)}, got shape {tuple(region.shape)}"
        )
    inside = (mass * (region.to(mass.device) != 0)).sum((1, 2))
    return inside / _positive(mass.sum((1, 2)))


def _pair(a: Tensor, b: Tensor, channels: Channels) -> tuple[Tensor, Tensor]:
    first, second = one_channel(a, channels), one_channel(b, channels)
    if first.shape != second.shape:
        raise ShapeError(
            f"expected maps of the same images, got shapes {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return first, second.to(first.device)


def _positive(sizes: Tensor) -> Tensor:
    """Return sizes to divide by, where 0 over 0 is to be 0."""
    return torch.where(sizes > 0, sizes, 1.0)


def _average_ranks(maps: Tensor) -> Tensor:
    """Return the rank of each pixel ``(N, pixels)``, from 0; equal ones get their mean rank."""
    ordered, order = maps.flatten(1).sort(dim=1)
    first = torch.searchsorted(ordered, ordered)
    behind = torch.searchsorted(ordered, ordered, right=True)
    ranks = (first + behind - 1).double() / 2
    return torch.empty_like(ranks).scatter_(1, order, ranks)
