"""What images and masks of one's own can be, and whether they fit each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

from PIL import Image
from torch import Tensor

from captum_blackbox.concepts.image_files import (
    Size,
    check_pixels,
    check_proportions,
    height_and_width,
    mask_size_for,
)
from captum_blackbox.concepts.image_loading import size_of_file
from captum_blackbox.concepts.value_table import Names, ValueTable
from captum_blackbox.errors import DataError, InputError

File: TypeAlias = str | Path | Image.Image
"""An image file, or an image in memory."""

Pictures: TypeAlias = Tensor | Sequence[File]
"""All images, or all masks of a category."""


def on_cpu(pictures: Pictures) -> Pictures:
    """Return tensors without their graph and on the CPU, files as they are."""
    return pictures.detach().cpu() if isinstance(pictures, Tensor) else pictures


def check_kind(pictures: object, what: str) -> None:
    """Refuse what is neither a tensor nor a sequence of files or Pillow images, such as arrays.

    Raises:
        InputError: The message says what it is.
    """
    if isinstance(pictures, Tensor):
        return
    if not isinstance(pictures, Sequence) or isinstance(pictures, str):
        raise InputError(_expected(what, type(pictures)))
    other = next((each for each in pictures if not isinstance(each, File)), None)
    if other is not None:
        raise InputError(_expected(what, type(other), " in a sequence"))


def _expected(what: str, kind: type, where: str = "") -> str:
    return (
        f"expected {what} as one tensor or as a sequence of files or Pillow images, got "
        f"{kind.__name__}{where}; torch.from_numpy makes a tensor of an array"
    )


def by_category(
    masks: Pictures | Mapping[str, Pictures], names: Names | Mapping[str, Names], category: str
) -> dict[str, tuple[Pictures, Names]]:
    """Return category → masks and names.

    Args:
        masks: Those of ``category``, or of each of several.
        names: Likewise.
        category: What the labels are where there is one category.

    Raises:
        InputError: Masks and names have different categories.
    """
    if not isinstance(masks, Mapping):
        return {category: (masks, cast(Names, names))}
    if not isinstance(names, Mapping) or set(names) != set(masks):
        raise InputError(
            f"masks has the categories {list(masks)}; names is a mapping with the same, got "
            f"{list(names)}"
        )
    of_each = cast(Mapping[str, Names], names)
    return {each: (given, of_each[each]) for each, given in masks.items()}


def image_size_of(images: Pictures, size: Size | None) -> tuple[int, int]:
    """Return the height and width of the images, which is ``size`` if it is given.

    Raises:
        InputError: There are no images, they are no images, or files have no size.
    """
    if len(images) == 0:
        raise InputError("there is no image")
    if isinstance(images, Tensor):
        if images.dim() != 4 or images.shape[1] != 3:
            raise InputError(f"expected images (N, 3, H, W), got {tuple(images.shape)}")
        check_pixels(images)
    if size is not None:
        return height_and_width("size", size)
    if not isinstance(images, Tensor):
        raise InputError("images from files are resized to one size; give it, as size=224")
    return images.shape[2], images.shape[3]


def mask_size_of(
    masks: Mapping[str, Pictures], image_size: tuple[int, int], mask_size: Size | None
) -> tuple[int, int]:
    """Return the height and width of the masks: as given, of the tensors, or half the images'.

    Raises:
        InputError: Tensors have no such shapes, or differ in them.
    """
    tensors = [mask for mask in masks.values() if isinstance(mask, Tensor)]
    wrong = [tuple(mask.shape) for mask in tensors if mask.dim() not in {1, 3}]
    if wrong:
        raise InputError(f"expected masks (N, h, w) or (N,), got {wrong[0]}")
    shapes = {(mask.shape[1], mask.shape[2]) for mask in tensors if mask.dim() == 3}
    if mask_size is not None or not shapes:
        return mask_size_for(image_size, mask_size)
    if len(shapes) > 1:
        raise InputError(
            f"the masks differ in their sizes, {sorted(shapes)}; give the size that they are to be "
            "resized to, as mask_size=112"
        )
    return shapes.pop()


def check_masks(
    masks: Mapping[str, Pictures], images: Pictures, tables: Mapping[str, ValueTable]
) -> None:
    """Refuse masks of another number than the images, and tensors that do not fit.

    Raises:
        InputError: The number differs, or a tensor holds no whole numbers, has other proportions
            than the images or a value without a name.
    """
    for category, given in masks.items():
        if len(given) != len(images):
            raise InputError(
                f"there are {len(images)} images and {len(given)} masks of {category!r}"
            )
        if isinstance(given, Tensor):
            _check_tensor(category, given, images, tables[category])


def _check_tensor(category: str, masks: Tensor, images: Pictures, table: ValueTable) -> None:
    if masks.is_floating_point() or masks.is_complex():
        raise InputError(f"masks of {category!r} hold whole numbers, got {masks.dtype}")
    try:
        for index, mask in enumerate(masks):
            where = f"the mask {index} of {category!r}"
            table.numbers(mask.numpy(), where)
            if mask.dim() == 2:
                check_proportions(original_size(images[index]), tuple(mask.shape), where)
    except DataError as error:
        raise InputError(str(error)) from None


def original_size(image: Tensor | File) -> tuple[int, int]:
    """Return height and width of an image before it is resized.

    Raises:
        DataError: Its file is missing or broken.
    """
    if isinstance(image, Tensor):
        return image.shape[1], image.shape[2]
    if isinstance(image, Image.Image):
        return image.height, image.width
    return size_of_file(Path(image), upright=True)
