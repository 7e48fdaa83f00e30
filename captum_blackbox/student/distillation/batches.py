"""Images in batches whose order is a function of (seed, epoch), shared out among processes."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler

from captum_blackbox.artifacts import tensor_bytes
from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.student.distillation.random_state import generator_from

Data: TypeAlias = DataLoader[Any] | Dataset[Any] | Tensor | Sequence[Any]
"""Images, or pairs (image, label): a loader, a map-style data set, a list, or ``(N, C, H, W)``."""


class Batch(NamedTuple):
    """What one process gets of one step.

    Attributes:
        images: ``(n, C, H, W)``.
        labels: ``(n,)`` int64, if the data has labels.
        total: Images of this step in all processes together.
    """

    images: Tensor
    labels: Tensor | None
    total: int


class Batches:
    """A source of images, read epoch by epoch.

    A tensor, a map-style data set, and a loader that goes through a map-style data set in order or
    shuffled are read in an order of our own, a permutation of (seed, epoch), so that any epoch can
    be read again exactly; of such a loader the data set, batch size, collation and workers are
    used. An epoch is cut into batches of nearly equal size, so that no batch of a single image is
    left over (BatchNorm cannot learn from one), and each is shared out among the processes. A
    loader with a sampler of its own, or of an iterable data set, is read as it is.

    Args:
        data: The images.
        batch_size: Images of one process in one step, at most; a loader brings its own.
        shuffle: Whether to shuffle a tensor or data set; a loader says so itself.
        seed: Of the order.
        process: Number of this process.
        processes: How many there are.

    Raises:
        InputError: The data is empty, is of another kind, or cannot be shared out.

    Example:
        >>> images = torch.arange(5.0).reshape(5, 1, 1, 1)
        >>> batches = Batches(images, 2, shuffle=False)
        >>> [batch.images.flatten().tolist() for batch in batches.epoch(0)]
        [[0.0, 1.0], [2.0, 3.0], [4.0]]
    """

    def __init__(
        self,
        data: Data,
        batch_size: int = 64,
        *,
        shuffle: bool,
        seed: int = 0,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self._seed, self._process, self._processes = seed, process, processes
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self._loader: DataLoader[Any] | None = None
        self._settings: dict[str, Any] = {}
        self._drop_last = False
        if isinstance(data, DataLoader) and not _is_ordinary(data):
            if processes > 1:
                raise InputError(
                    "a loader with a sampler of its own cannot be shared out among "
                    f"{processes} processes; give its data set instead"
                )
            self._loader, self.images = data, None
            return
        if isinstance(data, DataLoader):
            shuffle = isinstance(data.sampler, RandomSampler)
            batch_size, self._drop_last = data.batch_size or 1, data.drop_last
            self._settings = _workers(data)
            data = data.dataset
        self._dataset, self._shuffle = _map_style(data), shuffle
        self._batch_size = batch_size * processes
        self.images = len(self._dataset)
        if self.images == 0:
            raise InputError("the data is empty; give at least one image")
        least = self._batch_size if self._drop_last else processes
        if self.images < least:
            raise InputError(
                f"the data has {self.images} images, too few for {processes} processes"
                + (f" and one full batch of {self._batch_size}" if self._drop_last else "")
            )

    @property
    def steps(self) -> int | None:
        """Steps in one epoch; ``None`` where the loader does not know."""
        if self._loader is not None:
            return len(self._loader) if hasattr(self._loader.dataset, "__len__") else None
        return len(self._order(0))

    def digest(self) -> str | None:
        """Return a hash of the first and the last image; ``None`` for a loader of the user.

        It tells one collection of images from another. Data that is drawn at random must be seeded
        before.
        """
        if self._loader is not None or self.images is None:
            return None
        found = hashlib.sha256()
        for index in sorted({0, self.images - 1}):
            item = self._dataset[index]
            image = item[0] if isinstance(item, tuple | list) else item
            if isinstance(image, Tensor):
                found.update(f"{tuple(image.shape)} {image.dtype}".encode())
                found.update(tensor_bytes(image))
        return found.hexdigest()[:16]

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; a loader of the user may draw from the global state."""
        if self._loader is not None:
            empty = True
            for raw in self._loader:
                empty = False
                yield _as_batch(raw, None)
            if empty:
                raise InputError("the loader gave no batch; give at least one image")
            return
        order = self._order(number)
        own = [batch[self._process :: self._processes].tolist() for batch in order]
        loader = DataLoader(
            self._dataset,
            batch_sampler=own,
            generator=generator_from(self._seed, 1, number, self._process),
            **self._settings,
        )
        for raw, batch in zip(loader, order, strict=True):
            yield _as_batch(raw, len(batch))

    def _order(self, number: int) -> tuple[Tensor, ...]:
        count = len(self._dataset)
        order = torch.arange(count)
        if self._shuffle:
            order = torch.randperm(count, generator=generator_from(self._seed, 0, number))
        if self._drop_last:
            return tuple(order[: count - count % self._batch_size].split(self._batch_size))
        # Few enough that every process gets an image of each.
        batches = min(-(-count // self._batch_size), count // self._processes)
        return tuple(order.tensor_split(batches))


def _is_ordinary(loader: DataLoader[Any]) -> bool:
    sampler = loader.sampler
    if loader.batch_size is None or not hasattr(loader.dataset, "__getitem__"):
        return False
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    return type(sampler) is SequentialSampler


def _workers(loader: DataLoader[Any]) -> dict[str, Any]:
    names = ["collate_fn", "num_workers", "pin_memory", "timeout", "worker_init_fn"]
    if loader.num_workers > 0:
        names += ["multiprocessing_context", "prefetch_factor"]
    return {name: getattr(loader, name) for name in names}


def _map_style(data: Any) -> Any:  # noqa: ANN401 - any map-style data set
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise InputError(
            "expected a DataLoader, a map-style data set (with __getitem__ and __len__) or a "
            f"tensor of images, got {type(data).__name__}"
        )
    return data


def _as_batch(raw: Any, total: int | None) -> Batch:  # noqa: ANN401 - whatever the data gives
    parts = [raw] if isinstance(raw, Tensor) else raw
    if not isinstance(parts, tuple | list) or not 1 <= len(parts) <= 2:
        raise InputError(
            "the data must give images or pairs (image, label), got "
            + (f"{len(parts)} parts" if isinstance(parts, tuple | list) else type(raw).__name__)
        )
    images, labels = parts[0], parts[1] if len(parts) == 2 else None
    if not isinstance(images, Tensor) or images.dim() != 4 or not images.is_floating_point():
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else raw
        raise ShapeError(
            "the data must give floating-point images (C, H, W), batched to (N, C, H, W), got "
            f"{got if isinstance(images, Tensor) else type(images).__name__}"
        )
    if labels is not None and (
        not isinstance(labels, Tensor)
        or labels.shape != images.shape[:1]
        or labels.is_floating_point()
    ):
        got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise ShapeError(f"labels must be one integer per image, ({len(images)},), got {got}")
    return Batch(
        images, None if labels is None else labels.long(), len(images) if total is None else total
    )
