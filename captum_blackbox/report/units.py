"""What the units of one layer detect: bars of concepts, and the images that units like best."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from captum_blackbox.dissection.result import Dissection
from captum_blackbox.dissection.units import Convention
from captum_blackbox.errors import ShapeError
from captum_blackbox.report.figure import figure_png, method_colors, name_axes, new_axes
from captum_blackbox.report.lit_picture import lit
from captum_blackbox.report.overlay import check_finite, png_bytes, resize

_ORDER = ("object", "scene", "part", "material", "texture", "color")  # of the published figures
_INCHES = 9.0  # width
_WIDE = 5.2  # enough for a legend in one line
_MOST_BARS = 64  # side by side
_NARROWEST = 20  # bars, so that few of them do not become blocks
_INCHES_PER_LETTER = 0.052
_INK, _RESOLUTION, _FONT, _GAP = "#33383e", 200, 9, 8


def category_colors(categories: Sequence[str]) -> dict[str, str]:
    """Return a colour per category, those of the published figures first and in their order.

    Broden's six have the same colours in every figure, whichever of them there are.

    Example:
        >>> category_colors(["color", "object"])
        {'object': '#0072b2', 'color': '#56b4e9'}
    """
    known = [category for category in _ORDER if category in categories]
    palette = method_colors(_ORDER)
    others = [category for category in categories if category not in _ORDER]
    free = [color for category, color in palette.items() if category not in known]
    spare = free or list(palette.values())
    own = {category: spare[i % len(spare)] for i, category in enumerate(others)}
    return {category: palette[category] for category in known} | own


def shown_name(label: str) -> str:
    """Return a label as people write it; Broden marks scenes by ``-s`` and colours by ``-c``.

    Example:
        >>> shown_name("train_station-outdoor-s")
        'train station-outdoor'
    """
    return label.removesuffix("-s").removesuffix("-c").replace("_", " ")


def detector_bars_png(
    dissection: Dissection,
    *,
    convention: Convention = "per_category",
    iou_threshold: float | None = None,
) -> bytes:
    """Draw a bar for each concept that the units of a layer detect: how many of them do.

    Bars stand by category and, within one, in descending order; of equals the one with the higher
    IoU comes first. Many bars go on below, each row with a scale of its own.

    Args:
        dissection: Of a layer.
        convention: ``"per_category"``: a unit may stand in one bar of each category;
            ``"best_only"``: in one bar.
        iou_threshold: What an IoU must exceed; by default that of the dissection.

    Returns:
        A PNG.

    Raises:
        InputError: There is no such convention, or the threshold is no IoU below 1.

    References:
        Bau et al., "Network Dissection", CVPR 2017, fig. 5 and 7.

    Example:
        >>> from captum_blackbox.concepts.concepts import Label
        >>> one, settings = torch.ones(1, 1).long(), {"iou_threshold": 0.1, "images": 1, "data": ""}
        >>> parts = ("conv5", ("part",), (Label("wheel", "part"),))
        >>> result = Dissection(*parts, one[0], one, one, one[0], one, one, settings)
        >>> detector_bars_png(result)[1:4]
        b'PNG'
    """
    count = dissection.count(convention, iou_threshold)
    colors = category_colors(dissection.categories)
    bars = [
        (shown_name(label), len(units), color)
        for category, color in colors.items()
        for label, units in count.concepts.get(category, {}).items()
    ]
    title = (
        f"{count.units_with_any}/{count.units} units covering {count.total_unique} concepts "
        f"with IoU > {count.iou_threshold:g}"
    )
    lines = max(1, math.ceil(len(bars) / _MOST_BARS))
    across = max(_NARROWEST, math.ceil(len(bars) / lines))
    panels = [bars[start : start + across] for start in range(0, len(bars) or 1, across)]
    width = max(0.55 * _INCHES, _INCHES * across / _MOST_BARS)
    drawn: list[bytes] = []
    for panel in panels:
        names, heights, shades = zip(*panel, strict=True) if panel else ((), (), ())
        height = 1.9 + _INCHES_PER_LETTER * max(map(len, names), default=0)
        figure, axes = new_axes(width, height if drawn else height + 0.4, long_labels=True)
        axes.bar(range(len(panel)), heights, color=shades, width=0.78)
        axes.set_xticks(range(len(panel)), names, rotation=90)
        axes.tick_params(axis="x", length=0, labelsize=6.5, pad=1)
        axes.grid(visible=False, axis="x")
        axes.set_xlim(-0.7, across - 0.3)
        axes.set_ylim(0, 1.05 * max(heights, default=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        name_axes(axes, "", "units")
        if not drawn:
            _add_heading(figure, title, count.unique, colors)
        drawn.append(figure_png(figure))
    return drawn[0] if len(drawn) == 1 else _stacked(drawn)


def unit_gallery_png(
    pictures: Tensor, masks: Tensor, titles: Sequence[str], *, edge: int = 112
) -> bytes:
    """Draw for each unit the images that it likes best, dark where the unit is not active.

    Args:
        pictures: ``(U, T, C, H, W)`` in [0, 1], clipped to it: ``T`` images of each unit; one
            channel is grey, three are colours.
        masks: ``(U, T, H, W)`` bool: where the unit is active.
        titles: What stands above the images of each unit.
        edge: Longer edge of an image in the PNG, in pixels; a small image grows by a whole factor
            at least to it.

    Returns:
        A PNG with a row per unit.

    Raises:
        ShapeError: The shapes do not fit each other, there is no image, or a value is not finite.

    References:
        Bau et al., "Network Dissection", CVPR 2017, fig. 4; an image is shown as
        ``(0.8 mask + 0.2) image``.

    Example:
        >>> masks = torch.ones(1, 4, 8, 8, dtype=torch.bool)
        >>> unit_gallery_png(torch.rand(1, 4, 3, 8, 8), masks, ["unit 12 · wheel (part)"])[1:4]
        b'PNG'
    """
    _check_gallery(pictures, masks, titles)
    check_finite(pictures, "picture")
    shown = lit(pictures.detach().float().cpu(), masks)
    rows = [[_pixels(picture, edge) for picture in row] for row in shown]
    height, width = rows[0][0].shape[:2]
    figure = Figure(dpi=_RESOLUTION)
    FigureCanvasAgg(figure)
    texts = [figure.text(0, 0, title, fontsize=_FONT, color=_INK) for title in titles]
    boxes = [text.get_window_extent() for text in texts]
    line = int(max(box.height for box in boxes)) + _GAP
    pitch = line + height + 2 * _GAP
    grid = len(rows[0]) * (width + _GAP) + _GAP
    size = (max(grid, int(max(box.width for box in boxes)) + 3 * _GAP), len(rows) * pitch + _GAP)
    figure.set_size_inches(size[0] / _RESOLUTION, size[1] / _RESOLUTION)
    paper = np.full((size[1], size[0], 3), 255, dtype=np.uint8)
    for number, (text, row) in enumerate(zip(texts, rows, strict=True)):
        top = number * pitch + _GAP
        text.set(x=_GAP / size[0], y=1 - top / size[1], va="top")
        for column, picture in enumerate(row):
            left = _GAP + column * (width + _GAP)
            paper[top + line : top + line + height, left : left + width] = picture
    figure.figimage(paper)
    return figure_png(figure)


def _check_gallery(pictures: Tensor, masks: Tensor, titles: Sequence[str]) -> None:
    shape = tuple(pictures.shape)
    if pictures.dim() != 5 or shape[2] not in {1, 3} or pictures.numel() == 0:
        raise ShapeError(f"expected pictures (U, T, 3, H, W), at least one, got shape {shape}")
    if tuple(masks.shape) != shape[:2] + shape[3:] or masks.dtype != torch.bool:
        raise ShapeError(
            f"expected masks {shape[:2] + shape[3:]} bool for pictures {shape}, got "
            f"{tuple(masks.shape)} {masks.dtype}"
        )
    if len(titles) != shape[0]:
        raise ShapeError(f"expected a title for each of {shape[0]} units, got {len(titles)}")


def _pixels(picture: Tensor, edge: int) -> np.ndarray:
    colors = resize(picture, edge).expand(3, -1, -1).permute(1, 2, 0)
    pixels: np.ndarray = (255 * colors).round().byte().numpy()
    return pixels


def _add_heading(
    figure: Figure, title: str, unique: Mapping[str, int], colors: Mapping[str, str]
) -> None:
    """Add the title, and below it the categories and how many concepts of each are detected."""
    legend = figure.legend(
        handles=[
            Patch(color=color, label=f"{category} {unique.get(category, 0)}")
            for category, color in colors.items()
        ],
        loc="outside upper center",
        ncols=6 if figure.get_figwidth() > _WIDE else 3,
        fontsize=_FONT - 1,
        labelcolor=_INK,
        frameon=False,
        handlelength=1,
        columnspacing=1.2,
        title=title,
    )
    legend.get_title().set(fontsize=_FONT, color=_INK)


def _stacked(pngs: Sequence[bytes]) -> bytes:
    images = [Image.open(io.BytesIO(png)).convert("RGB") for png in pngs]
    paper = Image.new("RGB", (images[0].width, sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        paper.paste(image, (0, top))
        top += image.height
    return png_bytes(paper)
