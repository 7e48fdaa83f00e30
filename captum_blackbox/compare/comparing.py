"""Compare attribution methods by metrics, on images."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_blackbox.artifacts import fingerprint
from captum_blackbox.black_box import BlackBox, OutputKind, as_black_box
from captum_blackbox.compare.context import (
    Context,
    checked_images,
    checked_masks,
    checked_names,
    content_number,
    explained_classes,
)
from captum_blackbox.compare.method_kinds import Plan, planned
from captum_blackbox.compare.metric import Metric
from captum_blackbox.compare.metric_names import named_metrics
from captum_blackbox.compare.progress import Progress
from captum_blackbox.compare.result import Comparison, Failure
from captum_blackbox.compare.running import Run
from captum_blackbox.compare.setup import Setup
from captum_blackbox.errors import InputError, QueryBudgetError
from captum_blackbox.hooks import evaluating, out_of_place
from captum_blackbox.shapes import Target
from captum_blackbox.student.distillation.random_state import random_state_kept

_KNOWN_BY = 4  # images whose answers tell one box from another
_ROUNDED_TO = 1000  # parts of a probability


def compare(
    model_or_box: BlackBox | Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    methods: Mapping[str, Any] | Sequence[str],
    metrics: Sequence[str | Metric] = ("deletion", "insertion"),
    *,
    target: Target = None,
    masks: Tensor | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    data: Any = None,  # noqa: ANN401 - what fitting takes: a tensor or a loader
    output: OutputKind = "logits",
    batch_size: int = 8,
    show_progress: bool = True,
) -> Comparison:
    """Judge methods by metrics on the same images.

    What fails is reported in the result and does not end the run: a method that cannot be made, an
    image that a forward pass dies on, a map with NaN, a metric that raises. Only a query budget
    that is used up ends it.

    An image's numbers do not depend on the other images. Methods and metrics that draw from a
    global generator of torch or NumPy are called image by image, each seeded by ``seed`` and the
    image's content, metrics by their name as well, and alike for all methods. What batching does to
    rounding remains.

    Args:
        model_or_box: A module, which every method can look into; or a black box or a callable, for
            which methods that need gradients are reported as not applicable.
        inputs: Images ``(N, C, H, W)``, or a tuple of one such tensor.
        methods: Names of :data:`READY`; or name → such a name, an attribution of Captum, Zennit or
            this library as it is (or :class:`Configured`, with settings), a composite of Zennit, a
            class or function that makes one of a model (of the black box, where there is no model),
            or a function from images and classes to maps. Maps of layers are enlarged bilinearly.
        metrics: Names of :data:`METRICS`, ``"quantus:NAME"`` for a metric of Quantus, or objects of
            :class:`Metric`.
        target: The class to explain, in any of Captum's forms; ``None`` for the prediction, which
            costs ``N`` queries. What can only be called is asked four more, to know it again.
        masks: Where the truth lies, ``(N, H, W)`` or ``(N, 1, H, W)``, not 0 inside; for metrics of
            localisation. An image whose mask is empty gets no number by them.
        names: Of the images, for tables and failures; ``None``: they are numbered from 0.
        seed: For whatever is drawn.
        resume: A file that keeps the numbers as they come. If it exists, only what is missing in it
            is done, and the result is that of a run without interruption, times aside. What failed
            is missing, too, and is tried again by each new call: memory may have been short, or a
            server down. Not so what is not applicable. What succeeded is never done again, except
            that a map is made again to be judged by a metric that failed on it. So that one can go
            on with less memory, ``batch_size`` may differ. What is compared of methods and metrics
            are their kinds and names, not all of their settings; of what can only be called, its
            name and its answers to the first four images.
        data: Images, not those explained, that ``"pattern_attribution"``,
            ``"pattern_attribution_centred"`` and ``"distilled_layer_sum"`` are fitted to: a tensor
            or a loader.
        output: What ``model_or_box`` returns if it is no black box.
        batch_size: Images explained together. An image that fails is found by trying those of its
            batch one by one.
        show_progress: Show a bar that counts images and methods.

    Returns:
        Values, ranks, differences, costs and failures.

    Raises:
        ShapeError: ``inputs`` are no images, there is none, or the masks do not fit them.
        InputError: A method or metric is unknown (the nearest names are offered), a metric needs
            masks and all are empty or there is none, a method needs data, the model tells one class
            only, there is not one name for each image, or a setting cannot be used.
        TargetError: ``target`` does not name one class per image.
        ArtifactError: ``resume`` belongs to another model, other images or other settings.
        BlackBoxError: The model answers for no image.
        QueryBudgetError: The budget of the black box is used up; what was done is in ``resume``.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        >>> found = compare(
        ...     model, torch.rand(3, 3, 8, 8), ["random", "saliency", "grad_cam"], ["deletion"],
        ...     show_progress=False)
        >>> found.scores("saliency", "deletion").shape, found.cost("saliency").backward
        (torch.Size([3]), 3)
    """
    images = checked_images(inputs)
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    plans = planned(methods, has_data=data is not None)
    truth = checked_masks(masks, images)
    image_names = checked_names(names, len(images))
    judges = named_metrics(metrics, has_masks=truth is not None)
    model = model_or_box if isinstance(model_or_box, nn.Module) else None
    box = as_black_box(model_or_box, output)
    images = images.to(_device(model, images))
    with ExitStack() as undo:
        undo.enter_context(random_state_kept(images.device))
        network = box.fn if isinstance(box.fn, nn.Module) else None
        settings = _settings(box, network, images, truth, plans, judges, seed, batch_size, data)
        if network is not None:
            undo.enter_context(evaluating(network))
            undo.enter_context(out_of_place(network))
        targets, lost = explained_classes(box, images, target, batch_size)
        usable = [row for row in range(len(images)) if row not in lost]
        if network is None:
            settings["answers"] = _answers(box, images, usable[:_KNOWN_BY])
        batches = [usable[i : i + batch_size] for i in range(0, len(usable), batch_size)]
        directions = {metric.name: metric.higher_is_better for metric in judges}
        progress = Progress(
            [plan.name for plan in plans], directions, targets, settings, resume,
            lost=lost, names=image_names,
        )  # fmt: skip
        for row, plan in enumerate(plans):
            unanswered = progress.left(row, lost)
            for image in unanswered:
                progress.fail(Failure(plan.name, None, image, lost[image]))
            if unanswered:
                progress.finish(row, unanswered)
        masks_here = None if truth is None else truth.to(images.device)
        context = Context(box, model, images, targets, masks_here, seed)
        setup = Setup(box, model, images[usable[:1]], box.num_classes or 0, data, seed)
        bar = undo.enter_context(
            tqdm(total=len(usable) * len(plans), desc="compare", disable=not show_progress)
        )
        run = Run(context, setup, judges, batches, progress, bar)
        try:
            for row, plan in enumerate(plans):
                run.judge(row, plan)
        finally:
            progress.save()
    return progress.result()


def _answers(box: BlackBox, images: Tensor, rows: Sequence[int]) -> dict[str, str]:
    """Return a digest of what a box answers to some images, without the last digits."""
    found = {}
    for row in rows:
        try:
            scores = box(images[row][None])
        except QueryBudgetError:
            raise
        except Exception:  # noqa: S112 - the methods will meet it, too
            continue
        rounded = (scores.double().cpu() * _ROUNDED_TO).round().long()
        found[f"the answer to image {row}"] = f"{content_number(rounded):x}"
    return found


def _device(model: nn.Module | None, images: Tensor) -> torch.device:
    first = None if model is None else next(model.parameters(), None)
    return images.device if first is None else first.device


def _settings(
    box: BlackBox,
    network: nn.Module | None,
    images: Tensor,
    masks: Tensor | None,
    plans: Sequence[Plan],
    metrics: Sequence[Metric],
    seed: int,
    batch_size: int,
    data: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Return what tells one comparison from another."""
    name = getattr(box.fn, "__qualname__", type(box.fn).__name__)
    fitted_to = content_number(data) if isinstance(data, Tensor) else type(data).__name__
    return {
        "model": name if network is None else fingerprint(network),
        "output": box.output,
        "images": content_number(images),
        "masks": None if masks is None else content_number(masks),
        "methods": {plan.name: plan.identity for plan in plans},
        "metrics": [re.sub(r" at 0x[0-9a-fA-F]+", "", repr(metric)) for metric in metrics],
        "data": None if data is None else fitted_to,
        "seed": seed,
        "batch_size": batch_size,
    }
