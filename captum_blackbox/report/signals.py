"""Signals, signed attributions, and grids of pictures, as in figure 5 of the paper on patterns."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.report.figure import figure_png
from captum_blackbox.report.overlay import check_finite, png_bytes, resize

Picture: TypeAlias = bytes | np.ndarray
"""A PNG, or an array ``(H, W)`` or ``(H, W, 3)`` of uint8."""

DIVERGING = "seismic"
_HALF = 127  # an odd number of colours, 2 · 127 + 1, so that 0 has one of its own: white

_INK = "#33383e"
_RESOLUTION, _FONT = 200, 10  # dots per inch, points
_GAP = 8  # pixels between pictures
_SLANT = 40  # degrees, of column names that are wider than a picture
_LONGEST_LINE = 18  # letters of a row's name


def signal_png(signal: Tensor, *, edge: int = 224) -> bytes:
    """Return a signal, such as PatternNet's, in its own colours: ``x / (2 max|x|) + 1/2``.

    Each signal has its own scale. Zero is mid-grey, and so is a signal that is zero everywhere.

    Args:
        signal: ``(1, H, W)`` or ``(3, H, W)``, any real numbers.
        edge: Longer edge of the PNG, in pixels; smaller signals grow by a whole factor at least to
            it.

    Raises:
        ShapeError: The signal has another shape or a value that is not finite.

    References:
        Kindermans et al., "Learning how to explain neural networks", ICLR 2018, fig. 5; the scale
        is that of its public code.

    Example:
        >>> import torch
        >>> signal_png(torch.randn(3, 8, 8))[1:4]
        b'PNG'
    """
    if signal.dim() != 3 or len(signal) not in {1, 3} or signal.numel() == 0:
        raise ShapeError(
            f"expected a signal (1, H, W) or (3, H, W), got shape {tuple(signal.shape)}"
        )
    colors = (_within_one(signal, "signal", edge) / 2 + 0.5).expand(3, -1, -1).permute(1, 2, 0)
    return png_bytes(Image.fromarray((255 * colors).round().byte().numpy()))


def attribution_png(attribution: Tensor, *, edge: int = 224) -> bytes:
    """Return a signed map, red above zero and blue below, its channels summed.

    The map is divided by its largest absolute value, so each has its own scale. Zero is white, and
    so is a map that is zero everywhere.

    Args:
        attribution: ``(H, W)``, ``(1, H, W)`` or ``(C, H, W)``, any real numbers.
        edge: As for :func:`signal_png`.

    Raises:
        ShapeError: The map has another shape or a value that is not finite.

    References:
        As for :func:`signal_png`.

    Example:
        >>> import torch
        >>> attribution_png(torch.randn(3, 8, 8))[1:4]
        b'PNG'
    """
    if attribution.dim() not in {2, 3} or attribution.numel() == 0:
        raise ShapeError(f"expected a map (H, W) or (C, H, W), got {tuple(attribution.shape)}")
    # Doubles, in which a sum of finite channels of a narrower type is finite too.
    summed = attribution.double().reshape(-1, *attribution.shape[-2:]).sum(0, keepdim=True)
    scaled = _within_one(summed, "map", edge)[0].numpy()
    image = Image.fromarray((_HALF + _HALF * scaled).round().astype(np.uint8))
    palette = 255 * colormaps[DIVERGING].resampled(2 * _HALF + 1)(np.arange(2 * _HALF + 1))[:, :3]
    image.putpalette(palette.round().astype(np.uint8).tobytes())
    return png_bytes(image)


def montage_png(
    rows: Mapping[str, Sequence[Picture]], columns: Sequence[str], *, edge: int = 224
) -> bytes:
    """Return a grid of pictures, the names of the rows on the left and of the columns on top.

    Args:
        rows: Name, usually of an image, → its pictures, one per column: PNGs, such as those of
            :func:`signal_png`, or arrays ``(H, W)`` or ``(H, W, 3)`` of uint8.
        columns: Names, usually of methods.
        edge: Longer edge of every picture in the grid, in pixels; smaller pictures grow by a whole
            factor at most to it. Draw the pictures with the same ``edge``: shrinking a drawn map
            would mix its red and blue to purple, which stands for nothing.

    Raises:
        InputError: There is no row or no column, a row has another number of pictures, or bytes
            are no picture.
        ShapeError: An array is no picture.

    Example:
        >>> import torch
        >>> pictures = [signal_png(torch.randn(3, 8, 8)), attribution_png(torch.randn(8, 8))]
        >>> montage_png({"cat": pictures}, ["PatternNet", "PatternAttribution"])[1:4]
        b'PNG'
    """
    _check_grid(rows, columns)
    figure = Figure(dpi=_RESOLUTION)
    FigureCanvasAgg(figure)
    beside = [_name(figure, textwrap.fill(name, _LONGEST_LINE)) for name in rows]
    above = [_name(figure, name) for name in columns]
    slanted = max(_size(name)[0] for name in above) > edge
    if slanted:
        for text in above:
            text.set(rotation=_SLANT, rotation_mode="anchor")
    left = max(_size(name)[0] for name in beside) + 2 * _GAP
    top = max(_size(name)[1] for name in above) + 2 * _GAP
    pitch = edge + _GAP
    middles = [left + column * pitch + edge // 2 for column in range(len(columns))]
    # A slanted name starts above the middle of its picture and may end beyond the last one.
    ends = [middle + _size(name)[0] for middle, name in zip(middles, above, strict=True)]
    width = max(left + len(columns) * pitch, max(ends) + _GAP if slanted else 0)
    height = top + len(rows) * pitch
    figure.set_size_inches(width / _RESOLUTION, height / _RESOLUTION)
    aligned = "left" if slanted else "center"
    for text, x in zip(above, middles, strict=True):
        text.set(x=x / width, y=1 - (top - _GAP) / height, ha=aligned, va="bottom")
    for row, text in enumerate(beside):
        y = top + row * pitch + edge / 2
        text.set(x=(left - _GAP) / width, y=1 - y / height, ha="right", va="center")
    paper = Image.new("RGB", (width, height), "white")
    for row, pictures in enumerate(rows.values()):
        for middle, picture in zip(middles, pictures, strict=True):
            image = _fitted(picture, edge)
            down = top + row * pitch + (edge - image.height) // 2
            paper.paste(image, (middle - image.width // 2, down))
    figure.figimage(np.asarray(paper))
    return figure_png(figure)


def _within_one(values: Tensor, what: str, edge: int) -> Tensor:
    """Return ``(C, H, W)`` at the size it is drawn, in double, divided by its largest value."""
    check_finite(values, what)
    # Divided after resizing too: averaging pixels of both signs would leave a pale picture.
    resized = resize(_divided(values.detach().double().cpu()), edge)
    return _divided(resized)


def _divided(values: Tensor) -> Tensor:
    largest = values.abs().amax()
    return values if largest == 0 else values / largest


def _check_grid(rows: Mapping[str, Sequence[Picture]], columns: Sequence[str]) -> None:
    if not rows or not columns:
        raise InputError(f"there is no grid of {len(rows)} rows and {len(columns)} columns to draw")
    for name, pictures in rows.items():
        if len(pictures) != len(columns):
            raise InputError(
                f"row {name!r} has {len(pictures)} pictures for {len(columns)} columns"
            )


def _name(figure: Figure, text: str) -> Text:
    return figure.text(0, 0, text, fontsize=_FONT, color=_INK)


def _size(name: Text) -> tuple[int, int]:
    """Return width and height in pixels."""
    box = name.get_window_extent()
    return math.ceil(box.width), math.ceil(box.height)


def _fitted(picture: Picture, edge: int) -> Image.Image:
    image = _image(picture)
    factor = edge / max(image.size)
    if factor >= 1:
        return image.resize(
            (image.width * int(factor), image.height * int(factor)), Image.Resampling.NEAREST
        )
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _image(picture: Picture) -> Image.Image:
    if isinstance(picture, bytes):
        try:
            return Image.open(io.BytesIO(picture)).convert("RGB")
        except UnidentifiedImageError as error:
            raise InputError(
                f"{len(picture)} bytes were given as a picture and are none that can be read"
            ) from error
    grey, colors = picture.ndim == 2, picture.ndim == 3 and picture.shape[-1] == 3
    if picture.dtype != np.uint8 or picture.size == 0 or not (grey or colors):
        raise ShapeError(
            "expected a picture as PNG or as an array (H, W) or (H, W, 3) of uint8, got "
            f"{picture.dtype} of shape {picture.shape}"
        )
    return Image.fromarray(picture).convert("RGB")
