"""How much units matter for a network's answers, by silencing them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from captum_blackbox.dissection.network_dissection import NetworkDissection
from captum_blackbox.dissection.replacing import checked_units
from captum_blackbox.errors import InputError, ShapeError, TargetError
from captum_blackbox.hooks import captured, evaluating, out_of_place

LabelledBatches = DataLoader[tuple[Tensor, Tensor]] | Iterable[tuple[Tensor, Tensor]]
"""Batches of model inputs ``(N, C, H, W)`` and their classes ``(N,)``."""

NO_IMAGE = "there is no image; give at least one batch of images and classes"


@dataclass(frozen=True, eq=False)
class UnitEffects:
    """What silencing one unit at a time does to each class.

    Attributes:
        units: Numbers of the units, ``(U,)``.
        score_drop: By how much the mean score (logit) of a class falls on its own images,
            ``(U, classes)``; larger hurts more, below 0 the class gains.
        accuracy_drop: By how much the share of its images that are recognised falls, in [-1, 1].
        images: How many images each class has, ``(classes,)``; without any, its drops are 0.
        accuracy: Share of its images that the whole network recognises, ``(classes,)``.
    """

    units: Tensor
    score_drop: Tensor
    accuracy_drop: Tensor
    images: Tensor
    accuracy: Tensor

    def ranking(self, target: int) -> list[int]:
        """Return the units by how much silencing each hurts a class, worst first.

        By the fall of its accuracy, and of its score where that is the same.
        """
        by_score = self.score_drop[:, target].argsort(descending=True, stable=True)
        by_accuracy = self.accuracy_drop[by_score, target].argsort(descending=True, stable=True)
        return [int(unit) for unit in self.units[by_score[by_accuracy]]]


def unit_effects(
    dissection: NetworkDissection,
    batches: LabelledBatches,
    units: Sequence[int] | None = None,
    *,
    at_a_time: int = 64,
    show_progress: bool = True,
) -> UnitEffects:
    """Silence every unit of a layer in turn and measure what it does to each class.

    The layers before it run once for ``at_a_time`` units, those behind it for each unit.

    Args:
        dissection: Of one layer; its network is left as it was.
        batches: Model inputs and their classes.
        units: Numbers of the units; by default all of the layer.
        at_a_time: Units silenced in one forward pass.
        show_progress: Show a bar that counts images.

    Raises:
        TargetError: A class is out of range of the network's output.
        InputError: There is no image, or no such unit.

    References:
        Zhou et al., "Revisiting the importance of individual units in CNNs via ablation", 2018.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(
        ...     nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
        ... )
        >>> data = [(torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 0, 1, 0, 1]))]
        >>> unit_effects(NetworkDissection(model, "0"), data, show_progress=False).ranking(1)[0] < 4
        True
    """
    if at_a_time < 1:
        raise InputError(f"at_a_time is at least 1, got {at_a_time}")
    chosen = None if units is None else checked_units(list(units))
    sums: _Sums | None = None
    with tqdm(desc="silenced", unit="image", disable=not show_progress) as bar:
        for inputs, labels in labelled_batches(dissection, batches):
            for image, label in zip(inputs.split(1), labels.tolist(), strict=True):
                if chosen is None:
                    chosen = torch.arange(_count_units(dissection, image))
                whole, silenced = _scores(dissection, image, chosen, at_a_time)
                if sums is None:
                    sums = _Sums(len(chosen), len(whole))
                sums.update(whole, silenced, label)
                bar.update()
    if sums is None or chosen is None:
        raise InputError(NO_IMAGE)
    return sums.effects(chosen)


class _Sums:
    def __init__(self, units: int, classes: int) -> None:
        self.drops = torch.zeros(2, units, classes, dtype=torch.float64)
        self.images = torch.zeros(classes, dtype=torch.int64)
        self.right = torch.zeros(classes, dtype=torch.float64)

    def update(self, whole: Tensor, silenced: Tensor, label: int) -> None:
        if not 0 <= label < len(whole):
            raise TargetError(f"class {label} is out of range for {len(whole)} classes")
        is_right = float(whole.argmax() == label)
        stays_right = (silenced.argmax(1) == label).double()
        self.drops[0, :, label] += (whole[label] - silenced[:, label]).double()
        self.drops[1, :, label] += is_right - stays_right
        self.images[label] += 1
        self.right[label] += is_right

    def effects(self, units: Tensor) -> UnitEffects:
        each = self.images.clamp(min=1)
        score_drop, accuracy_drop = self.drops / each
        return UnitEffects(units, score_drop, accuracy_drop, self.images, self.right / each)


def labelled_batches(
    dissection: NetworkDissection, batches: LabelledBatches
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs, on the device of the network, and classes.

    Raises:
        ShapeError: These are no batches of images and classes.
    """
    for inputs, labels in batches:
        if inputs.dim() != 4 or len(inputs) != len(labels):
            raise ShapeError(
                f"expected batches of images (N, C, H, W) and classes (N,), got shapes "
                f"{tuple(inputs.shape)} and {tuple(labels.shape)}"
            )
        yield inputs.to(next(dissection.model.parameters(), inputs).device), labels.cpu()


def _count_units(dissection: NetworkDissection, image: Tensor) -> int:
    with (
        torch.inference_mode(mode=False),  # which turns gradients on
        torch.no_grad(),
        evaluating(dissection.model),
        captured({dissection.layer: dissection.module}) as seen,
    ):
        dissection.model(image.clone())
    return seen[dissection.layer].shape[1]


@torch.no_grad()
def _scores(
    dissection: NetworkDissection, image: Tensor, units: Tensor, at_a_time: int
) -> tuple[Tensor, Tensor]:
    """Return the scores of one image, ``(classes,)``, and without each unit, ``(U, classes)``."""
    model = dissection.model
    with evaluating(model), out_of_place(model):
        whole = model(image.clone())[0]
        parts = []
        for some in units.split(at_a_time):
            groups = list(some[:, None])
            with dissection.silenced(groups):
                parts.append(_copies(model, image, len(groups)))
    return whole.cpu(), torch.cat(parts).cpu()


def _copies(model: nn.Module, image: Tensor, count: int) -> Tensor:
    """Return the scores ``(count, classes)`` of an image that a layer makes several copies of."""
    with suppress(RuntimeError):  # copies do not go together with another branch
        # What lies before the layer runs once; behind it there are several copies.
        scores: Tensor = model(image.clone())  # which the network may overwrite
        if len(scores) == count:
            return scores
    # The network joins the copies to one image, or the scores do not depend on the layer.
    repeated: Tensor = model(image.repeat(count, 1, 1, 1))
    return repeated
