"""Curves and bars of an explanation: the two games, the losses, the layers."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.report.figure import (
    add_legend,
    figure_png,
    method_colors,
    name_axes,
    new_axes,
)

_MOST_BARS = 30


def game_png(curves: Mapping[str, Tensor], game: Literal["deletion", "insertion"]) -> bytes:
    """Draw one game: the score over the fraction of pixels replaced, a curve per method.

    Several images give their mean, with a band of one standard error; the legend has the mean area
    under the curve.

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
    figure, axes = new_axes(3.9, 2.9)
    colors = method_colors(list(curves))
    for name, scores in curves.items():
        rows = _rows(name, scores)
        fraction = np.linspace(0, 1, rows.shape[1])
        mean = rows.mean(0)
        label = f"{name}  {np.trapezoid(mean, fraction):.3f}"
        axes.plot(fraction, mean, color=colors[name], linewidth=1.8, label=label)
        if len(rows) > 1:
            error = rows.std(0, ddof=1) / np.sqrt(len(rows))
            low, high = mean - error, mean + error
            axes.fill_between(fraction, low, high, color=colors[name], alpha=0.15, linewidth=0)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    done = {"deletion": "deleted", "insertion": "inserted"}[game]
    name_axes(axes, f"pixels {done}, most important first", "probability of the class")
    add_legend(axes, "upper right" if game == "deletion" else "lower right")
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


def _rows(name: str, scores: Tensor) -> np.ndarray:
    if scores.dim() != 2 or len(scores) == 0 or scores.shape[1] < 2:
        raise ShapeError(
            f"expected the curves of {name!r} as (N, steps + 1), got {tuple(scores.shape)}"
        )
    return scores.detach().double().cpu().numpy()
