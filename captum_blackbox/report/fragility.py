"""Fragility curves as a picture: how far explanations move as the radius of an attack grows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from captum_blackbox.errors import InputError
from captum_blackbox.fragility.curves_result import FragilityCurves
from captum_blackbox.report.figure import figure_png, method_colors

Published: TypeAlias = Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]]
"""Measure → method → radius of 255 → a value for each mode of the curves, in their order."""

_INK, _FAINT, _QUIET = "#33383e", "#d9dde2", "#7a7f85"
_FONT = 8.5
_SHOWN = {
    "intersection": "top pixels in common",
    "rank_correlation": "rank correlation",
    "center_shift": "shift of the centre, pixels",
}
_MODES = {
    "topk": "top-k",
    "mass_center": "mass centre",
    "targeted": "targeted",
    "target_map": "target map",
    "random": "random signs",
    "random_walk": "random walk",
}
_STYLES: tuple[tuple[Any, str], ...] = (
    ("-", "o"),
    ((0, (5, 2)), "s"),
    ((0, (1, 1.6)), "^"),
    ("-.", "D"),
)
_PANEL, _ROOM, _HEIGHT = 2.35, 1.2, 3.4  # inches: of the axes, for the names, of the figure
_LEFT, _BETWEEN, _BOTTOM, _TOP = 0.5, 0.35, 0.78, 0.3
_LINE = 0.115  # inches between two names
_DODGE = 0.012  # of the largest radius


class _Line(NamedTuple):
    """One line of a panel."""

    method: str
    color: str
    style: int
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def fragility_png(curves: FragilityCurves, *, published: Published | None = None) -> bytes:
    """Draw the paper's figure: three measures over the radius, a line a method and objective.

    Colours are methods, line styles objectives. Bars are 95 % bootstrap intervals; lines of one
    image have none. In the first two panels low is fragile, in the third high is.

    Args:
        curves: What was measured; cells without a number are left out.
        published: Values to show beside them, as hollow markers.

    Returns:
        A PNG.

    Raises:
        InputError: There is no number to draw.

    References:
        Ghorbani, Abid, Zou, "Interpretation of Neural Networks Is Fragile", AAAI 2019, fig. 3.

    Example:
        >>> import torch
        >>> values = torch.rand(1, 1, 2, 12, 4, dtype=torch.float64)
        >>> curves = FragilityCurves(("gradient",), ("topk",), (1 / 255, 8 / 255), values)
        >>> fragility_png(curves)[1:4]
        b'PNG'
    """
    panels = [_lines(curves, measure) for measure in _SHOWN]
    if not any(panels):
        raise InputError("the curves have no number, so there is nothing to draw; see failures")
    one = _PANEL + _ROOM
    width = _LEFT + 3 * one + 2 * _BETWEEN
    figure = Figure(figsize=(width, _HEIGHT), dpi=200)
    FigureCanvasAgg(figure)
    high = _HEIGHT - _BOTTOM - _TOP
    for column, (measure, lines) in enumerate(zip(_SHOWN, panels, strict=True)):
        left = _LEFT + column * (one + _BETWEEN)
        axes = figure.add_axes((left / width, _BOTTOM / _HEIGHT, _PANEL / width, high / _HEIGHT))
        _draw(axes, curves, measure, lines, (published or {}).get(measure, {}))
    _add_legend(figure, curves, is_published=published is not None)
    return figure_png(figure)


def _lines(curves: FragilityCurves, measure: str) -> list[_Line]:
    """Return the lines of a panel, moved a little apart so that their bars can be told."""
    colors = method_colors(list(curves.methods))
    order = np.argsort(curves.radii)
    radii = np.array(curves.radii)[order] * 255
    pairs = [(name, mode) for name in curves.methods for mode in curves.modes]
    found = []
    for number, (method, mode) in enumerate(pairs):
        cells = [curves.mean(method, measure, mode=mode, radius=curves.radii[row]) for row in order]
        mean, low, high = (
            np.array([getattr(cell, name) for cell in cells]) for name in ("mean", "low", "high")
        )
        known = np.isfinite(mean)
        if known.any():
            apart = (number - (len(pairs) - 1) / 2) * _DODGE * radii.max() / 2
            style = curves.modes.index(mode) % len(_STYLES)
            numbers = (each[known] for each in (radii + apart, mean, low, high))
            found.append(_Line(method, colors[method], style, *numbers))
    return found


def _draw(
    axes: Axes,
    curves: FragilityCurves,
    measure: str,
    lines: Sequence[_Line],
    published: Mapping[str, Mapping[int, Sequence[float]]],
) -> None:
    for line in lines:
        dashes, marker = _STYLES[line.style]
        axes.errorbar(
            line.x, line.mean, yerr=(line.mean - line.low, line.high - line.mean),
            color=line.color, linestyle=dashes, linewidth=1.5, marker=marker, markersize=3.4,
            elinewidth=0.8, capsize=0, alpha=0.95, zorder=3,
        )  # fmt: skip
        for radius, values in published.get(line.method, {}).items():
            axes.plot(
                radius, values[line.style], marker=marker, markersize=5.5, markerfacecolor="none",
                markeredgecolor=line.color, markeredgewidth=0.7, linestyle="none", zorder=2,
            )  # fmt: skip
    radii = sorted(radius * 255 for radius in curves.radii)
    axes.set_xlim(0, radii[-1] * 1.06)
    axes.set_xticks(radii, [f"{radius:.3g}" for radius in radii])
    if measure == "center_shift":
        axes.set_ylim(0)
    else:
        lowest = min([0.0, *(float(line.low.min()) for line in lines)])
        axes.set_ylim(lowest - 0.02, 1.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(labelsize=_FONT - 1, colors=_INK, color=_FAINT)
    axes.grid(visible=True, color=_FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel("radius, of 255", fontsize=_FONT, color=_INK)
    axes.set_title(_SHOWN[measure], fontsize=_FONT + 0.5, color=_INK, loc="left")
    _name_lines(axes, lines)


def _name_lines(axes: Axes, lines: Sequence[_Line]) -> None:
    """Write the method at the end of each line, names moved apart where they would overlap."""
    bottom, top = axes.get_ylim()
    inches = _HEIGHT - _BOTTOM - _TOP
    ends = [(float(line.mean[-1]) - bottom) / (top - bottom) * inches for line in lines]
    order = sorted(range(len(lines)), key=lambda row: ends[row])
    places = spread_apart([ends[row] for row in order], _LINE, inches)
    right = axes.get_xlim()[1]
    for row, place in zip(order, places, strict=True):
        line = lines[row]
        height = bottom + place / inches * (top - bottom)
        axes.annotate(
            line.method, (line.x[-1], line.mean[-1]), (right * 1.05, height), fontsize=_FONT - 1.7,
            color=line.color, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": line.color, "linewidth": 0.4, "alpha": 0.6,
                        "linestyle": _STYLES[line.style][0], "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip


def spread_apart(places: Sequence[float], least: float, most: float) -> list[float]:
    """Return ascending places moved as little as needed to be ``least`` apart, from 0 to ``most``.

    If there is no room for all, the last ones are beyond ``most``.

    Example:
        >>> spread_apart([0.0, 0.0, 2.0], 1.0, 9.0)
        [0.0, 1.0, 2.0]
        >>> spread_apart([8.75, 9.0, 9.0], 1.0, 9.0)
        [7.0, 8.0, 9.0]
    """
    groups: list[list[float]] = []  # (sum of what the first place would be, count)
    for place in places:
        groups.append([place, 1.0])
        while len(groups) > 1 and _start(groups[-2], least, most) + groups[-2][1] * least > _start(
            groups[-1], least, most
        ):
            total, count = groups.pop()
            groups[-1][0] += total - count * groups[-1][1] * least
            groups[-1][1] += count
    found: list[float] = []
    for group in groups:
        first = _start(group, least, most)
        found += [first + number * least for number in range(int(group[1]))]
    return found


def _start(group: Sequence[float], least: float, most: float) -> float:
    """Return where the first of a group is: its mean, inside from 0 to ``most``."""
    total, count = group
    return max(0.0, min(total / count, most - (count - 1) * least))


def _add_legend(figure: Figure, curves: FragilityCurves, *, is_published: bool) -> None:
    handles = [
        Line2D([], [], color=_QUIET, linestyle=_STYLES[number % len(_STYLES)][0],
               marker=_STYLES[number % len(_STYLES)][1], markersize=3.4, linewidth=1.5,
               label=_MODES.get(mode, mode))
        for number, mode in enumerate(curves.modes)
    ]  # fmt: skip
    if is_published:
        handles.append(
            Line2D([], [], color=_QUIET, linestyle="none", marker="o", markersize=5.5,
                   markerfacecolor="none", markeredgewidth=0.7, label="published")
        )  # fmt: skip
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), fontsize=_FONT - 0.5,
        labelcolor=_INK, frameon=False, handlelength=3.2, bbox_to_anchor=(0.5, 0.0),
    )  # fmt: skip
