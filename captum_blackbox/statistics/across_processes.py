"""One result where several processes have each seen a part of the data."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from captum_blackbox.statistics.running import Statistic

_MOST_AXES = 8


def this_process() -> tuple[int, int]:
    """Return the number of this process and of all; those of a launcher form a group first.

    Example:
        >>> this_process()
        (0, 1)
    """
    names = ("WORLD_SIZE", "RANK", "MASTER_ADDR")  # what launchers set
    launched = all(name in os.environ for name in names) and int(os.environ["WORLD_SIZE"]) > 1
    if not launched and not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    if not distributed.is_initialized():
        from accelerate import PartialState

        PartialState()  # opens the group that the launcher has prepared
    return distributed.get_rank(), distributed.get_world_size()


def merge_across_processes(statistics: Mapping[str, Statistic]) -> None:
    """Leave every process of a ``torch.distributed`` group with the merge of all.

    The first process merges what the others have gathered, in the order of their ranks, and sends
    the result to all, so that it is the same to the last bit. One process without a group keeps
    what it has. To divide the data is up to the caller; a process that got none takes part too.

    Memory: beside its own, a process holds the state of one statistic at a time.

    Args:
        statistics: Name → statistic; the same names and settings, in the same order, in all
            processes.

    Example:
        >>> merge_across_processes({})  # alone there is nothing to do
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    if processes == 1:
        return
    for statistic in statistics.values():
        if rank == 0:
            for other in range(1, processes):
                theirs = statistic.empty()
                theirs.load_state(_receive(theirs, other))
                statistic.merge(theirs)
        else:
            _send(statistic)
        _broadcast(statistic, rank)


@contextmanager
def failing_together() -> Iterator[None]:
    """Let no process of a group wait for one that has failed in the block: all of them raise.

    Raises:
        RuntimeError: The block failed in another process; in the one where it did, its own error.

    Example:
        >>> with failing_together():  # alone it changes nothing
        ...     pass
    """
    alone = not (distributed.is_available() and distributed.is_initialized())
    try:
        yield
    except Exception:
        if not alone:
            _any(True)
        raise
    if not alone and _any(False):
        raise RuntimeError("another process failed; its own message says why")


def _any(failed: bool) -> bool:
    flag = torch.tensor([float(failed)], device=_device())
    distributed.all_reduce(flag)
    return bool(flag > 0)


def _send(statistic: Statistic) -> None:
    state = statistic.state()
    distributed.send(_shapes(state), 0)
    for tensor in state.values():
        if tensor.numel():
            distributed.send(_here(tensor), 0)


def _receive(statistic: Statistic, rank: int) -> dict[str, Tensor]:
    state = statistic.state()
    shapes = torch.empty_like(_shapes(state))
    distributed.recv(shapes, rank)
    received = _like(state, shapes)
    for tensor in received.values():
        if tensor.numel():
            distributed.recv(tensor, rank)
    return received


def _broadcast(statistic: Statistic, rank: int) -> None:
    state = statistic.state()
    shapes = _shapes(state)
    distributed.broadcast(shapes, 0)
    tensors = (
        {name: _here(tensor) for name, tensor in state.items()}
        if rank == 0
        else _like(state, shapes)
    )
    for tensor in tensors.values():
        if tensor.numel():
            distributed.broadcast(tensor, 0)
    if rank != 0:
        statistic.load_state(tensors)


def _shapes(state: Mapping[str, Tensor]) -> Tensor:
    """Return one row for each tensor: how many axes, and their sizes."""
    rows = [
        [tensor.dim(), *tensor.shape, *(0,) * (_MOST_AXES - tensor.dim())]
        for tensor in state.values()
    ]
    return torch.tensor(rows, device=_device())


def _like(state: Mapping[str, Tensor], shapes: Tensor) -> dict[str, Tensor]:
    """Return tensors of the names and dtypes of ``state``, in these shapes, to be filled."""
    rows: list[list[int]] = shapes.tolist()
    return {
        name: torch.empty(sizes[:axes], dtype=tensor.dtype, device=_device())
        for (name, tensor), (axes, *sizes) in zip(state.items(), rows, strict=True)
    }


def _here(tensor: Tensor) -> Tensor:
    return tensor.to(_device()).contiguous()


def _device() -> torch.device:
    """Return where the group can exchange tensors."""
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
