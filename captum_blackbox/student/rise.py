"""RISE: explain what can only be called, by covering the image with random masks."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from captum_blackbox._compat import format_like_inputs, one_tensor
from captum_blackbox.black_box import BlackBox, OutputKind, as_black_box
from captum_blackbox.errors import InputError
from captum_blackbox.metrics.class_scores import ClassScores
from captum_blackbox.shapes import Target, check_images


class RISE(PerturbationAttribution):
    r"""Explain a black box by the probability it gives to randomly masked images.

    A coarse grid of cells, each open with probability :math:`p`, is enlarged bilinearly, shifted at
    random and cut to the image's size, which gives a mask :math:`M_i` with values in [0, 1]. With
    the probability :math:`f` of the explained class

    .. math:: S = \frac{1}{N p} \sum_{i=1}^{N} f(x \odot M_i)\, M_i

    which estimates the mean of :math:`f` given that the pixel is visible. All images see the same
    masks, drawn anew from ``seed`` in every call, so that equal calls give equal maps.

    When not to use it: where a query is dear (this costs thousands per image), and for details
    finer than a cell. The values are no shares of the score: an image without any influence on
    :math:`f` gets a map of :math:`f` everywhere, up to the sampling error.

    Args:
        box_or_model: A :class:`~captum_blackbox.BlackBox`; or a module or callable, wrapped as one.
        output: What ``box_or_model`` returns if it is no black box.
        masks: Number of masks :math:`N`, which is the number of queries per image. The error falls
            with its square root.
        grid: Cells along each side; the same for images that are not square.
        probability: That a cell is open, in (0, 1].
        seed: For the masks.

    Raises:
        InputError: A setting cannot be used.

    References:
        Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models",
        BMVC 2018, eq. 6 and sec. 3.2. As in its public code a cell has ``ceil(H / grid)`` pixels
        (the paper rounds down). Bilinear enlargement repeats the border cells as in
        ``torch.nn.functional.interpolate``, where the public code mirrors them.

    Example:
        >>> def left_half(x):
        ...     left = x[..., :4].mean((1, 2, 3))
        ...     return torch.stack([left, 1 - left], dim=1)
        >>> rise = RISE(left_half, output="probs", masks=500, grid=4)
        >>> saliency = rise.attribute(torch.ones(1, 3, 8, 8), target=0)
        >>> saliency.shape, bool(saliency[..., :4].mean() > saliency[..., 4:].mean())
        (torch.Size([1, 1, 8, 8]), True)
    """

    def __init__(
        self,
        box_or_model: BlackBox | Callable[..., Any],
        *,
        output: OutputKind = "logits",
        masks: int = 4000,
        grid: int = 7,
        probability: float = 0.5,
        seed: int = 0,
    ) -> None:
        for name, value in (("masks", masks), ("grid", grid)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if not 0 < probability <= 1:
            raise InputError(f"probability must lie in (0, 1], got {probability}")
        self.box = as_black_box(box_or_model, output)
        self.masks = masks
        self.grid = grid
        self.probability = probability
        self.seed = seed
        super().__init__(self.box)

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target = None,
        additional_forward_args: object = None,
        *,
        masks_per_eval: int | None = None,
        expand_to_input: bool = False,
        show_progress: bool = False,
    ) -> Any:  # noqa: ANN401 - a tensor for a tensor, a tuple for a tuple
        """Return one map per image, for ``N · masks`` queries.

        Beside the inputs it holds three times ``N · masks_per_eval`` images.

        Args:
            inputs: Images ``(N, C, H, W)``, or a tuple of one such tensor. What a mask covers
                becomes 0.
            target: The class to explain, in any of Captum's forms; ``None`` asks the box for its
                prediction on each image, which costs ``N`` queries more.
            additional_forward_args: Only ``None``: a black box takes images and nothing else.
            masks_per_eval: Masks at a time; by default as many as fill one batch of the box. It
                changes the result by rounding errors only.
            expand_to_input: Spread each map evenly over the channels, for metrics that want the
                shape of the input.
            show_progress: Show a bar that counts masks.

        Returns:
            Importance per pixel, not negative, larger is more important; ``(N, 1, H, W)``, or
            ``(N, C, H, W)`` with ``expand_to_input``; on the device and in the dtype of ``inputs``
            (sums are in float32 or wider). A tuple for a tuple.

        Raises:
            ShapeError: ``inputs`` is not one tensor of images.
            TargetError: ``target`` does not name one class per image.
            InputError: ``additional_forward_args`` is given, or ``masks_per_eval`` is below 1.
            QueryBudgetError: The budget of the box does not cover all masks; without a cache
                nothing was asked.
        """
        images, is_tuple = one_tensor(inputs, self.get_name())
        check_images(images)
        if additional_forward_args is not None:
            raise InputError(
                "a black box takes images and nothing else; additional_forward_args must be None, "
                f"got {type(additional_forward_args).__name__}"
            )
        if masks_per_eval is None:
            masks_per_eval = max(1, self.box.batch_size // len(images))
        if masks_per_eval < 1:
            raise InputError(f"masks_per_eval must be at least 1, got {masks_per_eval}")
        saliency = self._saliency(images.detach(), target, masks_per_eval, show_progress)
        result = saliency[:, None].to(images.dtype)
        if expand_to_input:
            result = (result / images.shape[1]).expand_as(images)
        return format_like_inputs(result, is_tuple)

    def attribute_future(self) -> None:
        """Refuse: there is no asynchronous version."""
        raise NotImplementedError("attribute_future is not implemented for RISE")

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method."""
        return "RISE"

    def _saliency(
        self, images: Tensor, target: Target, at_once: int, show_progress: bool
    ) -> Tensor:
        size = (images.shape[2], images.shape[3])
        scores = ClassScores(self.box, images, target, variants=len(images) * self.masks)
        drawn = draw_masks(self.masks, self.grid, self.probability, self.seed)
        rows = torch.arange(len(images), device=images.device)
        # Half precision is what the box sees, but nothing to add thousands of numbers in.
        total = images.new_zeros(
            (len(images), *size), dtype=torch.promote_types(images.dtype, torch.float32)
        )
        with tqdm(total=self.masks, desc="RISE", disable=not show_progress) as bar:
            for first in range(0, self.masks, at_once):
                some = MaskDraws(*(each[first : first + at_once] for each in drawn))
                masks = render_masks(some, size).to(total)
                masked = (images[:, None] * masks[:, None]).to(images.dtype).flatten(0, 1)
                answers = scores(masked, rows.repeat_interleave(len(masks)))
                _add_weighted(total, answers.view(len(images), -1), masks)
                bar.update(len(masks))
        return total / (self.masks * self.probability)


class MaskDraws(NamedTuple):
    """The random part of some masks, the same for every size and device.

    Attributes:
        open_cells: ``(masks, grid, grid)``.
        shifts: Down and right, in cells, ``(masks, 2)`` in [0, 1).
    """

    open_cells: Bool[Tensor, "masks grid grid"]
    shifts: Float[Tensor, "masks 2"]


def draw_masks(masks: int, grid: int, probability: float, seed: int) -> MaskDraws:
    """Draw cells that are open with ``probability``, and shifts by less than a cell."""
    generator = torch.Generator().manual_seed(seed)
    open_cells = torch.rand(masks, grid, grid, generator=generator) < probability
    return MaskDraws(open_cells, torch.rand(masks, 2, generator=generator))


def render_masks(draws: MaskDraws, size: tuple[int, int]) -> Float[Tensor, "masks height width"]:
    """Return masks with values in [0, 1].

    The cells are enlarged to ``grid + 1`` cells of ``ceil(height / grid)`` by ``ceil(width /
    grid)`` pixels; of that a window of the image's size is cut, as far from the corner as the
    shift says, in whole pixels.

    Example:
        >>> cells = torch.tensor([[[True, False], [True, False]]])
        >>> render_masks(MaskDraws(cells, torch.tensor([[0.0, 0.9]])), (1, 4))
        tensor([[[1.0000, 0.6667, 0.3333, 0.0000]]])
    """
    cells = draws.open_cells.float()
    grid = cells.shape[1]
    rows = _interpolation(size[0], grid, draws.shifts[:, 0])
    columns = _interpolation(size[1], grid, draws.shifts[:, 1])
    with torch.autocast(cells.device.type, enabled=False):
        return rows @ cells @ columns.mT


def _interpolation(
    length: int, grid: int, shifts: Float[Tensor, " masks"]
) -> Float[Tensor, "masks length grid"]:
    """Return the weight of each cell in each pixel, along one axis."""
    cell = math.ceil(length / grid)
    enlarged = (grid + 1) * cell
    pixels = torch.arange(length) + (shifts * cell).floor()[:, None]
    position = ((pixels + 0.5) * grid / enlarged - 0.5).clamp(0, grid - 1)
    return (1 - (position[..., None] - torch.arange(grid)).abs()).clamp(min=0)


def _add_weighted(
    total: Float[Tensor, "batch height width"],
    weights: Float[Tensor, "batch masks"],
    masks: Float[Tensor, "masks height width"],
) -> None:
    # Under autocast the product would be rounded to 8 bits.
    with torch.autocast(total.device.type, enabled=False):
        total += (weights.to(total) @ masks.flatten(1)).view_as(total)
