"""Curves and bars of an explanation: the games, the losses, the layers."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.report.figure import (
    figure_png,
    method_colors,
    name_axes,
    new_axes,
)

_MOST_BARS = 30
_LINES = ("-", "--", ":")  # methods that share a colour


def game_png(curves: Mapping[str, Tensor], game: Literal["deletion", "insertion"]) -> bytes:
    """Draw one game: the score over the fraction of pixels replaced, a curve per method.

    Several images give their mean, with a band of one standard error; the legend has the mean area
    under the curve, the best first.

    Args:
        curves: Method → scores ``(N, steps + 1)``; a dictionary of one-image rows is fine.
        game: Which of the two games.

    Returns:
        A PNG.

    Raises:
        InputError: There is no curve.
        ShapeError: A curve has another shape or fewer than two points.

    Example:
        >>> import torch
        >>> game_png({"Random": torch.tensor([[1.0, 0.5, 0.0]])}, "deletion")[1:4]
        b'PNG'
    """
    if not curves:
        raise InputError("there is no curve to draw")
    figure, axes = new_axes(5.6, 2.9, long_labels=True)
    rows = {name: _rows(name, scores) for name, scores in curves.items()}
    areas = {
        name: float(np.trapezoid(each.mean(0), _fraction(each))) for name, each in rows.items()
    }
    colors = method_colors(list(curves))
    for name in sorted(rows, key=lambda name: areas[name], reverse=game == "insertion"):
        fraction, line = _fraction(rows[name]), _line(name, colors)
        axes.plot(
            fraction, rows[name].mean(0), line, color=colors[name], linewidth=1.8,
            label=f"{areas[name]:.3f}  {name}",
        )  # fmt: skip
        _add_band(axes, fraction, rows[name], colors[name])
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    done = {"deletion": "deleted", "insertion": "inserted"}[game]
    name_axes(axes, f"pixels {done}, most important first", "probability of the class")
    _add_legend(figure, axes, "area")
    return figure_png(figure)


def degradation_png(curves: Mapping[str, Tensor], *, every: int = 1) -> bytes:
    """Draw patch degradation: the score over the number of patches replaced, a curve per method.

    Several images give their mean, with a band of one standard error; the legend has the mean area
    over the curve, the largest, that is the best, first.

    Args:
        curves: Method → scores ``(N, points)``, as the ``curve`` of
            :func:`~captum_blackbox.metrics.patch_degradation`; its ``baseline``, named
            ``"random"``, is drawn in grey.
        every: Patches between two points, as it was there.

    Returns:
        A PNG.

    Raises:
        InputError: There is no curve, or ``every`` is not positive.
        ShapeError: A curve has another shape or fewer than two points.

    Example:
        >>> import torch
        >>> degradation_png({"random": torch.tensor([[1.0, 0.5, 0.2]])})[1:4]
        b'PNG'
    """
    if not curves:
        raise InputError("there is no curve to draw")
    if every < 1:
        raise InputError(f"every must be at least 1, got {every}")
    figure, axes = new_axes(6.2, 3.6, long_labels=True)
    rows = {name: _rows(name, scores) for name, scores in curves.items()}
    areas = {name: float((each[:, 0] - each.mean(1)).mean()) for name, each in rows.items()}
    colors = method_colors(list(curves))
    for name in sorted(rows, key=lambda name: -areas[name]):
        patches, line = every * np.arange(rows[name].shape[1]), _line(name, colors)
        axes.plot(
            patches, rows[name].mean(0), line, color=colors[name], linewidth=1.6,
            label=f"{areas[name]:.3f}  {name}",
        )  # fmt: skip
        _add_band(axes, patches, rows[name], colors[name])
    axes.set_xlim(0, every * (max(each.shape[1] for each in rows.values()) - 1))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    name_axes(axes, "patches replaced, most important first", "probability of the class")
    _add_legend(figure, axes, "AOPC")
    return figure_png(figure)


def loss_png(losses: Sequence[float]) -> bytes:
    """Draw the mean training loss of each epoch.

    Raises:
        InputError: There is no epoch.

    Example:
        >>> loss_png([1.0, 0.5])[1:4]
        b'PNG'
    """
    if not losses:
        raise InputError("there is no epoch to draw")
    figure, axes = new_axes(3.9, 2.4)
    epochs = range(1, len(losses) + 1)
    axes.plot(epochs, losses, color="#0072b2", linewidth=1.8, marker=".", markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylim(bottom=0)
    name_axes(axes, "epoch", "distillation loss")
    return figure_png(figure)


def layers_png(importance: Mapping[str, float], meaning: str) -> bytes:
    """Draw a bar per layer, the first layer on top.

    Args:
        importance: Layer → its importance.
        meaning: What the number is, for the axis.

    Raises:
        InputError: There is no layer.

    Example:
        >>> layers_png({"conv1": 0.25, "conv2": 0.75}, "share of the map")[1:4]
        b'PNG'
    """
    if not importance:
        raise InputError("there is no layer to draw")
    names, values = list(importance), list(importance.values())
    figure, axes = new_axes(
        3.9, 0.7 + 0.18 * max(4, min(len(names), 2 * _MOST_BARS)), long_labels=True
    )
    axes.barh(range(len(names)), values, color="#0072b2", height=0.72)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelsize=8 if len(names) <= _MOST_BARS else 6)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    name_axes(axes, meaning, "")
    return figure_png(figure)


def _add_legend(figure: Figure, axes: Axes, title: str) -> None:
    """Add a legend beside the axes, where it covers no curve."""
    ink = axes.yaxis.label.get_color()
    legend = figure.legend(
        loc="outside right upper",
        fontsize=8,
        labelcolor=ink,
        frameon=False,
        title=title,
        alignment="left",
    )
    legend.get_title().set(fontsize=8, color=ink)


def _line(name: str, colors: Mapping[str, str]) -> str:
    """Return a style of line that tells a method from those before it of the same colour."""
    before = list(colors)[: list(colors).index(name)]
    return _LINES[sum(colors[other] == colors[name] for other in before) % len(_LINES)]


def _fraction(rows: np.ndarray) -> np.ndarray:
    return np.linspace(0, 1, rows.shape[1])


def _add_band(axes: Axes, x: np.ndarray, rows: np.ndarray, color: str) -> None:
    """Add one standard error of the mean of several rows."""
    if len(rows) > 1:
        mean, error = rows.mean(0), rows.std(0, ddof=1) / np.sqrt(len(rows))
        axes.fill_between(x, mean - error, mean + error, color=color, alpha=0.15, linewidth=0)


def _rows(name: str, scores: Tensor) -> np.ndarray:
    if scores.dim() != 2 or len(scores) == 0 or scores.shape[1] < 2:
        raise ShapeError(
            f"expected the curves of {name!r} as (N, steps + 1), got {tuple(scores.shape)}"
        )
    return scores.detach().double().cpu().numpy()
