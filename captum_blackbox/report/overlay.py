"""Pictures and the heat maps that lie on them, as PNG."""

import io
import math
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from captum_blackbox.errors import ShapeError

Floor: TypeAlias = Literal["zero", "minimum"]
Pixels: TypeAlias = UInt8[np.ndarray, "height width rgb"]
Heat: TypeAlias = Float[np.ndarray, "height width"]

COLORMAP = "inferno"  # perceptually uniform, and its order survives a grey print
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


def picture_png(picture: Tensor, *, edge: int = 224) -> bytes:
    """Return a picture as PNG.

    Args:
        picture: ``(C, H, W)`` in [0, 1], clipped to it; one channel is grey, three are colours.
        edge: Longer edge of the PNG, in pixels; smaller pictures grow by a whole factor at least to
            it.

    Raises:
        ShapeError: The picture has another shape or a value that is not finite.

    Example:
        >>> import torch
        >>> picture_png(torch.rand(3, 8, 8))[1:4]
        b'PNG'
    """
    return png_bytes(Image.fromarray(_pixels(picture, edge)))


def overlay_png(
    picture: Tensor, heat: Tensor, *, edge: int = 224, floor: Floor = "zero", opacity: float = 0.7
) -> bytes:
    """Return a heat map over the grey version of its picture, as PNG.

    Each map has its own scale, so colours compare pixels of one map and never two maps. A map
    without any contrast, for instance zero everywhere, leaves the picture grey.

    Args:
        picture: ``(C, H, W)`` in [0, 1].
        heat: Importance per pixel, ``(H, W)`` or ``(1, H, W)``; larger means more important.
        edge: As for :func:`picture_png`.
        floor: What the coldest colour stands for: ``"zero"``, for maps in which 0 means no
            importance, or ``"minimum"``, for maps whose zero means nothing, such as RISE's.
        opacity: Of the hottest colour, in [0, 1]; the coldest has half of it.

    Raises:
        ShapeError: The shapes do not fit each other or a value is not finite.

    Example:
        >>> import torch
        >>> overlay_png(torch.rand(3, 8, 8), torch.zeros(8, 8))[1:4]
        b'PNG'
    """
    pixels = _pixels(picture, edge)
    grey = (pixels @ np.array(_GREY))[..., None].repeat(3, axis=2)
    scaled = _scaled(heat, floor)
    if scaled is None:
        return png_bytes(Image.fromarray(grey[..., 0].round().astype(np.uint8)))
    height, width = pixels.shape[:2]
    smooth = np.asarray(
        Image.fromarray(scaled.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    ).clip(0, 1)
    alpha = (opacity * (0.5 + 0.5 * smooth))[..., None]
    mixed = (1 - alpha) * grey + alpha * 255 * colormaps[COLORMAP](smooth)[..., :3]
    # 256 colours are enough for a map and take a third of the space.
    image = Image.fromarray(mixed.round().astype(np.uint8))
    return png_bytes(image.quantize(256, method=Image.Quantize.FASTOCTREE))


def heat_png(heat: Tensor, *, edge: int = 96, floor: Floor = "zero") -> bytes:
    """Return a heat map alone, as a small PNG with a palette; a map without contrast is grey.

    Args:
        heat: ``(H, W)`` or ``(1, H, W)``.
        edge: As for :func:`picture_png`.
        floor: As for :func:`overlay_png`.

    Raises:
        ShapeError: The map has another shape or a value that is not finite.

    Example:
        >>> import torch
        >>> heat_png(torch.rand(1, 8, 8))[1:4]
        b'PNG'
    """
    scaled = _scaled(heat, floor)
    height, width = fitted_size(heat.shape[-2], heat.shape[-1], edge)
    if scaled is None:
        return png_bytes(Image.new("L", (width, height), 128))
    small = Image.fromarray((255 * scaled).round().astype(np.uint8))
    image = small.resize((width, height), Image.Resampling.BILINEAR)
    palette = 255 * colormaps[COLORMAP](np.arange(256))[:, :3]
    image.putpalette(palette.round().astype(np.uint8).tobytes())
    return png_bytes(image)


def _scaled(heat: Tensor, floor: Floor) -> Heat | None:
    if heat.dim() not in {2, 3} or (heat.dim() == 3 and len(heat) != 1):
        raise ShapeError(f"expected a map (H, W) or (1, H, W), got {tuple(heat.shape)}")
    check_finite(heat, "map")
    values = heat.detach().double().cpu().reshape(heat.shape[-2:]).numpy()
    low = 0.0 if floor == "zero" else float(values.min())
    span = float(values.max()) - low
    # Subnormal spans would overflow in the division.
    if span <= np.finfo(np.float32).tiny:
        return None
    scaled: Heat = ((values - low) / span).clip(0, 1)
    return scaled


def _pixels(picture: Tensor, edge: int) -> Pixels:
    if picture.dim() != 3 or len(picture) not in {1, 3}:
        raise ShapeError(
            f"expected a picture (1, H, W) or (3, H, W), got shape {tuple(picture.shape)}"
        )
    check_finite(picture, "picture")
    resized = resize(picture.detach().float().cpu(), edge)
    colors = resized.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0)
    pixels: Pixels = (255 * colors).round().byte().numpy()
    return pixels


def resize(channels: Tensor, edge: int) -> Tensor:
    """Return ``(C, H, W)`` with ``edge`` as its longer edge, or a whole factor larger."""
    size = fitted_size(channels.shape[1], channels.shape[2], edge)
    small = size[0] < channels.shape[1]
    mode = "bilinear" if small else "nearest"
    return F.interpolate(channels[None], size, mode=mode, antialias=small)[0]


def fitted_size(height: int, width: int, edge: int) -> tuple[int, int]:
    """Return height and width of a picture whose longer edge becomes at least ``edge``."""
    factor = edge / max(height, width)
    # Small pictures grow by whole factors, so that all their pixels stay equally large.
    factor = math.ceil(factor) if factor > 1 else factor
    return max(1, round(height * factor)), max(1, round(width * factor))


def check_finite(tensor: Tensor, what: str) -> None:
    """Refuse NaN and infinite values.

    Raises:
        ShapeError: There is one.
    """
    if not bool(tensor.isfinite().all()):
        raise ShapeError(f"the {what} has a value that is not finite")


def png_bytes(image: Image.Image) -> bytes:
    """Return the picture as PNG; the same picture gives the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
