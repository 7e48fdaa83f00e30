"""What a comparison found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_blackbox.compare.cost import Cost
from captum_blackbox.compare.names import check_known
from captum_blackbox.compare.ranks import (
    Estimate,
    average_ranks,
    estimate,
    overall_ranks,
    paired,
)
from captum_blackbox.report.comparison import Difference


@dataclass(frozen=True)
class Failure:
    """Something that gave no number.

    Attributes:
        method: Which method.
        metric: Which metric; ``None`` if there is no map to judge.
        image: Which image, from 0; ``None`` for all of them.
        reason: What was raised, or why it makes no sense.
        is_applicable: False if it could never work for this model, or for an image with an empty
            mask, so that nothing went wrong.
    """

    method: str
    metric: str | None
    image: int | None
    reason: str
    is_applicable: bool = True


@dataclass(frozen=True)
class Comparison:
    """Methods judged by metrics on images.

    Attributes:
        methods: Names, as they were given.
        metrics: Name of a metric → whether a higher value is better.
        values: One number for each ``(method, metric, image)``, float64; NaN where there is none.
        targets: The class that was explained for each image, ``(images,)``.
        costs: Of each method.
        failures: Why numbers are missing.
        notes: Warnings that were raised on the way, each once, with the method.
        settings: What was run.
        names: Of the images, as they were given; empty if they are only numbered.

    Example:
        >>> comparison = Comparison(
        ...     ("a", "b"), {"deletion": False},
        ...     torch.tensor([[[0.25, 0.5]], [[0.5, 0.5]]]).double(), torch.zeros(2).long(),
        ...     (Cost(2, 2, 2), Cost(2, 2, 2)))
        >>> comparison.ranks("deletion")
        {'a': 1.25, 'b': 1.75}
        >>> comparison.difference("a", "deletion", "b").mean
        -0.125
    """

    methods: tuple[str, ...]
    metrics: Mapping[str, bool]
    values: Tensor
    targets: Tensor
    costs: tuple[Cost, ...]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """How many images there are."""
        return self.values.shape[2]

    def scores(self, method: str, metric: str) -> Tensor:
        """Return a number per image, ``(images,)``, NaN where there is none.

        Raises:
            InputError: There is no such method or metric.
        """
        return self.values[self._row(method), self._column(metric)]

    def mean(self, method: str, metric: str) -> Estimate:
        """Return the mean over the images with its 95 % bootstrap interval."""
        return estimate(self.scores(method, metric))

    def difference(self, method: str, metric: str, reference: str) -> Difference | None:
        """Return how far a method differs from another on the same images; ``None`` if unknown.

        The interval is that of :func:`~captum_blackbox.report.paired_difference`.
        """
        return paired(self.scores(method, metric), self.scores(reference, metric))

    def ranks(self, metric: str) -> dict[str, float]:
        """Return method → its rank by one metric, averaged over images; 1 is the best.

        Equals share their rank. Methods without a value are not ranked (NaN), and only images count
        on which all others have one.
        """
        column = self._column(metric)
        return dict(zip(self.methods, self._ranks[:, column].tolist(), strict=True))

    @property
    def overall_ranks(self) -> dict[str, float]:
        """Method → the mean of its ranks over the metrics that rank every method.

        Metrics ask different questions, and here each counts the same: read it as a summary of the
        metrics that were chosen, not as a verdict.
        """
        return dict(zip(self.methods, overall_ranks(self._ranks).tolist(), strict=True))

    def cost(self, method: str) -> Cost:
        """Return what a method cost."""
        return self.costs[self._row(method)]

    def to_markdown(self, reference: str | None = None) -> str:
        """Return tables of means, differences to a reference, costs and failures.

        Args:
            reference: The method that others are compared with; by default ``"random"`` if it is
                there, otherwise the first.
        """
        from captum_blackbox.compare.tables import markdown

        return markdown(self, reference)

    def to_csv(self, path: str | Path) -> None:
        """Write a row for each method, metric and image; a missing number is empty.

        Where the images have names, a column tells them. Text that a spreadsheet would take for a
        formula, such as a method ``-x``, gets a ``'`` in front.
        """
        from captum_blackbox.compare.tables import write_csv

        write_csv(self, path)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold; a missing number is ``None``."""
        from captum_blackbox.compare.tables import as_dict

        return as_dict(self)

    def to_json(self, path: str | Path) -> None:
        """Write :meth:`to_dict` to a file."""
        from captum_blackbox.compare.tables import write_json

        write_json(self, path)

    def metric_png(self, metric: str) -> bytes:
        """Draw the means of one metric with their intervals, the best on top."""
        from captum_blackbox.report.compare import metric_png

        means = {name: self.mean(name, metric) for name in self.methods}
        return metric_png(
            {name: (each.mean, each.low, each.high) for name, each in means.items()},
            metric,
            higher_is_better=self.metrics[metric],
        )

    def ranks_png(self) -> bytes:
        """Draw the average ranks of all methods by all metrics, the best on top."""
        from captum_blackbox.report.compare import ranks_png

        return ranks_png({name: self.ranks(name) for name in self.metrics}, self.overall_ranks)

    def save(self, path: str | Path) -> None:
        """Write everything to a safetensors file.

        Raises:
            ArtifactError: The file cannot be written.
        """
        from captum_blackbox.compare.files import write_comparison

        write_comparison(path, self)

    @classmethod
    def load(cls, path: str | Path) -> "Comparison":
        """Read what :meth:`save` wrote, or a file that ``resume`` names and that is complete.

        Raises:
            ArtifactError: There is no such file, it is something else, or it is unfinished.
        """
        from captum_blackbox.compare.files import read_comparison

        return read_comparison(path)

    @cached_property
    def _ranks(self) -> Tensor:
        """Average ranks ``(methods, metrics)``."""
        columns = [
            average_ranks(self.values[:, column], higher)
            for column, higher in enumerate(self.metrics.values())
        ]
        return torch.stack(columns, 1)

    def _row(self, method: str) -> int:
        check_known("method in this comparison", method, self.methods)
        return self.methods.index(method)

    def _column(self, metric: str) -> int:
        check_known("metric in this comparison", metric, self.metrics)
        return list(self.metrics).index(metric)
