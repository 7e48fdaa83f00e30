"""The numbers of a comparison that is under way, kept in a file as they come."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_blackbox.compare.continuing import continued, to_try_again
from captum_blackbox.compare.cost import Cost, Spent
from captum_blackbox.compare.files import read_unfinished, write_comparison
from captum_blackbox.compare.result import Comparison, Failure

_MOST_NOTES = 20  # of a method
_LEAST_WORK = 20  # times as long as writing the file


class Progress:
    """What is known so far; with a file, of an earlier run as well.

    An image on which something failed, in that run, for a reason that may have passed is left to be
    done. Until it is, the failure stands.

    Args:
        methods: Names.
        metrics: Name → whether a higher value is better.
        targets: The class explained for each image, ``(images,)``.
        settings: What is run; a file with others is refused.
        path: The file, or ``None``.
        lost: Images whose class is unknown now; a file may know it.
        names: Of the images; empty if they have none.

    Raises:
        ArtifactError: The file belongs to something else; what differs is named.
    """

    def __init__(
        self,
        methods: Sequence[str],
        metrics: Mapping[str, bool],
        targets: Tensor,
        settings: Mapping[str, Any],
        path: str | Path | None,
        *,
        lost: Collection[int] = (),
        names: Sequence[str] = (),
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
            names=tuple(names),
        )
        self._done = torch.zeros(len(methods), len(targets), dtype=torch.bool)
        if path is not None and Path(path).exists():
            found, self._done = read_unfinished(path)
            known = continued(path, found, known, lost)
        self._left = ~self._done | to_try_again(known)
        self._earlier = [each for each in known.failures if each.is_applicable]
        self._failures = dict.fromkeys(each for each in known.failures if not each.is_applicable)
        self._notes = list(known.notes)
        self._known = known
        self._committed = self._snapshot()

    def left(self, row: int, images: Iterable[int]) -> list[int]:
        """Return those of some images that a method has still to do."""
        return [image for image in images if self._left[row, image]]

    def has_value(self, row: int, column: int, image: int) -> bool:
        """Tell whether there is a number already."""
        return bool(self._known.values[row, column, image].isfinite())

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

    def finish(self, row: int, images: Sequence[int]) -> None:
        """Mark images of a method as done, and write the file if that takes little of the time.

        Those that were left in the middle leave no number, cost and failure behind: they are run
        again.
        """
        self._done[row, list(images)] = True
        self._left[row, list(images)] = False
        self._committed = self._snapshot()
        if time.monotonic() - self._saved >= _LEAST_WORK * self._saving_seconds:
            self.save()

    def save(self) -> None:
        """Write what belongs to images that are done, if there is a file."""
        if self._path is None:
            return
        start = time.monotonic()
        write_comparison(self._path, self._committed, self._done)
        self._saved = time.monotonic()
        self._saving_seconds = self._saved - start

    def result(self) -> Comparison:
        """Return what is known, failures in the order of methods, metrics and images."""
        standing = (each for each in self._earlier if self._is_left(each))
        failures = sorted(dict.fromkeys([*standing, *self._failures]), key=self._place)
        return replace(self._known, failures=tuple(failures), notes=tuple(self._notes))

    def _snapshot(self) -> Comparison:
        return replace(self.result(), values=self._known.values.clone())

    def _is_left(self, failure: Failure) -> bool:
        of_method = self._left[self._known.methods.index(failure.method)]
        return bool(of_method.any() if failure.image is None else of_method[failure.image])

    def _place(self, failure: Failure) -> tuple[int, int, int]:
        metrics, image = [None, *self._known.metrics], failure.image
        return (
            self._known.methods.index(failure.method),
            metrics.index(failure.metric),
            -1 if image is None else image,
        )
