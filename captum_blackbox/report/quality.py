"""The quality of signal estimators in every layer, as in figure 3 of the paper on patterns."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.report.figure import figure_png, method_colors, name_axes, new_axes

_INCHES_PER_LAYER = 0.17
_NARROWEST = 4.6  # inches
_LEGEND_INCHES = 1.15  # of an estimator


def quality_png(quality: Mapping[str, Mapping[str, Tensor]]) -> bytes:
    """Draw how well each estimator finds the signal in each layer; higher is better.

    A line is the mean over the units of a layer, its band holds the middle half of them. The axis
    ends at 0 and 1; on held-out data rho may be a little above 1, and is drawn at 1.

    Args:
        quality: Estimator → layer → rho of each of its units, ``(units,)``. NaN, the rho of a unit
            that never varies, is left out; a layer without any number, or that an estimator lacks,
            leaves a gap. Layers stand in the order in which they are first named.

    Returns:
        A PNG, the wider the more layers there are.

    Raises:
        InputError: There is no estimator or no layer.
        ShapeError: A rho has another shape.

    References:
        Kindermans et al., "Learning how to explain neural networks", ICLR 2018, eq. 1 and fig. 3.

    Example:
        >>> import torch
        >>> quality_png({"linear": {"conv1": torch.rand(8), "conv2": torch.rand(4)}})[1:4]
        b'PNG'
    """
    layers = list(dict.fromkeys(layer for each in quality.values() for layer in each))
    if not layers:
        raise InputError("there is no layer to draw")
    width = max(_NARROWEST, 0.9 + _INCHES_PER_LAYER * len(layers))
    figure, axes = new_axes(width, 3.6, long_labels=True)
    places = np.arange(len(layers))
    colors = method_colors(list(quality))
    for number, (name, by_layer) in enumerate(quality.items()):
        rows = np.array([_summary(name, layer, by_layer.get(layer)) for layer in layers])
        mean, low, high = rows.clip(0, 1).T
        color = colors[name]
        axes.plot(
            places, mean, color=color, linewidth=1.4, marker="o", label=name, clip_on=False,
            # Estimators may agree: smaller and dashed, a later one leaves the earlier visible.
            markersize=max(2.0, 5.5 - number), linestyle=("-", "--", "-.", ":")[number % 4],
            zorder=3,
        )  # fmt: skip
        axes.fill_between(places, low, high, color=color, alpha=0.13, linewidth=0)
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_ylim(0, 1)
    axes.set_xticks(places, layers, rotation=90, fontsize=7)
    axes.grid(visible=False, axis="x")
    name_axes(axes, "", "signal quality rho")
    figure.legend(
        loc="outside upper center",
        ncols=min(len(quality), int(width / _LEGEND_INCHES)),
        fontsize=8,
        columnspacing=1.2,
        labelcolor=axes.yaxis.label.get_color(),
        frameon=False,
    )
    return figure_png(figure)


def _summary(name: str, layer: str, rho: Tensor | None) -> tuple[float, float, float]:
    """Return mean and quartiles of the units that have a rho."""
    if rho is None:
        return np.nan, np.nan, np.nan
    if rho.dim() != 1:
        raise ShapeError(
            f"expected rho of {name!r} in layer {layer!r} as (units,), got {tuple(rho.shape)}"
        )
    values = rho.detach().double().cpu().numpy()
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return np.nan, np.nan, np.nan
    low, high = np.quantile(values, [0.25, 0.75])
    return float(values.mean()), float(low), float(high)
