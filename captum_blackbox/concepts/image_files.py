"""Pictures and masks from files, Pillow images or tensors, in the size that is asked for."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from captum_blackbox.concepts.image_loading import load_image
from captum_blackbox.errors import DataError, InputError

Size: TypeAlias = int | tuple[int, int]
"""Height and width, or one number for both."""

Integers: TypeAlias = NDArray[np.integer]

_MOST_OF_16_BITS = (1 << 16) - 1


def height_and_width(name: str, size: Size) -> tuple[int, int]:
    """Return ``size`` as two numbers.

    Raises:
        InputError: One of them is below 1.

    Example:
        >>> height_and_width("size", 224)
        (224, 224)
    """
    pair = (size, size) if isinstance(size, int) else size
    if len(pair) != 2 or min(pair) < 1:
        raise InputError(f"{name} is a number of pixels, or two (height, width), got {size!r}")
    return pair


def mask_size_for(image_size: tuple[int, int], mask_size: Size | None) -> tuple[int, int]:
    """Return ``mask_size`` as two numbers; without one, half the image's, as in Broden."""
    if mask_size is not None:
        return height_and_width("mask_size", mask_size)
    height, width = image_size
    return max(1, height // 2), max(1, width // 2)


def check_proportions(image: tuple[int, ...], mask: tuple[int, ...], where: str) -> None:
    """Refuse a mask that cannot lie on its image: its sides, by half a pixel, in another ratio.

    Args:
        image: Height and width.
        mask: Height and width, any resolution.
        where: What the message starts with.

    Raises:
        DataError: The proportions differ.

    Example:
        >>> check_proportions((375, 500), (187, 250), "the mask")
        >>> check_proportions((375, 500), (500, 375), "the mask")
        Traceback (most recent call last):
        ...
        captum_blackbox.errors.DataError: the mask has 500 × 375 pixels (height × width) and its
        image 375 × 500: they do not show the same
    """
    difference = abs(image[0] * mask[1] - image[1] * mask[0])
    if 2 * difference > sum(image):  # half a pixel in both sides of the mask
        raise DataError(
            f"{where} has {mask[0]} × {mask[1]} pixels (height × width) and its image {image[0]} × "
            f"{image[1]}: they do not show the same"
        )


def picture(image: Image.Image, size: tuple[int, int] | None = None) -> Tensor:
    """Turn a Pillow image into red, green and blue, ``(3, H, W)`` float32 in [0, 1].

    Args:
        image: Of 8 or 16 bits, in any mode.
        size: Height and width; another size is resized bilinearly with antialiasing, stretched
            where the proportions differ, as the masks are.

    Raises:
        DataError: It has 32 bits, whose range no file tells.

    Example:
        >>> picture(Image.new("L", (4, 2), 51), (1, 2))[:, 0, 0]
        tensor([0.2000, 0.2000, 0.2000])
    """
    coloured = of_8_bits(image).convert("RGB")
    if size is not None and coloured.size != size[::-1]:
        coloured = coloured.resize(size[::-1], Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(coloured))
    return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div_(255)


def of_8_bits(image: Image.Image) -> Image.Image:
    """Return a grey image of 16 bits with 8, which Pillow clips instead; others as they are."""
    if image.mode == "F" or (image.mode == "I" and np.asarray(image).max() > _MOST_OF_16_BITS):
        name = getattr(image, "filename", "") or "the image"
        raise DataError(
            f"{str(name)!r} is an image of mode {image.mode}, 32 bits; expected 8 or 16 bits a "
            "channel: convert it"
        )
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int32).clip(0)
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def picture_from_tensor(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Turn ``(3 or 1, H, W)``, uint8 or float in [0, 1], into float32 in [0, 1] of ``size``.

    Raises:
        InputError: It is no such tensor.
    """
    if pixels.dim() != 3 or pixels.shape[0] not in {1, 3}:
        raise InputError(f"expected an image (3, H, W), got a tensor of {tuple(pixels.shape)}")
    check_pixels(pixels)
    values = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
    if values.shape[1:] != size:
        resized = F.interpolate(values[None], size, mode="bilinear", antialias=True)
        values = resized[0].clamp(0, 1)
    return values.expand(3, -1, -1)


def check_pixels(pixels: Tensor) -> None:
    """Refuse pixels that are neither uint8 nor float in [0, 1].

    Raises:
        InputError: The message says what they are.
    """
    if pixels.dtype == torch.uint8:
        return
    if not pixels.is_floating_point():
        raise InputError(f"expected images as uint8 or float in [0, 1], got {pixels.dtype}")
    lowest, highest = (each.item() for each in pixels.aminmax())
    if not 0 <= lowest <= highest <= 1:
        raise InputError(
            f"expected images in [0, 1], got values from {lowest:.4g} to {highest:.4g}; leave the "
            "normalisation to the model"
        )


def mask_values(image: Image.Image, where: str) -> Integers:
    """Return the values of a mask of one channel, or the positions in its palette.

    Raises:
        DataError: The image has several channels.
    """
    if image.mode not in {"1", "L", "P", "I", "I;16", "I;16B"}:
        raise DataError(
            f"{where} is an image of mode {image.mode}; expected a mask of one channel, of 8 or 16 "
            "bits, or one with a palette"
        )
    return np.asarray(image).astype(np.int32)


def code_values(path: Path, bits: int = 16) -> Integers:
    """Read numbers that are coded as red + 256 green, and with 24 bits + 65536 blue.

    Raises:
        DataError: The file is missing or broken, or has no such channels.
    """
    image = load_image(path)
    if image.mode in {"P", "RGBA"}:  # some programs shrink files so, or add what is not used
        image = image.convert("RGB")
    if image.mode != "RGB":
        raise DataError(
            f"{str(path)!r} is an image of mode {image.mode}; expected red, green and blue, in "
            "which the labels are coded"
        )
    # Four bytes a pixel, as Pillow keeps them: the first two, or three, are the number.
    pixels = np.frombuffer(image.tobytes("raw", "RGBX"), dtype="<u4" if bits == 24 else "<u2")
    codes = pixels & 0xFFFFFF if bits == 24 else pixels[::2]
    return codes.reshape(image.height, image.width)


def nearest(values: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int32]:
    """Resize a mask: each new pixel takes the value of the old pixel that its centre lies in.

    Example:
        >>> nearest(np.arange(4, dtype=np.int32).reshape(1, 4), (1, 2))
        array([[1, 3]], dtype=int32)
    """
    if values.shape == size:
        return values
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for old, new in zip(values.shape, size, strict=True)
    )
    resized: NDArray[np.int32] = values[rows[:, None], columns]
    return resized


def digest_of(*parts: object) -> str:
    """Return a hash of settings that are JSON, tensors' own hashes among them.

    Example:
        >>> digest_of("a", 1) == digest_of("a", 1) != digest_of("a", 2)
        True
    """
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def digest_of_files(paths: Iterable[Path | str]) -> str:
    """Return a hash of names, sizes and times of change; no file is read, and none has to be."""
    seen = hashlib.sha256()
    for path in map(Path, paths):
        try:
            state = path.stat()
            seen.update(f"{path.name} {state.st_size} {state.st_mtime_ns}\n".encode())
        except OSError:
            seen.update(f"{path.name} missing\n".encode())
    return seen.hexdigest()[:32]
