"""An unfinished dissection on disk."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_blackbox.artifacts import check_header, load_artifact, save_artifact
from captum_blackbox.dissection.layer_run import LayerRun
from captum_blackbox.errors import ArtifactError
from captum_blackbox.statistics import Statistic, TopFraction

_ACTIVATIONS, _COUNTS = "activations.safetensors", "counts.safetensors"
_CELLS = "cells-*.safetensors"


class Checkpoint:
    """What each phase of a run has gathered, in a folder of its own; each process has one.

    Active cells are written once, each time those that are new; everything else is replaced.

    Args:
        folder: Made where it is missing.
        header: What the run depends on; a folder of another run is refused.
        every: Batches between two writings.
        process: Number of this process and of all.
    """

    def __init__(
        self, folder: Path, header: Mapping[str, Any], every: int, process: tuple[int, int]
    ) -> None:
        number, processes = process
        _check_shares(folder, processes)
        self._shared = folder
        self._folder = folder / f"{number}-of-{processes}" if processes > 1 else folder
        self._header = json.loads(json.dumps({**header, "process": [number, processes]}))
        self._every = every

    def resume_activations(self, layers: Sequence[LayerRun], broken: Statistic) -> int:
        """Take up the first phase; return how many batches are done."""
        done = self._load(_ACTIVATIONS, _watching(layers, broken))
        for path in sorted(self._folder.glob(_CELLS)):
            tensors, header = load_artifact(path)
            check_header(path, header, self._header)
            for layer in layers:
                if isinstance(layer.top, TopFraction):
                    layer.store.load(_part(tensors, layer.name), done, layer.top.bound)
        return done

    def save_activations(
        self, layers: Sequence[LayerRun], broken: Statistic, done: int, *, is_end: bool = False
    ) -> None:
        """Write the first phase, if it is time or the end."""
        if not is_end and done % self._every:
            return
        cells = {
            f"{layer.name}|{name}": tensor
            for layer in layers
            for name, tensor in layer.store.unsaved().items()
        }
        if cells:
            path = self._folder / _CELLS.replace("*", f"{done:08d}")
            save_artifact(path, cells, self._header)
        self._save(_ACTIVATIONS, _watching(layers, broken), done)

    def resume_counts(self, layers: Sequence[LayerRun], broken: Statistic) -> int:
        """Take up the second phase; return how many batches are done."""
        return self._load(_COUNTS, _counting(layers, broken))

    def save_counts(self, layers: Sequence[LayerRun], broken: Statistic, done: int) -> None:
        """Write the second phase, if it is time."""
        if done % self._every == 0:
            self._save(_COUNTS, _counting(layers, broken), done)

    def remove(self) -> None:
        """Delete what was written, and the folder if nothing else is in it."""
        for pattern in (_ACTIVATIONS, _COUNTS, _CELLS):
            for path in self._folder.glob(pattern):
                path.unlink()
        for folder in (self._folder, self._shared):
            with contextlib.suppress(OSError):  # not empty, or another process was first
                folder.rmdir()

    def _load(self, name: str, statistics: Mapping[str, Statistic]) -> int:
        path = self._folder / name
        if not path.is_file():
            return 0
        tensors, header = load_artifact(path)
        check_header(path, header, self._header)
        for key, statistic in statistics.items():
            statistic.load_state(_part(tensors, key))
        return int(tensors["done"])

    def _save(self, name: str, statistics: Mapping[str, Statistic], done: int) -> None:
        tensors = {
            f"{key}|{part}": tensor
            for key, statistic in statistics.items()
            for part, tensor in statistic.state().items()
        }
        save_artifact(self._folder / name, {**tensors, "done": torch.tensor(done)}, self._header)


def _check_shares(folder: Path, processes: int) -> None:
    """Refuse to begin anew beside the shares of another number of processes.

    Raises:
        ArtifactError: There are such.
    """
    shares = {"1"} if (folder / _ACTIVATIONS).is_file() else set()
    for path in folder.glob(f"*-of-*/{_ACTIVATIONS}"):
        shares.add(path.parent.name.rpartition("-of-")[2])
    for share in shares:
        if share != str(processes):
            raise ArtifactError(
                f"{str(folder)!r} keeps an unfinished run of {share} processes, and now there are "
                f"{processes}; start as many as then, or choose another folder"
            )


def _watching(layers: Sequence[LayerRun], broken: Statistic) -> dict[str, Statistic]:
    found: dict[str, Statistic] = {"broken images": broken}
    for layer in layers:
        found |= {f"{layer.name} top": layer.top, f"{layer.name} best": layer.best}
    return found


def _counting(layers: Sequence[LayerRun], broken: Statistic) -> dict[str, Statistic]:
    return {"broken labels": broken, **{f"{layer.name} tally": layer.tally for layer in layers}}


def _part(tensors: Mapping[str, Tensor], key: str) -> dict[str, Tensor]:
    start = f"{key}|"
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }
