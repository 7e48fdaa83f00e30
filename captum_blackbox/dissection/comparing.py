"""Dissections side by side: layers, networks, checkpoints, quantiles, rotations."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from captum_blackbox.artifacts import write_table
from captum_blackbox.concepts.concepts import Concepts
from captum_blackbox.dissection.layer_dissector import LayerDissector
from captum_blackbox.dissection.result import Dissection
from captum_blackbox.errors import InputError


@dataclass(frozen=True, eq=False)
class DissectionComparison:
    """Results of which one thing differs.

    Attributes:
        varied: What differs.
        results: What it is there → result.
        values: The same as numbers, where they are numbers.

    Raises:
        InputError: There is no result.
    """

    varied: str
    results: Mapping[str, Dissection]
    values: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check that there is something to compare."""
        if not self.results:
            raise InputError(f"there is nothing to compare; give at least one {self.varied}")

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each result: how many units detect how many concepts.

        ``unique`` is the number of unique detectors, as the paper's figures count them; after it
        stands their number in each category. ``mean_best_iou`` is the mean of the units' best IoU.
        """
        rows = []
        for name, result in self.results.items():
            count = result.count("per_category")
            unique = {category: len(found) for category, found in count.concepts.items()}
            rows.append(
                {
                    self.varied: name,
                    "units": count.units,
                    "detectors": count.units_with_any,
                    "unique": count.total_unique,
                    **unique,
                    "mean_best_iou": float(result.iou.amax(1).mean()),
                }
            )
        return rows

    def to_csv(self, path: str | Path) -> None:
        """Write the table."""
        write_table(path, self._lines())

    def __str__(self) -> str:
        """Return the table as Markdown."""
        columns, *rows = self._lines()
        lines = [columns, ["---"] * len(columns)]
        lines += [
            [f"{value:.4f}" if isinstance(value, float) else str(value) for value in row]
            for row in rows
        ]
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        return "\n".join(f"| {' | '.join(line)} |" for line in escaped)

    def _lines(self) -> list[list[Any]]:
        """Return the columns, then a row for each result; not every one asks all categories."""
        rows = self.table()
        columns = list(dict.fromkeys(column for row in rows for column in row))
        return [columns, *([row.get(column, "") for column in columns] for row in rows)]


def compare_layers(
    dissection: LayerDissector,
    concepts: Concepts,
    **options: Any,
) -> DissectionComparison:
    """Dissect several layers of a network in one pass.

    Args:
        dissection: Made with a list of layers.
        concepts: What is asked.
        options: Of :meth:`NetworkDissection.dissect`.

    Example:
        >>> from captum_blackbox import NetworkDissection
        >>> from captum_blackbox.concepts import SceneConcepts
        >>> from captum_blackbox.demo import load_demo_network
        >>> dissection = NetworkDissection(load_demo_network(), ["features.2", "features.6"])
        >>> comparison = compare_layers(dissection, SceneConcepts(8), show_progress=False)
        >>> [row["layer"] for row in comparison.table()]
        ['features.2', 'features.6']
    """
    results = dissection.dissect(concepts, **options)
    if isinstance(results, Dissection):
        results = {results.layer: results}
    return DissectionComparison("layer", dict(results))


def compare_networks(
    dissections: Mapping[str, LayerDissector],
    concepts: Concepts,
    **options: Any,
) -> DissectionComparison:
    """Dissect one layer of each of several networks.

    For whatever makes networks differ: architecture, width and depth; the task, supervised or
    self-supervised; initialisation; training with or without dropout, batch normalization, weight
    decay.

    Args:
        dissections: Name → dissection of one layer.
        concepts: What is asked.
        options: Of :meth:`NetworkDissection.dissect`.
    """
    results = {
        name: _dissected(dissection, concepts, options, name)
        for name, dissection in dissections.items()
    }
    return DissectionComparison("network", results)


def compare_checkpoints(
    dissection: LayerDissector,
    states: Mapping[str, Mapping[str, Tensor]],
    concepts: Concepts,
    **options: Any,
) -> DissectionComparison:
    """Dissect a layer with the weights of several moments of training.

    Args:
        dissection: Of one layer; a copy of its network takes up the weights.
        states: Name (such as the iteration) → ``state_dict``.
        concepts: What is asked.
        options: Of :meth:`NetworkDissection.dissect`.
    """
    results = {}
    model = copy.deepcopy(dissection.model)
    for name, state in states.items():
        model.load_state_dict(state)
        own = dissection.changed(model=model)
        results[name] = _dissected(own, concepts, options, name)
    return DissectionComparison("checkpoint", results, _numbers(list(states)))


def compare_quantiles(
    dissection: LayerDissector,
    concepts: Concepts,
    quantiles: Sequence[float] = (0.001, 0.005, 0.01, 0.02, 0.04),
    **options: Any,
) -> DissectionComparison:
    """Dissect a layer at several thresholds: tight ones ask for fine concepts, loose for general.

    Args:
        dissection: Of one layer.
        concepts: What is asked.
        quantiles: Shares of the activations that are above the threshold.
        options: Of :meth:`NetworkDissection.dissect`.

    References:
        Bau et al. 2017, sec. 3; Zhou et al. 2018, sec. 4.
    """
    results = {
        f"{quantile:g}": _dissected(
            dissection.changed(quantile=quantile, level=None), concepts, options, f"{quantile:g}"
        )
        for quantile in quantiles
    }
    return DissectionComparison("quantile", results, tuple(quantiles))


def compare_rotations(
    dissection: LayerDissector,
    concepts: Concepts,
    alphas: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    seed: int = 0,
    **options: Any,
) -> DissectionComparison:
    """Dissect a layer in bases between its own and a random one.

    What the network can tell apart stays the same; if fewer concepts are found along the way, its
    own basis is special.

    Args:
        dissection: Of one layer.
        concepts: What is asked.
        alphas: How far to rotate, between 0 and 1.
        seed: Of the rotation.
        options: Of :meth:`NetworkDissection.dissect`.

    References:
        Bau et al. 2017, sec. 3.2, fig. 4.
    """
    results = {
        f"{alpha:g}": _dissected(dissection.rotate(alpha, seed), concepts, options, f"{alpha:g}")
        for alpha in alphas
    }
    return DissectionComparison("rotation", results, tuple(alphas))


def _dissected(
    dissection: LayerDissector, concepts: Concepts, options: Mapping[str, Any], name: str
) -> Dissection:
    """Return the result of the only layer; several runs share a folder for what is unfinished."""
    _ = dissection.layer  # refuses several, before anything runs
    if options.get("checkpoint") is not None:
        safe = "".join(letter if letter.isalnum() else "-" for letter in name)
        options = {**options, "checkpoint": Path(options["checkpoint"]) / safe}
    dissection.dissect(concepts, **options)
    return dissection.result


def _numbers(names: Sequence[str]) -> tuple[float, ...] | None:
    try:
        return tuple(float(name) for name in names)
    except ValueError:
        return None
