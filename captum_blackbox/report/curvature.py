"""The geometry of fragile explanations: where maps turn fast, and the prediction hardly moves."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, MultipleLocator, PercentFormatter
from numpy.typing import ArrayLike
from torch import Tensor

from captum_blackbox.errors import InputError
from captum_blackbox.fragility.curvature_plane import CurvaturePlane
from captum_blackbox.fragility.curvature_result import Curvature, Direction
from captum_blackbox.report.figure import figure_png, method_colors, name_axes, new_axes

_INK, _QUIET = "#33383e", "#7a7f85"
_SHOWN: dict[Direction, tuple[str, str]] = {
    "fragile": ("fragile direction (leading eigenvector)", "o"),
    "gradient": ("prediction gradient", "s"),
    "random": ("random direction", "^"),
}
_LEVELS = (-1.0, 0.0, 0.25, 0.5, 0.75, 0.9, 1.001)  # of the cosine
_SHADES = ("#f5b08a", "#f9c9ab", "#fce0cd", "#fdf1e8", "#edf2f7", "#d3e2ee")  # warm: another map
_LINES = 12  # of equal score, about
_MOST_LINES = 32
_ARROWS = 13  # along an axis, at most


def curvature_png(curvature: Curvature) -> bytes:
    """Draw how fast the explanation moves in three directions, over their angle to the gradient.

    The angle says how fast the *prediction* moves: at 90 degrees not at all. So the argument of the
    paper holds where the fragile direction stands high and to the right: higher than the gradient,
    and higher than a random direction, which has nearly a right angle too.

    Args:
        curvature: Of one or several images; each has a point in each direction, and a line joins
            those of an image where there are few. Images without curvature or gradient are left
            out.

    Returns:
        A PNG.

    Raises:
        InputError: No image has both.

    References:
        Ghorbani, Abid, Zou, "Interpretation of Neural Networks is Fragile", AAAI 2019, sec. 5.

    Example:
        >>> import torch
        >>> from captum_blackbox.fragility.curvature import explanation_curvature
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 8),
        ...                               torch.nn.Softplus(), torch.nn.Linear(8, 3))
        >>> curvature_png(explanation_curvature(network, torch.rand(2, 3, 4, 4)))[1:4]
        b'PNG'
    """
    shown = _numbers(~curvature.angles[:, 0].isnan()).astype(bool)
    if not shown.any():
        raise InputError("no image has both curvature and a gradient, so there is nothing to draw")
    norms = _numbers(curvature.gradient_norms)[shown]
    speeds, angles = {}, {}
    for direction in _SHOWN:
        movement = curvature.along[direction]
        speeds[direction] = _numbers(movement.explanation)[shown] / norms
        share = (_numbers(movement.score)[shown] / norms).clip(0, 1)
        angles[direction] = np.rad2deg(np.arccos(share))
    angles["fragile"] = _numbers(curvature.angles[:, 0])[shown]
    figure, axes = new_axes(5.2, 3.7, long_labels=True)
    colors = method_colors(list(_SHOWN))
    for direction, (label, marker) in _SHOWN.items():
        axes.scatter(
            angles[direction], speeds[direction], s=34, color=colors[direction], marker=marker,
            edgecolor="white", linewidth=0.6, label=label, clip_on=False, zorder=3,
        )  # fmt: skip
    order: tuple[Direction, ...] = ("gradient", "fragile", "random")
    images = int(shown.sum())
    for image in range(images if images <= _MOST_LINES else 0):
        axes.plot(
            [angles[each][image] for each in order], [speeds[each][image] for each in order],
            color="#b9bfc6", linewidth=0.6, zorder=1,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlim(0, 90)
    axes.xaxis.set_major_locator(MultipleLocator(15))
    axes.tick_params(which="minor", length=0, labelsize=8, labelcolor=_INK)
    name_axes(
        axes,
        "angle to the prediction gradient (degrees)",
        "change of the explanation per unit step\n(share of its length)",
    )
    _add_score_axis(axes)
    figure.legend(
        loc="outside lower center", ncols=1, fontsize=8, labelcolor=_INK, frameon=False,
        handletextpad=0.3,
    )  # fmt: skip
    return figure_png(figure)


def plane_png(plane: CurvaturePlane, image: int = 0) -> bytes:
    """Draw the score and the explanation of one image in the plane of the two directions.

    Lines join points with the same score. Arrows are the gradient map, as far as it lies in the
    plane, scaled to one length: they stand across the lines. The colour says how like the map is to
    that of the image. The argument of the paper holds where the colour changes upwards and
    downwards while few lines are crossed: where the lines bend, arrows turn.

    Args:
        plane: Of one or several images.
        image: Which one.

    Returns:
        A PNG.

    Raises:
        InputError: There is no such image.

    References:
        Ghorbani, Abid, Zou, "Interpretation of Neural Networks is Fragile", AAAI 2019, sec. 5 and
        its figure of level sets.

    Example:
        >>> import torch
        >>> from captum_blackbox.fragility.curvature import explanation_curvature
        >>> from captum_blackbox.fragility.curvature_plane import curvature_plane
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 8),
        ...                               torch.nn.Softplus(), torch.nn.Linear(8, 3))
        >>> images = torch.rand(1, 3, 4, 4)
        >>> curvature = explanation_curvature(network, images)
        >>> plane_png(curvature_plane(network, images, curvature, radius=1.0, points=5))[1:4]
        b'PNG'
    """
    if not 0 <= image < len(plane.scores):
        raise InputError(f"image {image} is not among the {len(plane.scores)} of the plane")
    steps, scores = _numbers(plane.steps), _numbers(plane.scores[image])
    figure, axes = new_axes(5.2, 4.3, long_labels=True)
    axes.grid(visible=False)
    filled = axes.contourf(
        steps, steps, _numbers(plane.similarity[image]), levels=_LEVELS, colors=_SHADES
    )
    levels = MaxNLocator(_LINES).tick_values(scores.min(), scores.max())
    if np.ptp(scores) > 0:
        axes.contour(steps, steps, scores, levels, colors=_QUIET, linewidths=0.8, linestyles="-")
    _add_arrows(axes, steps, _numbers(plane.slopes[image]))
    axes.plot(0, 0, "o", color=_INK, markersize=5, zorder=4)
    axes.set_aspect("equal")
    name_axes(
        axes,
        "step along the prediction gradient",
        "step along the fragile direction, across the gradient\n"
        f"(the leading eigenvector is at {float(plane.angles[image]):.1f}° to it)",
    )
    bar = figure.colorbar(filled, ax=axes, shrink=0.75, pad=0.02, format="%.3g")
    bar.set_ticks(list(_LEVELS[1:-1]))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=_INK, length=0)
    bar.set_label("cosine of the explanation to that of the image", fontsize=8, color=_INK)
    equal = f"equal score, every {levels[1] - levels[0]:.2g}"
    entries = [
        Line2D([], [], color=_INK, marker="o", linestyle="none", markersize=5, label="the image"),
        Line2D([], [], color=_QUIET, linewidth=0.8, label=equal),
        Line2D([], [], color=_INK, marker=r"$\rightarrow$", linestyle="none", markersize=9,
               label="direction of the gradient map"),
    ]  # fmt: skip
    figure.legend(
        handles=entries, loc="outside upper center", ncols=3, fontsize=8, labelcolor=_INK,
        frameon=False, columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip
    return figure_png(figure)


def _add_arrows(axes: Axes, steps: np.ndarray, slopes: np.ndarray) -> None:
    every = -(-len(steps) // _ARROWS)
    chosen = slice((len(steps) // 2) % every, None, every)  # the image has an arrow
    part = slopes[chosen, chosen]
    length = np.linalg.norm(part, axis=2, keepdims=True)
    part = np.divide(part, length, out=np.zeros_like(part), where=length > 0)
    places = steps[chosen]
    margin = 0.5 * (steps[1] - steps[0]) * every  # room for the arrows of the last points
    axes.set_xlim(steps[0] - margin, steps[-1] + margin)
    axes.set_ylim(steps[0] - margin, steps[-1] + margin)
    part = 0.72 * every * (steps[1] - steps[0]) * part
    axes.quiver(
        places, places, part[..., 0], part[..., 1], color=_INK, pivot="mid", angles="xy", scale=1,
        scale_units="xy", width=0.0038, headwidth=4, headlength=4.5, headaxislength=4, zorder=3,
    )  # fmt: skip


def _add_score_axis(axes: Axes) -> None:
    """Add on top how fast the score moves: the cosine of the angle."""

    def to_share(degrees: ArrayLike) -> ArrayLike:
        return np.asarray(np.cos(np.deg2rad(degrees)))

    def to_degrees(share: ArrayLike) -> ArrayLike:
        return np.asarray(np.rad2deg(np.arccos(np.clip(share, -1, 1))))

    top = axes.secondary_xaxis("top", functions=(to_share, to_degrees))
    top.set_xticks([1, 0.75, 0.5, 0.25, 0.0])
    top.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    top.tick_params(labelsize=8, colors=_INK, length=2)
    top.spines["top"].set_visible(False)
    top.set_xlabel("change of the score, of the steepest", fontsize=9, color=_INK)


def _numbers(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().double().cpu())
