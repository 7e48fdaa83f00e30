"""Whether units that detect a concept matter more than units that detect none."""

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_blackbox.dissection.network_dissection import NetworkDissection
from captum_blackbox.dissection.silencing import NO_IMAGE, LabelledBatches, labelled_batches
from captum_blackbox.errors import InputError
from captum_blackbox.hooks import evaluating


@dataclass(frozen=True, eq=False)
class PairedSilencing:
    """What silencing detectors does, against as many units that detect nothing.

    Attributes:
        size: How many units were silenced at a time.
        accuracy: Of the whole network.
        detectors: Accuracy with random detectors silenced, ``(draws,)``.
        others: Accuracy with as many other units silenced, ``(draws,)``.
    """

    size: int
    accuracy: float
    detectors: Tensor
    others: Tensor

    @property
    def share(self) -> float:
        """In how many draws the detectors mattered more, in [0, 1]; ties count half."""
        more = (self.detectors < self.others).double()
        return float((more + (self.detectors == self.others).double() / 2).mean())


def detectors_against_others(
    dissection: NetworkDissection,
    batches: LabelledBatches,
    *,
    size: int | None = None,
    draws: int = 20,
    seed: int = 0,
    show_progress: bool = True,
) -> PairedSilencing:
    """Check whether units that detect a concept matter more than units that detect none.

    Args:
        dissection: Of one layer, with a result.
        batches: Model inputs and their classes; read once.
        size: How many units to silence at a time; by default half of the smaller group.
        draws: Pairs of random groups.
        seed: Of the draws.
        show_progress: Show a bar that counts images.

    Raises:
        InputError: One of the groups is smaller than ``size``, or there is no draw or no image.
    """
    result = dissection.result
    is_detector = result.iou.amax(1) > dissection.settings.iou_threshold
    groups = [is_detector.nonzero().flatten(), (~is_detector).nonzero().flatten()]
    smaller = min(len(group) for group in groups)
    size = max(1, smaller // 2) if size is None else size
    if not 1 <= size <= smaller:
        raise InputError(
            f"{len(groups[0])} units detect a concept and {len(groups[1])} do not; size must be "
            f"between 1 and {smaller}, got {size}"
        )
    if draws < 1:
        raise InputError(f"draws is at least 1, got {draws}")
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        group[torch.randperm(len(group), generator=generator)[:size]]
        for _ in range(draws)
        for group in groups
    ]
    right, total = torch.zeros(1 + len(drawn), dtype=torch.float64), 0
    with tqdm(desc="silenced", unit="image", disable=not show_progress) as bar:
        for inputs, labels in labelled_batches(dissection, batches):
            for place, units in enumerate([None, *drawn]):
                right[place] += _count_right(dissection, inputs.clone(), labels, units)
            total += len(labels)
            bar.update(len(labels))
    if total == 0:
        raise InputError(NO_IMAGE)
    accuracy = right / total
    detectors, others = accuracy[1:].view(draws, 2).T
    return PairedSilencing(size, float(accuracy[0]), detectors, others)


@torch.no_grad()
def _count_right(
    dissection: NetworkDissection, inputs: Tensor, labels: Tensor, units: Tensor | None
) -> int:
    with ExitStack() as blocks:
        blocks.enter_context(evaluating(dissection.model))
        if units is not None:
            blocks.enter_context(dissection.silenced([units]))
        scores = dissection.model(inputs)
    return int((scores.argmax(1).cpu() == labels).sum())
