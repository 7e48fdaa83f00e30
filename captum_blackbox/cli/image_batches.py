"""Images to fit to, read batch by batch: a folder may hold more than fits into memory."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor

from captum_blackbox.cli.images import (
    Preparation,
    files_in,
    no_image,
    readable,
    why_unreadable,
)
from captum_blackbox.cli.messages import say
from captum_blackbox.concepts import Scenes
from captum_blackbox.concepts.image_loading import UNREADABLE


class ImageBatches:
    """Files, read again in every pass, by several threads; what is broken is left out.

    Args:
        files: Of images; at least one.
        preparation: How to read an image.
        batch_size: How many at a time.

    Attributes:
        skipped: Path of a file → why it was left out; complete after one pass.
        told: The same, as far as the user knows.
    """

    def __init__(self, files: Sequence[Path], preparation: Preparation, batch_size: int) -> None:
        self._files = files
        self._preparation = preparation
        self._batch_size = batch_size
        self.skipped: dict[str, str] = {}
        self.told: dict[str, str] = {}

    def tell(self) -> None:
        """Tell which files were left out, each of them once."""
        for path, reason in self.skipped.items():
            if path not in self.told:
                say(f"skipped {path}: {reason}")
        self.told.update(self.skipped)

    def __len__(self) -> int:
        """Return how many batches there are, where no file is broken."""
        return -(-len(self._files) // self._batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the model's inputs ``(n, C, size, size)``."""
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(self._files), self._batch_size):
                chunk = self._files[start : start + self._batch_size]
                pictures = [each for each in pool.map(self._read, chunk) if each is not None]
                if pictures:
                    yield self._preparation.normalised(torch.stack(pictures))

    def first(self) -> Tensor:
        """Return the first batch.

        Raises:
            InputError: No file can be read.
        """
        for batch in self:
            return batch
        raise no_image([path.parent for path in self._files[:1]], self.skipped)

    def identity(self) -> str:
        """Return a hash of which files these are and how they are read."""
        state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self._files]
        text = json.dumps([str(self._preparation), self._batch_size, state])
        return hashlib.sha256(text.encode()).hexdigest()

    def _read(self, path: Path) -> Tensor | None:
        try:
            return self._preparation.picture(path)
        except UNREADABLE as error:
            self.skipped[readable(path)] = why_unreadable(error)
            return None


class SceneBatches:
    """Rendered scenes, for the built-in network."""

    def __init__(self, count: int, seed: int, preparation: Preparation, batch_size: int) -> None:
        self._scenes = Scenes(count, seed=seed, size=preparation.size)
        self._preparation = preparation
        self._batch_size = batch_size
        self.skipped: dict[str, str] = {}

    def tell(self) -> None:
        """Tell nothing: scenes are never left out."""

    def __len__(self) -> int:
        """Return how many batches there are."""
        return -(-len(self._scenes) // self._batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the model's inputs ``(n, 3, size, size)``."""
        for start in range(0, len(self._scenes), self._batch_size):
            places = range(start, min(start + self._batch_size, len(self._scenes)))
            images = torch.stack([self._scenes[i][0] for i in places])
            yield self._preparation.normalised(images)

    def first(self) -> Tensor:
        """Return the first batch."""
        return next(iter(self))

    def identity(self) -> str:
        """Return which scenes these are and how they are read."""
        scenes = self._scenes
        return f"{len(scenes)} scenes {scenes.seed} {self._preparation} {self._batch_size}"


Batches: TypeAlias = ImageBatches | SceneBatches


def image_files(places: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """Return the files that are images by their first bytes, and path → reason of the others.

    Raises:
        InputError: There is none.
    """
    found: list[Path] = []
    skipped: dict[str, str] = {}
    for path, _ in files_in(places):
        try:
            Image.open(path).close()
            found.append(path)
        except UNREADABLE as error:
            skipped[readable(path)] = why_unreadable(error)
    if not found:
        raise no_image(places, skipped)
    return found, skipped
