"""The pipeline that ``demo`` and ``explain`` share: images to maps, games and layer importance."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_blackbox.cli.options import Budget
from captum_blackbox.hooks import evaluating
from captum_blackbox.metrics import deletion, insertion
from captum_blackbox.report.overlay import Floor
from captum_blackbox.student import RISE, DistilledLayerSumGradCAM, LayerSumGradCAM

METHODS = {
    "layer-sum": "Layer sum",
    "grad-cam": "Last-layer Grad-CAM",
    "rise": "RISE",
    "random": "Random",
}
REFERENCE = METHODS["grad-cam"]
_AT_ONCE = 8  # images whose maps are held on the device

Maker: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]
"""Images, classes and the number of the first image → maps ``(N, 1, H, W)``."""


@dataclass(frozen=True)
class Subject:
    """What is explained.

    Attributes:
        inputs: As the black box takes them, ``(N, C, H, W)``.
        pictures: As a person sees them, in [0, 1].
        names: Of the images.
        class_names: Of the classes; a class beyond them is called by its number.
        truth: True classes ``(N,)``, if known.
        objects: Where the true cause lies, ``(N, H, W)`` of 0 and 1, if known.
    """

    inputs: Tensor
    pictures: Tensor
    names: Sequence[str]
    class_names: Sequence[str]
    truth: Tensor | None = None
    objects: Tensor | None = None

    def class_name(self, index: int) -> str:
        """Return the name of a class."""
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"


@dataclass(frozen=True)
class Plan:
    """How it is explained.

    Attributes:
        methods: Keys of ``METHODS``.
        budget: Masks of RISE and steps of the games.
        shown: How many images the page shows; only these keep their layers' maps.
        judge_layers: Play the deletion game for each layer alone, too.
        seed: Of RISE's masks and of the random maps.
    """

    methods: Sequence[str]
    budget: Budget
    shown: int
    judge_layers: bool
    seed: int


@dataclass(frozen=True)
class Explained:
    """Maps and what they are worth; one row per image, on the CPU.

    Attributes:
        probabilities: Of the predicted class, ``(N,)``.
        predicted: The black box's class, ``(N,)``, which is the one explained.
        student_predicted: The student's class, ``(N,)``, or ``None`` without a student.
        maps: Method → ``(N, 1, H, W)``.
        deletion: Method → scores of the deletion game, ``(N, steps + 1)``.
        insertion: Method → scores of the insertion game, ``(N, steps + 1)``.
        layer_maps: Layer → ``(shown, 1, H, W)``, of the first images.
        layer_shares: Layer → share of the summed map, ``(N,)``.
        layer_deletion: Layer → deletion AUC of its map alone, ``(N,)``; empty if not asked for.
        object_shares: Method → share of the map on the object, ``(N,)``; empty if unknown.
    """

    probabilities: Tensor
    predicted: Tensor
    student_predicted: Tensor | None
    maps: Mapping[str, Tensor]
    deletion: Mapping[str, Tensor]
    insertion: Mapping[str, Tensor]
    layer_maps: Mapping[str, Tensor]
    layer_shares: Mapping[str, Tensor]
    layer_deletion: Mapping[str, Tensor]
    object_shares: Mapping[str, Tensor]


def explain_images(
    explainer: DistilledLayerSumGradCAM, subject: Subject, plan: Plan, device: torch.device
) -> Explained:
    """Explain every image by every method and play both games on the black box.

    Args:
        explainer: With a student that was distilled, or that is the model itself.
        subject: What to explain.
        plan: How.
        device: Where the student runs.
    """
    scores = explainer.box(subject.inputs)
    predicted = scores.argmax(1)
    makers = _makers(explainer, plan)
    found: dict[str, dict[str, list[Tensor]]] = {}
    with tqdm(total=len(predicted) * len(plan.methods), desc="explaining", unit="map") as bar:
        for start in range(0, len(predicted), _AT_ONCE):
            chunk = slice(start, start + _AT_ONCE)
            images, classes = subject.inputs[chunk].to(device), predicted[chunk].to(device)
            for kind, name, rows in _results(explainer, images, classes, start, plan, makers):
                found.setdefault(kind, {}).setdefault(name, []).append(rows.detach().cpu())
                bar.update(len(images) if kind == "insertion" else 0)  # the last of a method
    joined = {
        kind: {name: torch.cat(parts) for name, parts in named.items()}
        for kind, named in found.items()
    }
    return Explained(
        probabilities=scores.max(1).values,
        predicted=predicted,
        student_predicted=joined.get("student", {}).get("predicted"),
        maps=joined["maps"],
        deletion=joined["deletion"],
        insertion=joined["insertion"],
        layer_maps=joined["layer_maps"],
        layer_shares=joined["layer_shares"],
        layer_deletion=joined.get("layer_deletion", {}),
        object_shares=_object_shares(joined["maps"], subject.objects),
    )


def floor_of(method: str) -> Floor:
    """Return which value of a method's maps means no importance.

    RISE's zero means nothing: a pixel that does not matter gets the mean probability.
    """
    return "minimum" if method == METHODS["rise"] else "zero"


def _results(
    explainer: DistilledLayerSumGradCAM,
    images: Tensor,
    classes: Tensor,
    start: int,
    plan: Plan,
    makers: Mapping[str, Maker],
) -> Iterator[tuple[str, str, Tensor]]:
    box = explainer.box
    step = math.ceil(images.shape[-2] * images.shape[-1] / plan.budget.steps)
    for method in plan.methods:
        maps = makers[method](images, classes, start)
        yield "maps", METHODS[method], maps
        yield "deletion", METHODS[method], deletion(box, images, maps, classes, step=step).curve
        yield "insertion", METHODS[method], insertion(box, images, maps, classes, step=step).curve
    for layer, shares in explainer.layer_importance(images, classes, "energy").items():
        yield "layer_shares", layer, shares
    if plan.judge_layers:
        alone = explainer.layer_importance(images, classes, "deletion", step=step)
        for layer, areas in alone.items():
            yield "layer_deletion", layer, areas
    if start < plan.shown:
        for layer, maps in explainer.attribute_per_layer(images, target=classes).items():
            yield "layer_maps", layer, maps
    if explainer.report is not None:
        yield "student", "predicted", _prediction(explainer.student, images)


def _makers(explainer: DistilledLayerSumGradCAM, plan: Plan) -> dict[str, Maker]:
    rise = RISE(explainer.box, masks=plan.budget.masks, seed=plan.seed)

    def layer_sum(images: Tensor, classes: Tensor, _: int) -> Tensor:
        maps: Tensor = explainer.attribute(images, target=classes)
        return maps

    def last_layer(images: Tensor, classes: Tensor, _: int) -> Tensor:
        # Of all that run, whatever layers the sum takes and however it scales them.
        every_layer = LayerSumGradCAM(explainer.student)
        return list(every_layer.attribute_per_layer(images, target=classes).values())[-1]

    def masked(images: Tensor, classes: Tensor, _: int) -> Tensor:
        maps: Tensor = rise.attribute(images, target=classes)
        return maps

    def random(images: Tensor, _: Tensor, start: int) -> Tensor:
        # A generator per image: its map does not depend on how many others there are.
        size = (1, *images.shape[-2:])
        seeds = [plan.seed * 1_000_003 + start + i for i in range(len(images))]
        generators = [torch.Generator().manual_seed(number) for number in seeds]
        return torch.stack([torch.rand(size, generator=each) for each in generators])

    return {"layer-sum": layer_sum, "grad-cam": last_layer, "rise": masked, "random": random}


def _prediction(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad(), evaluating(network):
        classes: Tensor = network(images).argmax(1)
    return classes


def _object_shares(maps: Mapping[str, Tensor], objects: Tensor | None) -> dict[str, Tensor]:
    if objects is None:
        return {}
    shares = {}
    for name, each in maps.items():
        heat = each[:, 0].double()
        lowest = heat.amin((1, 2), keepdim=True)
        heat = heat - lowest if floor_of(name) == "minimum" else heat.clamp(min=0)
        total = heat.sum((1, 2))
        # A map without any heat has none on the object either.
        inside = (heat * objects).sum((1, 2))
        shares[name] = inside / total.where(total > 0, torch.ones_like(total))
    return shares
