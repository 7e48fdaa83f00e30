"""Data read once, in order, by one process or shared out among several."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from torch import Tensor
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from captum_blackbox.artifacts import tensor_bytes
from captum_blackbox.errors import InputError

_BATCH_SIZE = 32


class OnePass:
    """The inputs of a data set, batch by batch, for statistics that no order changes.

    A loader over a map-style data set that shuffles or not is read in the order of the data set,
    so that a run can be resumed where it stopped and processes share the batches out among them.
    Anything else is read as it comes, once; each process takes its share of the batches, but for a
    loader that is one process's share already (``DistributedSampler``, or prepared by Accelerate).

    Args:
        loader: A ``DataLoader`` or any iterable of batches, or one tensor of inputs. A batch is a
            tensor, or a tuple or list that starts with one.
        process: Number of this process.
        processes: How many there are.

    Attributes:
        first: Inputs of the first batch of all.

    Raises:
        InputError: It is nothing of the kind, or has no batch.

    Example:
        >>> import torch
        >>> data = OnePass(torch.arange(70.0).reshape(70, 1))
        >>> [(number, len(batch)) for number, batch in data.batches(start=1)]
        [(1, 32), (2, 6)]
    """

    def __init__(self, loader: Iterable[Any], process: int = 0, processes: int = 1) -> None:
        if isinstance(loader, Tensor):
            loader = loader.split(_BATCH_SIZE)
        if not isinstance(loader, Iterable):
            raise InputError(
                f"expected a DataLoader, an iterable of batches or a tensor, got a "
                f"{type(loader).__name__}"
            )
        if _is_shared_out(loader):
            process, processes = 0, 1
        self._process, self._processes = process, processes
        self._length = _length(loader)
        self._indices = _indices(loader)
        if self._indices is None:
            # One iterator for all: what can be read only once must not be begun twice.
            iterator = iter(loader)
            first = list(islice(iterator, 1))
            self._loader: Any = chain(first, iterator)
        else:
            self._loader = loader
            first = list(islice(_rebuilt(loader, self._indices[:1]), 1))
        if not first:
            raise InputError("the loader gave no batch; give at least one")
        self.first: Tensor = _inputs(first[0], 0)

    def __len__(self) -> int:
        """Return the batches of this process; 0 where the loader does not know."""
        if self._indices is not None:
            return len(self._indices[self._process :: self._processes])
        return len(range(self._process, self._length, self._processes))

    def number_of(self, number: int) -> int:
        """Return the number among all batches of what is this process's batch ``number``."""
        return number * self._processes + self._process

    def digest(self) -> str:
        """Return a hash of the first batch, which tells one collection of inputs from another."""
        found = hashlib.sha256(f"{tuple(self.first.shape)} {self.first.dtype}".encode())
        found.update(tensor_bytes(self.first))
        return found.hexdigest()[:16]

    def batches(self, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Yield number and inputs of each of this process's batches from ``start`` on.

        Raises:
            InputError: A batch is no tensor and does not start with one.
        """
        if self._indices is None:
            own = islice(self._loader, self._process, None, self._processes)
            found = enumerate(own)
        else:
            indices = self._indices[self._process :: self._processes][start:]
            found = enumerate(_rebuilt(self._loader, indices), start)
        for number, batch in found:
            if number >= start:
                yield number, _inputs(batch, number)


def _is_shared_out(loader: Any) -> bool:  # noqa: ANN401
    prepared = type(loader).__module__.partition(".")[0] == "accelerate"
    return prepared or isinstance(getattr(loader, "sampler", None), DistributedSampler)


def _length(loader: Any) -> int:  # noqa: ANN401
    try:
        return len(loader)
    except TypeError:
        return 0


def _indices(loader: Any) -> list[list[int]] | None:  # noqa: ANN401
    """Return the batches of a loader as indices into its data set, in order, if it has such."""
    # A loader with a way of its own through the data is left to it.
    is_plain = isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__
    if not is_plain or isinstance(loader.dataset, IterableDataset):
        return None
    sampler: Any = loader.sampler
    size, total = loader.batch_size, len(loader.dataset)
    is_whole = (
        type(sampler) in (RandomSampler, SequentialSampler)
        and getattr(sampler, "data_source", None) is loader.dataset
        and not getattr(sampler, "replacement", False)
        and len(sampler) == total
    )
    if not is_whole or not size:
        return None
    indices = [list(range(i, min(i + size, total))) for i in range(0, total, size)]
    return indices[: total // size] if loader.drop_last else indices


def _rebuilt(loader: Any, indices: list[list[int]]) -> DataLoader[Any]:  # noqa: ANN401
    return DataLoader(
        loader.dataset,
        batch_sampler=indices,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
    )


def _inputs(batch: Any, number: int) -> Tensor:  # noqa: ANN401
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(first, Tensor) or not first.is_floating_point():
        got = f"{first.dtype}" if isinstance(first, Tensor) else type(first).__name__
        raise InputError(
            f"batch {number}: expected a floating-point tensor, or a tuple that starts with one, "
            f"got {got}"
        )
    if first.numel() == 0:
        raise InputError(f"batch {number} is empty: its shape is {tuple(first.shape)}")
    return first
