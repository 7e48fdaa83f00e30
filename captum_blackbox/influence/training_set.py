"""The points a network was trained on, in their order, a few at a time."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from captum_blackbox.errors import DataError, InputError


class Points(NamedTuple):
    """Some points, on one device.

    Attributes:
        inputs: ``(B, …)`` in the precision that is calculated in.
        targets: ``(B,)`` class numbers, or ``(B, …)`` numbers in that precision.
    """

    inputs: Tensor
    targets: Tensor


class TrainingSet:
    """A map-style data set whose item ``i`` is always the same: a training point's number is ``i``.

    Args:
        dataset: Has a length; its items are pairs (input, target).
        batch_size: How many points are in memory at a time.
        like: A tensor whose device and dtype the points get.

    Raises:
        InputError: It is a loader or has no length, it is empty, or ``batch_size`` is below 1.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> digits = TensorDataset(torch.rand(5, 1, 4, 4), torch.arange(5))
        >>> points = TrainingSet(digits, batch_size=2, like=torch.zeros(0))
        >>> [batch.targets.tolist() for batch in points.batches()]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, dataset: Dataset[Any] | Sequence[Any], batch_size: int, like: Tensor
    ) -> None:
        if isinstance(dataset, DataLoader):
            raise InputError(
                "train_dataset is a data set, whose order numbers the training points, and no "
                "loader, which may shuffle; give loader.dataset"
            )
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise InputError(
                "train_dataset needs a length and numbered items, got "
                f"{type(dataset).__name__}; a list of pairs (input, target) will do"
            )
        points: Any = dataset
        if len(points) == 0:
            raise InputError("train_dataset is empty; give at least one pair (input, target)")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.dataset = points
        self.batch_size = batch_size
        self._like = like

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.dataset)

    def batches(
        self, show_progress: bool = False, title: str = "training points"
    ) -> Iterator[Points]:
        """Go through all points in their order."""
        with tqdm(total=len(self), desc=title, disable=not show_progress) as bar:
            for first in range(0, len(self), self.batch_size):
                points = self.some(range(first, min(first + self.batch_size, len(self))))
                yield points
                bar.update(len(points.inputs))

    def some(self, numbers: Sequence[int]) -> Points:
        """Return the points of these numbers.

        Raises:
            DataError: An item is no pair (input, target), or inputs are no floating-point tensors
                of one size.
        """
        items = [self.dataset[number] for number in numbers]
        for number, item in zip(numbers, items, strict=True):
            if not isinstance(item, tuple | list) or len(item) != 2:
                raise DataError(
                    "a training point is a pair (input, target), got "
                    f"{type(item).__name__} for item {number}"
                )
        try:
            inputs, targets = default_collate([tuple(item) for item in items])
        except (RuntimeError, TypeError) as error:
            raise DataError(
                f"training points {numbers[0]} … {numbers[-1]} cannot be stacked: {error}"
            ) from error
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            got = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
            raise DataError(f"inputs of training points are floating-point tensors, got {got}")
        return Points(inputs.detach().to(self._like), self.placed_targets(targets))

    def placed_targets(self, targets: object) -> Tensor:
        """Return targets on the device; numbers that are no class in the precision used."""
        placed = torch.as_tensor(targets, device=self._like.device).detach()
        return placed.to(self._like.dtype) if placed.is_floating_point() else placed.long()
