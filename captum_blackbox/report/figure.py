"""What all figures share: size, colours, and how they become PNG."""

import io
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_INK, _FAINT = "#33383e", "#d9dde2"
_RESOLUTION = 200  # dots per inch: sharp on a screen with two dots per pixel
_FONT = 9

# Okabe and Ito's colours, told apart by most colour-blind readers; grey for the random control.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_RANDOM_COLOR = "#7a7f85"


def method_colors(names: Sequence[str]) -> dict[str, str]:
    """Return a colour per method, the same in every figure and table that lists the same methods.

    Example:
        >>> method_colors(["Layer sum", "Random"])
        {'Layer sum': '#0072b2', 'Random': '#7a7f85'}
    """
    others = [name for name in names if name.lower() != "random"]
    colors = {name: _COLORS[i % len(_COLORS)] for i, name in enumerate(others)}
    return {name: colors.get(name, _RANDOM_COLOR) for name in names}


def new_axes(width: float, height: float, *, long_labels: bool = False) -> tuple[Figure, Axes]:
    """Return a figure of ``width × height`` inches and its axes, without global state.

    ``long_labels`` measures the labels and makes room for them, which takes a second drawing.
    """
    layout: Literal["constrained"] | None = "constrained" if long_labels else None
    figure = Figure(figsize=(width, height), dpi=_RESOLUTION, layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if not long_labels:
        room = 0.46 / height  # inches for the numbers and the name below the axis
        figure.subplots_adjust(left=0.53 / width, right=1 - 0.18 / width, bottom=room, top=0.965)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(labelsize=_FONT - 1, colors=_INK, color=_FAINT)
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=_FAINT, linewidth=0.5)
    return figure, axes


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Label both axes."""
    axes.set_xlabel(x, fontsize=_FONT, color=_INK)
    axes.set_ylabel(y, fontsize=_FONT, color=_INK)


def figure_png(figure: Figure) -> bytes:
    """Return the figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
