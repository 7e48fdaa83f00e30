"""The numbers of fragility curves that are under way, kept in a file as they come."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_blackbox.fragility.curves_result import (
    MEASURES,
    CurveFailure,
    FragilityCurves,
    read_curves,
    write_curves,
)
from captum_blackbox.fragility.curves_settings import check_settings, flattened
from captum_blackbox.fragility.transfer import TRANSFERRED

Cell: TypeAlias = tuple[int, int, int]
"""Which method, mode and radius, from 0."""

_LEAST_WORK = 20  # times as long as writing the file


class Record:
    """The numbers so far; with a file, those of an earlier run as well."""

    def __init__(
        self,
        methods: tuple[str, ...],
        modes: tuple[str, ...],
        judges: tuple[str, ...],
        images: int,
        settings: Mapping[str, Any],
        path: str | Path | None,
    ) -> None:
        radii = tuple(settings["radii"])
        cells = (len(modes), len(radii))
        none: dict[str, Any] = {"fill_value": torch.nan, "dtype": torch.float64}
        values = torch.full((len(methods), *cells, len(MEASURES), images), **none)
        transfer = torch.full((len(methods), len(judges), *cells, len(TRANSFERRED), images), **none)
        self._known = FragilityCurves(
            methods, modes, radii, values, judges, transfer, settings=settings
        )
        self.done = torch.zeros(len(methods), *cells, images, dtype=torch.bool)
        self.failures: list[CurveFailure] = []
        self.first_error: Exception | None = None
        self._path, self._saved, self._saving_seconds = path, time.monotonic(), 0.0
        if path is not None and Path(path).exists():
            found, self.done = read_curves(path)
            check_settings(path, flattened(found.settings), flattened(settings))
            self._known = found

    def keep(self, cell: Cell, rows: Tensor, values: Tensor, transfer: Tensor) -> None:
        """Keep the numbers of some images, and write the file if that takes little of the time."""
        method, mode, radius = cell
        self._known.values[method, mode, radius][:, rows] = values
        self._known.transfer[method, :, mode, radius][..., rows] = transfer.double()
        self.done[method, mode, radius, rows] = True
        if time.monotonic() - self._saved >= _LEAST_WORK * self._saving_seconds:
            self.save()

    def fail(self, cell: Cell, rows: Tensor, error: Exception) -> None:
        """Keep why there is no number; a resumed run tries again."""
        method, mode, radius = cell
        known, reason = self._known, f"{type(error).__name__}: {error}"
        self.first_error = self.first_error or error
        names = known.methods[method], known.modes[mode], known.radii[radius]
        for row, other in enumerate(self.failures):
            if (other.method, other.mode, other.radius, other.reason) == (*names, reason):
                images = (*other.images, *rows.tolist())
                self.failures[row] = CurveFailure(*names, images, reason)
                return
        self.failures.append(CurveFailure(*names, tuple(rows.tolist()), reason))

    def save(self) -> None:
        """Write what is done, if there is a file."""
        if self._path is None:
            return
        start = time.monotonic()
        write_curves(self._path, self.result(), self.done)
        self._saved = time.monotonic()
        self._saving_seconds = self._saved - start

    def result(self) -> FragilityCurves:
        """Return what is known."""
        return replace(self._known, failures=tuple(self.failures))
