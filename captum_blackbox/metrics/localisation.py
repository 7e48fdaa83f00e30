"""Whether an explanation points at what is known to be the cause."""

import torch
from jaxtyping import Bool
from torch import Tensor

from captum_blackbox.errors import BatchMessage, InputError, ShapeError, warn_user
from captum_blackbox.metrics.maps import Channels, one_channel, pixel_ranks
from captum_blackbox.shapes import PerImage, Saliency


def pointing_game(
    a: Tensor, mask: Tensor, *, tolerance: float | int = 0, channels: Channels = "sum"
) -> PerImage:
    """Return whether the most important pixel lies on the object.

    Of equal pixels the one with the smallest flat index is the most important.

    Args:
        a: Maps ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, C, H, W)``.
        mask: Where the object is, not 0 inside: ``(H, W)``, or one for each map ``(N, H, W)`` or
            ``(N, 1, H, W)``.
        tolerance: A hit is also a pixel at most this far from the mask, in pixels between centres;
            0 or more. Published results on photographs use 15.
        channels: How the channels of a pixel become one number.

    Returns:
        ``(N,)``: 1 for a hit, 0 for a miss; higher is better, and by chance it is the share of the
        mask. 0 for a map that is the same everywhere, since it points nowhere; NaN for an empty
        mask.

    Raises:
        ShapeError: The mask does not fit the maps.
        InputError: A value is not finite, or the tolerance is negative.

    Warns:
        ExplanationWarning: A map is the same everywhere, or a mask is empty.

    References:
        Zhang et al., "Top-Down Neural Attention by Excitation Backprop", IJCV 2018, sec. 5.1: the
        accuracy is the mean over images, for each class. Quantus' ``PointingGame`` counts a hit if
        any of several equal maxima is inside, and has no tolerance; otherwise it is the same.

    Example:
        >>> a, mask = torch.tensor([[[0.0, 3.0, 1.0, 0.0]]]), torch.tensor([[0, 0, 0, 1]])
        >>> pointing_game(a, mask), pointing_game(a, mask, tolerance=2)
        (tensor([0.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    if not tolerance >= 0:
        raise InputError(f"tolerance is 0 pixels or more, got {tolerance}")
    saliency, inside = _pair(a, mask, channels)
    width = saliency.shape[2]
    top = pixel_ranks(saliency).flatten(1).argmin(1)
    rows, columns = (torch.arange(n, device=top.device) for n in saliency.shape[1:])
    down = rows - (top // width)[:, None]
    right = columns - (top % width)[:, None]
    squared = (down**2)[:, :, None] + (right**2)[:, None, :]
    near = squared.double() <= tolerance**2
    hit = (near & inside).flatten(1).any(1)
    return _where_defined(hit & ~_is_flat(saliency), inside, saliency)


def relevance_mass(a: Tensor, mask: Tensor, *, channels: Channels = "sum") -> PerImage:
    r"""Return which share of the positive importance lies on the object.

    .. math:: \frac{\sum_{p \in M} \max(a_p, 0)}{\sum_p \max(a_p, 0)}

    Args:
        a: Maps ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, C, H, W)``.
        mask: As for :func:`pointing_game`.
        channels: How the channels of a pixel become one number :math:`a_p`.

    Returns:
        ``(N,)`` in [0, 1]; higher is better, and a map that is the same everywhere has the share of
        the mask. 0 without positive importance; NaN for an empty mask.

    Raises:
        ShapeError: The mask does not fit the maps.
        InputError: A value is not finite.

    Warns:
        ExplanationWarning: A map has no positive importance, or a mask is empty.

    References:
        Arras, Osman, Samek, "CLEVR-XAI: A benchmark dataset for the ground truth evaluation of
        neural network explanations", Information Fusion 2022, eq. 1 (relevance mass accuracy), with
        their pooling "sum,pos" for ``"sum"``. Quantus' ``RelevanceMassAccuracy`` is the same for
        maps without negative values; it lets negative ones cancel positive ones.

    Example:
        >>> relevance_mass(torch.tensor([[[1.0, 3.0, -2.0]]]), torch.tensor([[0, 1, 1]]))
        tensor([0.7500], dtype=torch.float64)
    """
    saliency, inside = _pair(a, mask, channels)
    positive = saliency.clamp(min=0)
    total = positive.sum((1, 2))
    empty = (total == 0).nonzero().flatten().tolist()
    if empty:
        pattern = "the map of {image} is nowhere positive{count}; its relevance mass is set to 0"
        warn_user(BatchMessage.about(pattern, empty, len(total)))
    share = (positive * inside).sum((1, 2)) / torch.where(total > 0, total, 1.0)
    return _where_defined(share, inside)


def relevance_rank(a: Tensor, mask: Tensor, *, channels: Channels = "sum") -> PerImage:
    r"""Return which share of the most important pixels lies on the object.

    As many pixels as the mask has count as the most important,

    .. math:: \frac{|P_K \cap M|}{K}, \qquad K = |M|

    Of equal pixels the one with the smaller flat index comes first.

    Args:
        a: Maps ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, C, H, W)``.
        mask: As for :func:`pointing_game`.
        channels: How the channels of a pixel become one number.

    Returns:
        ``(N,)`` in [0, 1]; higher is better, and by chance it is the share of the mask. 0 for a map
        that is the same everywhere, since it has no order; NaN for an empty mask.

    Raises:
        ShapeError: The mask does not fit the maps.
        InputError: A value is not finite.

    Warns:
        ExplanationWarning: A map is the same everywhere, or a mask is empty.

    References:
        Arras, Osman, Samek, Information Fusion 2022, eq. 2 (relevance rank accuracy). Quantus'
        ``RelevanceRankAccuracy`` is the same where no two pixels are equal.

    Example:
        >>> relevance_rank(torch.tensor([[[4.0, 3.0, 1.0, 2.0]]]), torch.tensor([[1, 0, 0, 1]]))
        tensor([0.5000], dtype=torch.float64)
    """
    saliency, inside = _pair(a, mask, channels)
    count = inside.flatten(1).sum(1)
    top = pixel_ranks(saliency) < count[:, None, None]
    share = (top & inside).flatten(1).sum(1).double() / count.clamp(min=1)
    return _where_defined(share * ~_is_flat(saliency), inside, saliency)


def _pair(
    a: Tensor, mask: Tensor, channels: Channels
) -> tuple[Saliency, Bool[Tensor, "batch height width"]]:
    """Return importance in double precision, and for each map where the object is."""
    saliency = one_channel(a, channels).double()
    inside = mask[:, 0] if mask.dim() == 4 and mask.shape[1] == 1 else mask
    if inside.shape not in {saliency.shape, saliency.shape[1:]}:
        raise ShapeError(
            f"expected a mask {tuple(saliency.shape[1:])}, or one for each map "
            f"{tuple(saliency.shape)}, got shape {tuple(mask.shape)}"
        )
    return saliency, (inside.to(saliency.device) != 0).expand_as(saliency)


def _is_flat(saliency: Saliency) -> Bool[Tensor, " batch"]:
    flat = saliency.flatten(1)
    return flat.amax(1) == flat.amin(1)


def _where_defined(
    values: Tensor,
    inside: Bool[Tensor, "batch height width"],
    ordered: Saliency | None = None,
) -> PerImage:
    """Return the values, NaN for empty masks; warn of those and of maps without an order."""
    flat = [] if ordered is None else _is_flat(ordered).nonzero().flatten().tolist()
    if flat:
        pattern = (
            "the map of {image} is the same everywhere{count} and points nowhere; it counts as 0"
        )
        warn_user(BatchMessage.about(pattern, flat, len(values)))
    without = ~inside.flatten(1).any(1)
    missing = without.nonzero().flatten().tolist()
    if missing:
        pattern = (
            "the mask of {image} is empty{count}; what should be found is not known, so the result "
            "is NaN"
        )
        warn_user(BatchMessage.about(pattern, missing, len(values)))
    return torch.where(without, torch.nan, values.double())
