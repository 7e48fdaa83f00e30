"""A comparison of methods as pictures: means with intervals, and ranks."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_blackbox.errors import InputError
from captum_blackbox.report.figure import figure_png, method_colors, name_axes, new_axes

_ROW = 0.27  # inches for a method
_MARKERS = "os^Dv*PX<>"
_INK = "#33383e"

Interval = tuple[float, float, float]
"""Mean, lower and upper end."""


def metric_png(means: Mapping[str, Interval], metric: str, *, higher_is_better: bool) -> bytes:
    """Draw a metric's mean for each method with its interval, the best on top.

    Args:
        means: Method → mean, lower and upper end; with NaN as mean it stands at the bottom, empty.
        metric: Its name, for the axis.
        higher_is_better: The direction, which the axis tells.

    Returns:
        A PNG.

    Raises:
        InputError: No method has a mean.

    Example:
        >>> metric_png({"a": (0.2, 0.1, 0.3)}, "deletion", higher_is_better=False)[1:4]
        b'PNG'
    """
    known = {name: each[0] for name, each in means.items() if math.isfinite(each[0])}
    if not known:
        raise InputError(f"no method has a number by {metric!r} to draw")
    best_first = sorted(known, key=lambda name: -known[name] if higher_is_better else known[name])
    order = [*best_first, *(name for name in means if name not in known)]
    figure, axes = _rows_of(order)
    colors = method_colors(list(means))
    for place, name in enumerate(best_first):
        mean, low, high = means[name]
        axes.plot([low, high], [place, place], color=colors[name], linewidth=3, alpha=0.35)
        axes.plot([mean], [place], "o", color=colors[name], markersize=6)
        axes.annotate(
            f"{mean:.3g}", (mean, place), (0, 5), textcoords="offset points", ha="center",
            fontsize=7, color=_INK,
        )  # fmt: skip
    better = "higher" if higher_is_better else "lower"
    name_axes(axes, f"{metric} ({better} is better)", "")
    axes.xaxis.label.set_parse_math(False)
    return figure_png(figure)


def ranks_png(ranks: Mapping[str, Mapping[str, float]], overall: Mapping[str, float]) -> bytes:
    """Draw the average rank of each method by each metric, and their mean; left is better.

    Args:
        ranks: Metric → method → average rank, 1 is the best; NaN is left out.
        overall: Method → the mean over metrics, drawn as a bar across the row. By it methods are
            sorted, the best on top, those without it at the bottom.

    Returns:
        A PNG.

    Raises:
        InputError: There is no rank.

    Example:
        >>> ranks_png({"deletion": {"a": 1.0, "b": 2.0}}, {"a": 1.0, "b": 2.0})[1:4]
        b'PNG'
    """
    ranks = {metric: by for metric, by in ranks.items() if any(map(math.isfinite, by.values()))}
    if not ranks:
        raise InputError("there is no rank to draw")
    order = sorted(overall, key=lambda name: (math.isnan(overall[name]), overall[name]))
    figure, axes = _rows_of(order)
    places = np.arange(len(order))
    colors = method_colors(list(ranks))
    for number, (metric, by) in enumerate(ranks.items()):
        axes.plot(
            [by.get(name, math.nan) for name in order], places, _MARKERS[number % len(_MARKERS)],
            color=colors[metric], markersize=5.5, alpha=0.85, label=metric, zorder=3,
        )  # fmt: skip
    axes.plot(
        [overall[name] for name in order], places, "|", color=_INK, markersize=15,
        markeredgewidth=2.2, label="all", zorder=4,
    )  # fmt: skip
    axes.set_xlim(0.8, len(order) + 0.2)
    name_axes(axes, "average rank (1 is the best)", "")
    legend = figure.legend(
        loc="outside upper center", ncols=min(4, len(ranks) + 1), fontsize=8, frameon=False,
        labelcolor=_INK,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure_png(figure)


def _rows_of(names: list[str]) -> tuple[Figure, Axes]:
    """Return axes with a row for each method, the first on top; a ``$`` in a name is a ``$``."""
    figure, axes = new_axes(6.2, 1.2 + _ROW * max(3, len(names)), long_labels=True)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    return figure, axes
