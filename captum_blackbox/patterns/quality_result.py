"""Signal quality by estimator, layer and unit, and tables of it."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from captum_blackbox.artifacts import replaced_on_success, write_table


class QualityRow(NamedTuple):
    """The quality of an estimator at a layer, over its units.

    Attributes:
        estimator: Its name.
        layer: Its name.
        mean: Of rho, as are the others; NaN without units.
        lower_quartile: A quarter of the units lies below it.
        median: Half of them do.
        upper_quartile: Three quarters do.
        units: How many units have a rho.
    """

    estimator: str
    layer: str
    mean: float
    lower_quartile: float
    median: float
    upper_quartile: float
    units: int


class SignalQuality(Mapping[str, Mapping[str, Tensor]]):
    """rho by estimator, layer and unit: ``quality["linear"]["features.0"]`` is ``(units,)``.

    Higher is better. A unit without a rho has NaN: its output is constant, its pattern is zero, or
    the layer is so wide that the unit was left out.

    Args:
        rho: Estimator → layer → rho of each unit.

    Example:
        >>> quality = SignalQuality({"linear": {"0": torch.tensor([0.5, 1.0, torch.nan])}})
        >>> quality["linear"]["0"]
        tensor([0.5000, 1.0000,    nan])
        >>> quality.table()[0].mean, quality.table()[0].units
        (0.75, 2)
    """

    def __init__(self, rho: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._rho = {name: MappingProxyType(dict(layers)) for name, layers in rho.items()}

    def __getitem__(self, estimator: str) -> Mapping[str, Tensor]:
        """Return layer → rho of an estimator."""
        return self._rho[estimator]

    def __iter__(self) -> Iterator[str]:
        """Go through the names of the estimators."""
        return iter(self._rho)

    def __len__(self) -> int:
        """Return the number of estimators."""
        return len(self._rho)

    def table(self) -> list[QualityRow]:
        """Return a row for each estimator and layer, over the units that have a rho."""
        return [
            _summary(estimator, layer, rho)
            for estimator, layers in self.items()
            for layer, rho in layers.items()
        ]

    def to_csv(self, path: str | Path) -> None:
        """Write the table; a number that is not known is an empty field.

        Raises:
            ArtifactError: The file cannot be written.
        """
        rows = ([_known(value) for value in row] for row in self.table())
        write_table(path, [QualityRow._fields, *rows])

    def to_json(self, path: str | Path) -> None:
        """Write ``{"rho": {estimator: {layer: [by unit]}}, "table": [rows]}``; NaN becomes null.

        Raises:
            ArtifactError: The file cannot be written.
        """
        rho = {
            estimator: {layer: [_known(one) for one in rho.tolist()] for layer, rho in each.items()}
            for estimator, each in self.items()
        }
        rows = [
            {key: _known(value) for key, value in row._asdict().items()} for row in self.table()
        ]
        text = json.dumps({"rho": rho, "table": rows}, indent=1, allow_nan=False)
        with replaced_on_success(path) as temporary:
            temporary.write_text(text + "\n")


def _summary(estimator: str, layer: str, rho: Tensor) -> QualityRow:
    known = rho[~rho.isnan()].double()
    if len(known) == 0:
        return QualityRow(estimator, layer, math.nan, math.nan, math.nan, math.nan, 0)
    levels = torch.tensor([0.25, 0.5, 0.75], dtype=known.dtype, device=known.device)
    low, middle, high = known.quantile(levels).tolist()
    return QualityRow(estimator, layer, known.mean().item(), low, middle, high, len(known))


def _known(value: str | int | float) -> str | int | float | None:
    return None if isinstance(value, float) and math.isnan(value) else value
