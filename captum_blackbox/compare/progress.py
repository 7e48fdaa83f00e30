"""The numbers of a comparison that is under way, kept in a file as they come."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_blackbox.artifacts import check_header
from captum_blackbox.compare.cost import Cost, Spent
from captum_blackbox.compare.files import read_unfinished, write_comparison
from captum_blackbox.compare.result import Comparison, Failure

_MOST_NOTES = 20  # of a method
_LEAST_WORK = 20  # times as long as writing the file


class Progress:
    """What is known so far; with a file, of an earlier run as well.

    Args:
        methods: Names.
        metrics: Name → whether a higher value is better.
        targets: The class explained for each image, ``(images,)``.
        batches: How many there are.
        settings: What is run; a file with others is refused.
        path: The file, or ``None``.

    Raises:
        ArtifactError: The file belongs to something else; what differs is named.
    """

    def __init__(
        self,
        methods: Sequence[str],
        metrics: Mapping[str, bool],
        targets: Tensor,
        batches: int,
        settings: Mapping[str, Any],
        path: str | Path | None,
    ) -> None:
        self._path = path
        self._saving_seconds = 0.0
        self._saved = time.monotonic()
        shape = (len(methods), len(metrics), len(targets))
        known = Comparison(
            tuple(methods),
            dict(metrics),
            torch.full(shape, torch.nan, dtype=torch.float64),
            targets.cpu(),
            tuple(Cost() for _ in methods),
            settings=settings,
        )
        self.done = torch.zeros(len(methods), batches, dtype=torch.bool)
        if path is not None and Path(path).exists():
            found, done = read_unfinished(path)
            check_header(path, found.settings, settings)
            known, self.done = found, done.expand_as(self.done).clone()
        self._known = known
        self._failures = dict.fromkeys(known.failures)  # in order, each once
        self._notes = list(known.notes)
        self._committed = known

    def add_spent(self, row: int, images: int, spent: Spent) -> None:
        """Add what some images cost."""
        costs, old = list(self._known.costs), self._known.costs[row]
        costs[row] = replace(
            old,
            images=old.images + images,
            forward=old.forward + spent.forward,
            backward=old.backward + spent.backward,
            seconds=old.seconds + spent.seconds,
        )
        self._known = replace(self._known, costs=tuple(costs))

    def set_making(self, row: int, seconds: float) -> None:
        """Keep how long a method took to be made."""
        costs = list(self._known.costs)
        costs[row] = replace(costs[row], making_seconds=seconds)
        self._known = replace(self._known, costs=tuple(costs))

    def set_values(self, row: int, column: int, images: Sequence[int], values: Tensor) -> None:
        """Keep the values of some images."""
        self._known.values[row, column, list(images)] = values.double().cpu()

    def fail(self, failure: Failure) -> None:
        """Keep why there is no number, once."""
        self._failures.setdefault(failure)

    def note(self, method: str, text: str) -> None:
        """Keep a warning, once."""
        note = f"{method}: {text}"
        of_method = sum(each.startswith(f"{method}: ") for each in self._notes)
        if note not in self._notes and of_method < _MOST_NOTES:
            self._notes.append(note)

    def finish(self, row: int, batch: int) -> None:
        """Mark a batch as done, and write the file if that takes little of the time.

        A batch that was left in the middle leaves no cost and no failure behind: it is run again.
        """
        self.done[row, batch] = True
        self._committed = self.result()
        if time.monotonic() - self._saved >= _LEAST_WORK * self._saving_seconds:
            self.save()

    def save(self) -> None:
        """Write what belongs to batches that are done, if there is a file."""
        if self._path is None:
            return
        start = time.monotonic()
        write_comparison(self._path, self._committed, self.done)
        self._saved = time.monotonic()
        self._saving_seconds = self._saved - start

    def result(self) -> Comparison:
        """Return what is known."""
        return replace(self._known, failures=tuple(self._failures), notes=tuple(self._notes))
