"""What the games share: maps that fit their images, and scores while pixels are replaced."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from tqdm.std import tqdm

from captum_blackbox._compat import one_tensor
from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.metrics.class_scores import ClassScores
from captum_blackbox.metrics.maps import Channels, Ranks, one_channel
from captum_blackbox.shapes import Images, Saliency


def fitting_saliency(
    attributions: Tensor | tuple[Tensor, ...], images: Images, channels: Channels, game: str
) -> Saliency:
    """Return one number per pixel of ``images``, ``(N, H, W)``, still on the maps' device.

    Args:
        attributions: ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, C, H, W)``, or a tuple of one.
        images: ``(N, C, H, W)``.
        channels: As for :func:`~captum_blackbox.metrics.one_channel`.
        game: Who asks, for the error message.

    Raises:
        ShapeError: The maps do not fit the images.
        InputError: The maps have NaN or infinite values, or ``channels`` is unknown.

    Example:
        >>> fitting_saliency(torch.ones(1, 2, 1, 2), torch.zeros(1, 3, 1, 2), "sum", "the game")
        tensor([[[2., 2.]]])
    """
    maps, _ = one_tensor(attributions, game)
    saliency = one_channel(maps, channels)
    expected = (len(images), *images.shape[2:])
    if saliency.shape != expected:
        raise ShapeError(
            f"{game} needs one value per pixel: maps {tuple(saliency.shape)} do not fit "
            f"images {tuple(images.shape)}; one map per image, enlarged to the image's size, for "
            "instance with captum.attr.LayerAttribution.interpolate"
        )
    return saliency


def scores_while_replacing(
    scores: ClassScores,
    start: Images,
    finish: Images,
    ranks: Ranks,
    counts: Int32[Tensor, " steps"],
    *,
    batch_size: int,
    bar: "tqdm[Any]",
) -> Float[Tensor, "batch steps"]:
    """Return the score of each image with its first pixels replaced, a column per count.

    Args:
        scores: Whom to ask, and for which classes.
        start: Images ``(N, C, H, W)``.
        finish: What their pixels become.
        ranks: Place of each pixel in the order of replacement.
        counts: A step replaces the pixels whose rank is below its count.
        batch_size: Most images built at a time.
        bar: Counts the queries.
    """
    parts = []
    for states, rows in _states(start, finish, ranks, counts.view(-1, 1, 1), batch_size):
        parts.append(scores(states, rows))
        bar.update(len(rows))
    return torch.cat(parts).view(len(start), len(counts))


def at_least(least: int, name: str, value: int) -> int:
    """Return ``value``, or refuse it by ``name`` if it is smaller than ``least``."""
    if value < least:
        raise InputError(f"{name} must be at least {least}, got {value}")
    return value


def _states(
    start: Images,
    finish: Images,
    ranks: Ranks,
    counts: Int32[Tensor, "steps 1 1"],
    at_once: int,
) -> Iterator[tuple[Tensor, Int64[Tensor, " n"]]]:
    """Yield what the images become, image by image and step by step, and whose state each is."""
    steps = len(counts)
    total = len(start) * steps
    for first in range(0, total, at_once):
        last = min(first + at_once, total)
        states = start.new_empty((last - first, *start.shape[1:]))
        for image in range(first // steps, (last - 1) // steps + 1):
            # The part of the batch that belongs to one image, so that nothing is gathered.
            offset = image * steps
            begin, end = max(first, offset), min(last, offset + steps)
            replaced = (ranks[image] < counts[begin - offset : end - offset])[:, None]
            part = states[begin - first : end - first]
            torch.where(replaced, finish[image], start[image], out=part)
        yield states, torch.arange(first, last, device=start.device) // steps
