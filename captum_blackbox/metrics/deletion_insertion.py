"""The deletion and the insertion game: what happens to the score with the pixels named first?"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_blackbox._compat import one_tensor
from captum_blackbox.black_box import BlackBox, OutputKind, as_black_box
from captum_blackbox.metrics.class_scores import ClassScores, Score
from captum_blackbox.metrics.maps import Channels, Ties, pixel_ranks
from captum_blackbox.metrics.replacing import at_least, fitting_saliency, scores_while_replacing
from captum_blackbox.metrics.substrates import Substrate, substrate_images
from captum_blackbox.shapes import Target, check_images

_DEFAULT_STEPS = 28


class Game(NamedTuple):
    """A played game, one row per image.

    Attributes:
        curve: The score after 0, 1, 2, … steps, ``(N, steps + 1)``: of the start image first, of
            the completely replaced image last.
        auc: The area under each curve over a width of 1, ``(N,)``, by the trapezoidal rule. After
            :func:`deletion` lower is better, after :func:`insertion` higher is better.
    """

    curve: Tensor
    auc: Tensor


def deletion(
    box_or_model: BlackBox | Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    attributions: Tensor | tuple[Tensor, ...],
    target: Target = None,
    *,
    output: OutputKind = "logits",
    score: Score = "probability",
    step: int | None = None,
    substrate: Substrate = "zeros",
    ties: Ties = "index",
    channels: Channels = "sum",
    seed: int = 0,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Game:
    """Take pixels away, the most important first, and watch the score; a lower area is better.

    The game costs ``steps + 1 = ceil(H · W / step) + 1`` queries per image, and one more without
    a ``target``. Beside the inputs it holds the substrate, one integer per pixel, and three times
    ``batch_size`` images.

    A good score proves less than it seems: scattered pixels take an image far from what the model
    was trained on, so random pixels also make the score fall. Report them, and insertion, beside
    it.

    Args:
        box_or_model: A :class:`~captum_blackbox.BlackBox`; or a module or callable, wrapped as one.
        inputs: Images ``(N, C, H, W)``, or a tuple of one such tensor.
        attributions: Their maps at full size, ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, C, H, W)``;
            larger is more important; on any device.
        target: The class whose score is watched, in any of Captum's forms; ``None`` for the box's
            prediction on each image.
        output: What ``box_or_model`` returns if it is no black box.
        score: ``"probability"`` (0 for a class that a top-k answer does not list; 0 or 1 for a
            box that answers labels); or ``"logit"``, if that is what the box answers.
        step: Pixels per step; by default so many that there are at most 28 steps.
        substrate: What a pixel becomes: ``"zeros"``, ``"blur"``, or a tensor that is broadcast to
            the images. Zeros are the mean colour where images are normalised by their mean.
        ties: Which of equal pixels goes first: ``"index"``, the smaller flat index;
            ``"reference"``, the larger, as in the published code; ``"random"``, one permutation,
            the same for every image. Maps with many zeros depend on it.
        channels: How channels of a map become one: ``"sum"``, ``"abs_sum"`` or ``"max_abs"``.
        seed: For ``ties="random"``.
        batch_size: Most images built at a time; by default the box's.
        show_progress: Show a bar that counts queries.

    Returns:
        Curve and area for each image, in float32 or wider, on the device of ``inputs``. They do
        not depend on the other images.

    Raises:
        ShapeError: ``inputs`` are no images, or the maps or the substrate do not fit them.
        InputError: A setting cannot be used, or a map has NaN or infinite values.
        TargetError: ``target`` does not name one class per image.
        QueryBudgetError: The budget of the box does not cover the game; without a cache nothing
            was asked.

    References:
        Petsiuk, Das, Saenko, "RISE", BMVC 2018, sec. 4.1 and its public code (``evaluation.py``),
        which sorts with an unstable sort: ``ties="reference"`` pins the rule that it means.

    Example:
        >>> def brightness(x):
        ...     return torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1)
        >>> image, saliency = torch.ones(1, 1, 2, 2), torch.rand(1, 1, 2, 2)
        >>> deletion(brightness, image, saliency, 0, output="probs", step=1)
        Game(curve=tensor([[1.0000, 0.7500, 0.5000, 0.2500, 0.0000]]), auc=tensor([0.5000]))
    """
    return _play(
        as_black_box(box_or_model, output),
        inputs,
        attributions,
        target,
        game="deletion",
        score=score,
        step=step,
        substrate=substrate,
        order=_Order(channels, ties, seed),
        batch_size=batch_size,
        show_progress=show_progress,
    )


def insertion(
    box_or_model: BlackBox | Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    attributions: Tensor | tuple[Tensor, ...],
    target: Target = None,
    *,
    output: OutputKind = "logits",
    score: Score = "probability",
    step: int | None = None,
    substrate: Substrate = "blur",
    ties: Ties = "index",
    channels: Channels = "sum",
    seed: int = 0,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Game:
    """Bring pixels back, the most important first, and watch the score; a higher area is better.

    The game starts from the image with every pixel taken away, by default blurred (11 x 11 pixels,
    sigma 5, zeros beyond the border, as in the published code), and ends with the image itself.
    Arguments, costs, results, errors and references are those of :func:`deletion`.

    Example:
        >>> def brightness(x):
        ...     return torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1)
        >>> image = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        >>> insertion(brightness, image, image, 0, output="probs", step=2, substrate="zeros")
        Game(curve=tensor([[0.0000, 0.2500, 0.2500]]), auc=tensor([0.1875]))
    """
    return _play(
        as_black_box(box_or_model, output),
        inputs,
        attributions,
        target,
        game="insertion",
        score=score,
        step=step,
        substrate=substrate,
        order=_Order(channels, ties, seed),
        batch_size=batch_size,
        show_progress=show_progress,
    )


class _Order(NamedTuple):
    channels: Channels
    ties: Ties
    seed: int


def _play(
    box: BlackBox,
    inputs: Tensor | tuple[Tensor, ...],
    attributions: Tensor | tuple[Tensor, ...],
    target: Target,
    *,
    game: Literal["deletion", "insertion"],
    score: Score,
    step: int | None,
    substrate: Substrate,
    order: _Order,
    batch_size: int | None,
    show_progress: bool,
) -> Game:
    images, _ = one_tensor(inputs, f"the {game} game")
    check_images(images)
    images = images.detach()
    pixels = images.shape[2] * images.shape[3]
    step = at_least(1, "step", math.ceil(pixels / _DEFAULT_STEPS) if step is None else step)
    at_once = at_least(1, "batch_size", box.batch_size if batch_size is None else batch_size)
    saliency = fitting_saliency(attributions, images, order.channels, f"the {game} game")
    ranks = pixel_ranks(saliency, order.ties, seed=order.seed).to(images.device)
    empty = substrate_images(images, substrate)
    start, finish = (images, empty) if game == "deletion" else (empty, images)
    # Everything is checked: only now may queries be spent.
    steps = math.ceil(pixels / step)
    queries = len(images) * (steps + 1)
    scores = ClassScores(box, images, target, score, variants=queries)
    counts = torch.arange(steps + 1, dtype=torch.int32, device=images.device) * min(step, pixels)
    with tqdm(total=queries, desc=game, disable=not show_progress) as bar:
        curve = scores_while_replacing(
            scores, start, finish, ranks, counts, batch_size=at_once, bar=bar
        )
    return Game(curve, torch.trapezoid(curve, dim=1) / steps)
