"""Patch degradation: how fast does the score fall when whole patches lose their detail?"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from captum_blackbox._compat import one_tensor
from captum_blackbox.black_box import BlackBox, OutputKind, as_black_box
from captum_blackbox.errors import InputError, check_choice
from captum_blackbox.metrics.class_scores import ClassScores, Score
from captum_blackbox.metrics.maps import Channels, pixel_ranks
from captum_blackbox.metrics.replacing import at_least, fitting_saliency, scores_while_replacing
from captum_blackbox.shapes import Images, Target, check_images

Edge: TypeAlias = Literal["drop", "partial"]
"""What happens to the strip at the right and at the bottom that fills no whole patch."""

Cells: TypeAlias = Float[Tensor, "batch channels rows columns"]

_NAME = "patch degradation"
_NEVER = torch.iinfo(torch.int32).max


class Degradation(NamedTuple):
    """How the scores fell, one row per image.

    Attributes:
        curve: The score after 0, ``every``, 2 · ``every``, … patches, ``(N, points)``; of the
            clean image first. There are ``k // every + 1`` points, ``k`` the number of patches or
            ``steps``, whichever is smaller.
        aopc: Area over the curve, ``(N,)``: the clean score less the mean of all points, the clean
            one among them. Higher is better.
        baseline: The mean curve of the random orders, ``(N, points)``; ``None`` if there are none.
    """

    curve: Tensor
    aopc: Tensor
    baseline: Tensor | None


def patch_degradation(
    box_or_model: BlackBox | Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    attributions: Tensor | tuple[Tensor, ...],
    target: Target = None,
    *,
    output: OutputKind = "logits",
    score: Score = "probability",
    patch: int = 9,
    steps: int = 100,
    every: int = 1,
    edge: Edge = "drop",
    channels: Channels = "sum",
    random_orders: int = 0,
    seed: int = 0,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Degradation:
    """Replace patches by their own mean colour, the most important first, and watch the score.

    A steeper fall, that is a higher AOPC, is better. The patches lie side by side from the top
    left. They go in the order of the mean of their map, equal ones in reading order; patches with
    a negative mean take part like all others.

    It costs ``points + random_orders · (points - 1)`` queries per image, and one more without a
    ``target``. Beside the inputs it holds the images of mean colours, one integer per pixel, one
    per patch and random order, and three times ``batch_size`` images.

    The score says that the named patches carry detail that the model needs while the rest of the
    image is there. It does not say that the map is right within a patch, nor about evidence that
    survives averaging, such as the colour of a patch; flat patches change nothing, whatever the
    model thinks of them; and an image with flat squares is none that the model was trained on, so
    that random patches make the score fall too. Compare orders on the same images, and report the
    random ones beside them.

    Args:
        box_or_model: A :class:`~captum_blackbox.BlackBox`; or a module or callable, wrapped as one.
        inputs: Images ``(N, C, H, W)``, or a tuple of one such tensor.
        attributions: Their maps at full size, ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, C, H, W)``;
            larger is more important; on any device.
        target: The class whose score is watched, in any of Captum's forms; ``None`` for the box's
            prediction on each clean image.
        output: What ``box_or_model`` returns if it is no black box.
        score: ``"probability"`` or ``"logit"``, as for :func:`~captum_blackbox.metrics.deletion`.
        patch: Height and width of a patch, in pixels.
        steps: Most patches that are replaced.
        every: Patches replaced between two points of the curve.
        edge: The strip that fills no whole patch stays as it is (``"drop"``), or makes smaller
            patches (``"partial"``), which compare by their mean.
        channels: How channels of a map become one: ``"sum"``, ``"abs_sum"`` or ``"max_abs"``.
        random_orders: Random orders per image whose mean curve is the baseline.
        seed: For the random orders. They are drawn for the first image, the second, and so on:
            whatever the images are, the same place in the batch has the same orders. Give the
            batches of one data set different seeds.
        batch_size: Most images built at a time; by default the box's.
        show_progress: Show a bar that counts queries.

    Returns:
        Curve and area for each image, in float32 or wider, on the device of ``inputs``. They do
        not depend on the other images; the baseline depends on the place in the batch.

    Raises:
        ShapeError: ``inputs`` are no images, or the maps do not fit them.
        InputError: A setting cannot be used, or a map has NaN or infinite values.
        TargetError: ``target`` does not name one class per image.
        QueryBudgetError: The budget of the box does not cover all of it; without a cache nothing
            was asked.

    References:
        Kindermans et al., "Learning how to explain neural networks", ICLR 2018, sec. 5 and
        fig. 4a: patches of 9 x 9 pixels, the first 100. It does not say what happens to the strip
        (224 = 24 · 9 + 8), hence ``edge``. AOPC: Samek et al., "Evaluating the visualization of
        what a deep neural network has learned", IEEE TNNLS 2017, eq. 12.

    Example:
        >>> def brightest(x):
        ...     return torch.stack([x.amax((1, 2, 3)), 1 - x.amax((1, 2, 3))], dim=1)
        >>> image = torch.tensor([[[[1.0, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.5]]]])
        >>> patch_degradation(brightest, image, image**2, 0, output="probs", patch=2)
        Degradation(curve=tensor([[1.0000, 0.5000, 0.2500]]), aopc=tensor([0.4167]), baseline=None)
    """
    box = as_black_box(box_or_model, output)
    images, _ = one_tensor(inputs, _NAME)
    check_images(images)
    images = images.detach()
    check_choice("edge", edge, get_args(Edge))
    at_once = at_least(1, "batch_size", box.batch_size if batch_size is None else batch_size)
    at_least(0, "random_orders", random_orders)
    saliency = fitting_saliency(attributions, images, channels, _NAME)
    grid = _Grid(images, at_least(1, "patch", patch), edge)
    ranks = pixel_ranks(grid.means(saliency[:, None])[:, 0]).to(images.device)
    counts = _counts(at_least(1, "steps", steps), at_least(1, "every", every), ranks[0].numel())
    counts = counts.to(images.device)
    flat = images.clone()
    grid.fill(flat, grid.means(images).to(images.dtype))
    # Everything is checked: only now may queries be spent.
    queries = len(images) * (len(counts) + random_orders * (len(counts) - 1))
    scores = ClassScores(box, images, target, score, variants=queries)
    with tqdm(total=queries, desc=_NAME, disable=not show_progress) as bar:

        def curve_of(patch_ranks: Int32[Tensor, "batch rows columns"], counts: Tensor) -> Tensor:
            pixels = patch_ranks.new_full(saliency.shape, _NEVER)
            grid.fill(pixels, patch_ranks)
            return scores_while_replacing(
                scores, images, flat, pixels, counts, batch_size=at_once, bar=bar
            )

        curve = curve_of(ranks, counts)
        baseline = None
        if random_orders > 0:
            clean, rest = curve[:, :1], torch.zeros_like(curve[:, 1:])
            for order in _random_ranks(random_orders, ranks, seed):
                rest += curve_of(order, counts[1:])
            baseline = torch.cat([clean, rest / random_orders], dim=1)
    return Degradation(curve, curve[:, 0] - curve.mean(1), baseline)


class _Grid:
    """Patches side by side from the top left of images of one size."""

    def __init__(self, images: Images, patch: int, edge: Edge) -> None:
        self._size = height, width = tuple(images.shape[2:])
        if edge == "drop":
            if patch > min(height, width):
                raise InputError(
                    f"no patch of {patch} x {patch} pixels fits into images of {height} x {width}; "
                    "choose a smaller patch, or edge='partial'"
                )
            self._size = height // patch * patch, width // patch * patch
        self._patch = patch

    def means(self, values: Images) -> Cells:
        """Return the mean of each patch and channel, in float32 or wider."""
        height, width = self._size
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        # A window that reaches over the border counts its pixels inside only.
        return F.avg_pool2d(wide[..., :height, :width], self._patch, ceil_mode=True)

    def fill(self, pixels: Tensor, values: Tensor) -> None:
        """Give all pixels of a patch its value; pixels in no patch keep theirs."""
        height, width = self._size
        for axis in (-2, -1):
            values = values.repeat_interleave(self._patch, dim=axis)
        pixels[..., :height, :width] = values[..., :height, :width]


def _counts(steps: int, every: int, patches: int) -> Int32[Tensor, " points"]:
    last = min(steps, patches)
    if every > last:
        raise InputError(
            f"every={every} leaves no point after the clean one: only {last} patches are replaced "
            f"({patches} in the image, steps={steps})"
        )
    return torch.arange(0, last + 1, every, dtype=torch.int32)


def _random_ranks(
    orders: int, like: Int32[Tensor, "batch rows columns"], seed: int
) -> Int32[Tensor, "orders batch rows columns"]:
    # Drawn on the CPU, so that every device sees the same ones, and image by image, so that more
    # images change nothing.
    generator = torch.Generator().manual_seed(seed)
    ranks = torch.stack(
        [
            torch.randperm(like[0].numel(), generator=generator, dtype=torch.int32)
            for _ in range(len(like) * orders)
        ]
    )
    return ranks.view(len(like), orders, *like.shape[1:]).transpose(0, 1).to(like.device)
