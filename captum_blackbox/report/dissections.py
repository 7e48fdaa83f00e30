"""Layers, networks or settings compared by how many concepts their units detect."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from captum_blackbox.dissection.result import Dissection
from captum_blackbox.dissection.units import Convention, DetectorCount
from captum_blackbox.errors import InputError
from captum_blackbox.report.figure import figure_png, name_axes, new_axes
from captum_blackbox.report.units import category_colors

_INK = "#33383e"
_MARKERS = "os^Dv*"


def comparison_bars_png(
    results: Mapping[str, Dissection],
    *,
    convention: Convention = "per_category",
    iou_threshold: float | None = None,
) -> bytes:
    """Draw a bar per result, stacked by category: unique detectors; longer is more interpretable.

    Args:
        results: Name, of a layer or a network, → its dissection; the first stands on top.
        convention: In which categories a unit may detect a concept.
        iou_threshold: What an IoU must exceed; by default that of the results.

    Returns:
        A PNG.

    Raises:
        InputError: There is no result, results have different thresholds and none is given, or a
            setting cannot be used.

    References:
        Bau et al., "Network Dissection", CVPR 2017, fig. 7 and 9.

    Example:
        >>> import torch
        >>> from captum_blackbox.concepts.concepts import Label
        >>> one, settings = torch.ones(1, 1).long(), {"iou_threshold": 0.1, "images": 1, "data": ""}
        >>> parts = ("conv5", ("part",), (Label("wheel", "part"),))
        >>> result = Dissection(*parts, one[0], one, one, one[0], one, one, settings)
        >>> comparison_bars_png({"conv5": result})[1:4]
        b'PNG'
    """
    counts = _counts(list(results.values()), convention, iou_threshold)
    figure, axes = new_axes(6.4, 1.1 + 0.27 * max(2, len(results)), long_labels=True)
    places = np.arange(len(results))
    ends = np.zeros(len(results))
    colors = category_colors(_categories(results.values()))
    for category, color in colors.items():
        lengths = np.array([count.unique.get(category, 0) for count in counts])
        axes.barh(places, lengths, left=ends, color=color, height=0.72, label=category)
        ends += lengths
    for place, end in zip(places, ends, strict=True):
        axes.annotate(
            f"{end:.0f}", (end, place), (4, 0), textcoords="offset points", va="center",
            fontsize=8, color=_INK,
        )  # fmt: skip
    axes.set_yticks(places, list(results))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_xlim(0, 1.1 * max(1, ends.max()))
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    name_axes(axes, _meaning(counts), "")
    _add_legend(figure, len(colors))
    return figure_png(figure)


def comparison_lines_png(
    values: Sequence[int | float],
    results: Sequence[Dissection],
    xlabel: str,
    *,
    convention: Convention = "per_category",
    iou_threshold: float | None = None,
    logarithmic: bool = False,
) -> bytes:
    """Draw unique detectors over a number, such as rotation, quantile or step of training.

    Args:
        values: The number of each result, in any order.
        results: As many dissections.
        xlabel: What the number is.
        convention: In which categories a unit may detect a concept.
        iou_threshold: What an IoU must exceed; by default that of the results.
        logarithmic: Whether equal ratios of the number are equally far apart.

    Returns:
        A PNG with a line per category and one for their sum.

    Raises:
        InputError: There is no result or another number of values, a value cannot be drawn,
            results have different thresholds and none is given, or a setting cannot be used.

    References:
        Bau et al., "Network Dissection", CVPR 2017, fig. 6, 10 and 11.

    Example:
        >>> import torch
        >>> from captum_blackbox.concepts.concepts import Label
        >>> one, settings = torch.ones(1, 1).long(), {"iou_threshold": 0.1, "images": 1, "data": ""}
        >>> parts = ("conv5", ("part",), (Label("wheel", "part"),))
        >>> result = Dissection(*parts, one[0], one, one, one[0], one, one, settings)
        >>> comparison_lines_png([0.0, 1.0], [result, result], "rotation")[1:4]
        b'PNG'
    """
    places = np.array(values, dtype=float)
    if len(places) != len(results):
        raise InputError(f"expected a value for each of {len(results)} results, got {len(places)}")
    if not np.isfinite(places).all() or (logarithmic and (places <= 0).any()):
        above = " above 0" if logarithmic else ""
        raise InputError(f"expected finite values{above}, got {places.tolist()}")
    counts = _counts(results, convention, iou_threshold)
    figure, axes = new_axes(6.0, 3.4, long_labels=True)
    order = places.argsort(kind="stable")
    totals = np.array([count.total_unique for count in counts])
    axes.plot(places[order], totals[order], color=_INK, linewidth=2, marker=".", label="all")
    colors = category_colors(_categories(results))
    for number, (category, color) in enumerate(colors.items()):
        unique = np.array([count.unique.get(category, 0) for count in counts])
        axes.plot(
            places[order], unique[order], color=color, linewidth=1.5, markersize=5,
            marker=_MARKERS[number % len(_MARKERS)], label=category, clip_on=False, zorder=3,
        )  # fmt: skip
    if logarithmic:
        axes.set_xscale("log")
        axes.tick_params(which="minor", length=0)
    axes.set_ylim(0, 1.05 * max(1, totals.max()))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    name_axes(axes, xlabel, _meaning(counts))
    _add_legend(figure, 1 + len(colors))
    return figure_png(figure)


def _counts(
    results: Sequence[Dissection], convention: Convention, iou_threshold: float | None
) -> list[DetectorCount]:
    if not results:
        raise InputError("there is no dissection to draw")
    counts = [result.count(convention, iou_threshold) for result in results]
    thresholds = sorted({count.iou_threshold for count in counts})
    if len(thresholds) > 1:
        raise InputError(
            f"the dissections count concepts above different IoUs, {thresholds}; give one "
            "iou_threshold for all"
        )
    return counts


def _categories(results: Iterable[Dissection]) -> list[str]:
    return list(dict.fromkeys(category for result in results for category in result.categories))


def _meaning(counts: Sequence[DetectorCount]) -> str:
    return f"unique detectors, IoU > {counts[0].iou_threshold:g}"


def _add_legend(figure: Figure, entries: int) -> None:
    figure.legend(
        loc="outside upper center",
        ncols=min(7, entries),
        fontsize=8,
        labelcolor=_INK,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.2,
    )
