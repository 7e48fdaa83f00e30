"""The training points that explain a prediction, before and after an attack."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.fragility.influence_result import InfluenceAttackResult
from captum_blackbox.report.figure import figure_png
from captum_blackbox.report.overlay import check_finite

_INK, _RESOLUTION, _FONT = "#33383e", 200, 8
_STAYS, _NEW = "#0072b2", "#d55e00"  # Okabe and Ito's blue and vermilion
_CELL, _LINE, _GAP = 1.15, 0.36, 0.12  # inches: a picture, the text above it, between pictures


def exemplars_png(
    result: InfluenceAttackResult,
    train_dataset: Sequence[Any] | Any,  # noqa: ANN401 - map-style
    *,
    number: int = 0,
    k: int = 5,
    classes: Sequence[str] | None = None,
    as_picture: Callable[[Tensor], Tensor] | None = None,
) -> bytes:
    """Draw an image and its most helpful training points, above before the attack, below after it.

    Below, a blue frame is around the training points that were helpful before, a red one around the
    others. Above each stand its number, its class and its influence.

    Args:
        result: Of the attack.
        train_dataset: That of the attack.
        number: Which of the attacked images.
        k: How many training points; fewer where there are fewer.
        classes: A name per class number; by default the number.
        as_picture: Turns an input into a picture ``(1, H, W)`` or ``(3, H, W)`` in [0, 1], for
            networks that take others; clipped to it.

    Returns:
        A PNG.

    Raises:
        InputError: There is no such image, or ``k`` is below 1.
        ShapeError: An input is no picture, or has a value that is not finite.

    References:
        Ghorbani, Abid, Zou, "Interpretation of Neural Networks Is Fragile", AAAI 2019, fig. 5.
    """
    if not 0 <= number < len(result.inputs) or k < 1:
        raise InputError(
            f"number is between 0 and {len(result.inputs) - 1} and k at least 1, got number "
            f"{number} and k {k}"
        )
    clean, attacked = (each[number].tolist() for each in result.exemplars(k))
    figure = Figure(dpi=_RESOLUTION)
    FigureCanvasAgg(figure)
    grid = _Grid(figure, 1 + len(clean))
    label = _class_name(int(result.label[number]), classes)
    rows = (
        (result.clean_inputs, result.clean, clean, "before"),
        (result.inputs, result.attacked, attacked, "after"),
    )
    for row, (images, influence, numbers, when) in enumerate(rows):
        picture = _picture(images[number], as_picture)
        grid.show(row, 0, picture, f"{when}: {label}", None)
        for column, point in enumerate(numbers, start=1):
            image, target = train_dataset[point]
            title = f"#{point} {_class_name(int(target), classes)}\n{influence[number, point]:+.2g}"
            color = None if row == 0 else _STAYS if point in clean else _NEW
            grid.show(row, column, _picture(image, as_picture), title, color)
    return figure_png(figure)


class _Grid:
    """Two rows of pictures, the first column set apart."""

    def __init__(self, figure: Figure, columns: int) -> None:
        self.width = columns * (_CELL + _GAP) + 3 * _GAP
        self.height = 2 * (_CELL + _LINE + _GAP)
        figure.set_size_inches(self.width, self.height)
        self.figure = figure

    def show(
        self, row: int, column: int, picture: np.ndarray, title: str, frame: str | None
    ) -> None:
        """Draw one picture, its title above and perhaps a frame around it."""
        left = _GAP + column * (_CELL + _GAP) + (2 * _GAP if column else 0)
        bottom = self.height - (row + 1) * (_CELL + _LINE) - row * _GAP
        place = (left / self.width, bottom / self.height, _CELL / self.width, _CELL / self.height)
        axes: Axes = self.figure.add_axes(place)
        axes.imshow(picture, interpolation="nearest", vmin=0, vmax=1)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set(visible=frame is not None, color=frame or _INK, linewidth=2.5)
        axes.set_title(title, fontsize=_FONT, color=_INK, pad=3)


def _class_name(label: int, classes: Sequence[str] | None) -> str:
    return str(label) if classes is None else classes[label]


def _picture(image: Tensor, as_picture: Callable[[Tensor], Tensor] | None) -> np.ndarray:
    shown = image if as_picture is None else as_picture(image)
    if shown.dim() != 3 or len(shown) not in {1, 3}:
        raise ShapeError(
            f"expected a picture (1, H, W) or (3, H, W), got shape {tuple(shown.shape)}; give "
            "as_picture"
        )
    check_finite(shown, "picture")
    colors = shown.detach().to("cpu", torch.float32).clamp(0, 1).expand(3, -1, -1)
    pixels: np.ndarray = colors.permute(1, 2, 0).numpy()
    return pixels
