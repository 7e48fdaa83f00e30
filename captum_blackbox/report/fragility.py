"""Fragility curves as a picture: how far explanations move as the radius of an attack grows."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

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
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.6)), "-.")  # of one colour, one by one
_PANEL, _LOWEST = 2.35, 1.55  # inches: width of the axes, and least height
_LEFT, _BETWEEN, _BOTTOM, _TOP, _APART = 0.72, 0.4, 0.5, 0.32, 0.2  # inches around the axes
_LINE = 0.115  # inches between two names
_TO_NAME = 0.3  # inches from the axes to a name, and some after it
_NAME = _FONT - 1.7
_DODGE, _DODGED = 0.006, 0.08  # of the largest radius: between two lines, and all of them
_GAP = 0.6  # of the least gap between two radii: all lines


class _Line(NamedTuple):
    """One line of a panel."""

    method: str
    color: str
    dashes: Any
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def fragility_png(curves: FragilityCurves, *, published: Published | None = None) -> bytes:
    """Draw the paper's figure: three measures over the radius, a row of panels an objective.

    Lines are methods. Bars are 95 % bootstrap intervals; lines of one image have none. All rows
    have the same scales. In the first two columns low is fragile, in the third high is.

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
    lines = {
        (mode, measure): _lines(curves, mode, measure)
        for mode in curves.modes
        for measure in _SHOWN
    }
    modes = [mode for mode in curves.modes if any(lines[mode, measure] for measure in _SHOWN)]
    if not modes:
        raise InputError("the curves have no number, so there is nothing to draw; see failures")
    high = max(_LOWEST, len(curves.methods) * _LINE)
    figure = _empty_panels(curves.methods, len(modes), high)
    shown = dict(zip(itertools.product(modes, _SHOWN), figure.axes, strict=True))
    for (mode, measure), axes in shown.items():
        _draw_lines(axes, lines[mode, measure])
        marks = (published or {}).get(measure, {})
        _mark(axes, lines[mode, measure], marks, curves.modes.index(mode))
        _tidy(axes, curves.radii, is_last=mode == modes[-1])
    for measure, title in _SHOWN.items():
        _share_scale([shown[mode, measure] for mode in modes], measure)
        shown[modes[0], measure].set_title(title, fontsize=_FONT + 0.5, color=_INK, loc="left")
    for mode in modes:
        first = shown[mode, next(iter(_SHOWN))]
        first.set_ylabel(_MODES.get(mode, mode), fontsize=_FONT, color=_INK, weight="bold")
    for place, axes in shown.items():
        _name_lines(axes, lines[place], high)
    if published is not None:
        _add_legend(figure)
    return figure_png(figure)


def _empty_panels(methods: Sequence[str], rows: int, high: float) -> Figure:
    """Return a figure with three panels in each row, and room for names to their right."""
    one = _PANEL + _TO_NAME + max(map(_width, methods))
    width = _LEFT + 3 * one + 2 * _BETWEEN
    height = _TOP + rows * high + (rows - 1) * _APART + _BOTTOM
    figure = Figure(figsize=(width, height), dpi=200)
    FigureCanvasAgg(figure)
    for row, column in itertools.product(range(rows), range(3)):
        left = _LEFT + column * (one + _BETWEEN)
        bottom = _BOTTOM + (rows - 1 - row) * (high + _APART)
        figure.add_axes((left / width, bottom / height, _PANEL / width, high / height))
    return figure


def _width(name: str) -> float:
    """Return how wide a name at the end of a line is, in inches."""
    font = FontProperties(size=_NAME)
    points, _, _ = text_to_path.get_text_width_height_descent(name, font, ismath=False)
    return float(points) / 72


def _lines(curves: FragilityCurves, mode: str, measure: str) -> list[_Line]:
    """Return the lines of a panel, moved a little apart so that their bars can be told."""
    colors = method_colors(list(curves.methods))
    order = np.argsort(curves.radii)
    radii = np.array(curves.radii)[order] * 255
    least = np.diff(radii, prepend=0).min()
    most = min(_DODGED * radii.max(), _GAP * least) / len(curves.methods)
    apart = min(_DODGE * radii.max(), most)
    found = []
    for number, method in enumerate(curves.methods):
        cells = [curves.mean(method, measure, mode=mode, radius=curves.radii[row]) for row in order]
        mean, low, high = (
            np.array([getattr(cell, name) for cell in cells]) for name in ("mean", "low", "high")
        )
        known = np.isfinite(mean)
        if known.any():
            moved = radii + (number - (len(curves.methods) - 1) / 2) * apart
            before = [other for other in curves.methods[:number] if colors[other] == colors[method]]
            dashes = _DASHES[len(before) % len(_DASHES)]
            numbers = (each[known] for each in (moved, mean, low, high))
            found.append(_Line(method, colors[method], dashes, *numbers))
    return found


def _draw_lines(axes: Axes, lines: Sequence[_Line]) -> None:
    for line in lines:
        axes.errorbar(
            line.x, line.mean, yerr=(line.mean - line.low, line.high - line.mean),
            color=line.color, linestyle=line.dashes, linewidth=1.4, marker="o", markersize=3.2,
            elinewidth=0.8, capsize=0, alpha=0.95, zorder=3,
        )  # fmt: skip


def _mark(
    axes: Axes,
    lines: Sequence[_Line],
    published: Mapping[str, Mapping[int, Sequence[float]]],
    mode: int,
) -> None:
    """Add published values to the methods that are drawn."""
    for line in lines:
        for radius, values in published.get(line.method, {}).items():
            axes.plot(
                radius, values[mode], marker="o", markersize=5.5, markerfacecolor="none",
                markeredgecolor=line.color, markeredgewidth=0.7, linestyle="none", zorder=2,
            )  # fmt: skip


def _tidy(axes: Axes, radii: Sequence[float], *, is_last: bool) -> None:
    shown = sorted(radius * 255 for radius in radii)
    axes.set_xlim(0, shown[-1] * 1.06)
    axes.set_xticks(shown, [f"{radius:.3g}" if is_last else "" for radius in shown])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(labelsize=_FONT - 1, colors=_INK, color=_FAINT)
    axes.grid(visible=True, color=_FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    if is_last:
        axes.set_xlabel("radius, of 255", fontsize=_FONT, color=_INK)


def _share_scale(column: Sequence[Axes], measure: str) -> None:
    """Give the panels of a measure one scale: from 0 to 1 and below, or to the largest shift."""
    low = min(axes.dataLim.y0 for axes in column)
    high = max(axes.dataLim.y1 for axes in column)
    for axes in column:
        if measure == "center_shift":
            axes.set_ylim(0, 1.05 * high if high > 0 else 1)
        else:
            axes.set_ylim(min(low, 0.0) - 0.02, 1.02)


def _name_lines(axes: Axes, lines: Sequence[_Line], inches: float) -> None:
    """Write the method at the end of each line, names moved apart where they would overlap."""
    bottom, top = axes.get_ylim()
    ends = [(float(line.mean[-1]) - bottom) / (top - bottom) * inches for line in lines]
    order = sorted(range(len(lines)), key=lambda row: ends[row])
    places = spread_apart([ends[row] for row in order], _LINE, inches)
    right = axes.get_xlim()[1]
    for row, place in zip(order, places, strict=True):
        line = lines[row]
        height = bottom + place / inches * (top - bottom)
        axes.annotate(
            line.method, (line.x[-1], line.mean[-1]), (right * 1.09, height), fontsize=_NAME,
            color=line.color, va="center", annotation_clip=False, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": line.color, "linewidth": 0.4, "alpha": 0.6,
                        "linestyle": line.dashes, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)},
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


def _add_legend(figure: Figure) -> None:
    published = Line2D([], [], color=_QUIET, linestyle="none", marker="o", markersize=5.5,
                       markerfacecolor="none", markeredgewidth=0.7, label="published")  # fmt: skip
    figure.legend(
        handles=[published], loc="lower left", fontsize=_FONT - 0.5, labelcolor=_INK,
        frameon=False, bbox_to_anchor=(0.0, 0.0),
    )  # fmt: skip
