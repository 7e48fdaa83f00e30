"""Images and masks of one's own."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from captum_blackbox.artifacts import tensor_bytes
from captum_blackbox.concepts.concepts import Annotation, Concepts
from captum_blackbox.concepts.image_files import (
    Size,
    check_proportions,
    digest_of,
    digest_of_files,
    mask_values,
    nearest,
    picture,
    picture_from_tensor,
)
from captum_blackbox.concepts.image_loading import load_image
from captum_blackbox.concepts.mask_arguments import (
    File,
    Pictures,
    by_category,
    check_kind,
    check_masks,
    image_size_of,
    mask_size_of,
    on_cpu,
    original_size,
)
from captum_blackbox.concepts.mask_folder import images_and_masks, names_of
from captum_blackbox.concepts.value_table import (
    Names,
    layer_annotation,
    named_values,
    tables,
    whole_annotation,
)

_ADVICE = "name it in names, or list it in ignore"


class MaskConcepts(Concepts):
    """Hold images with a mask each, or with one for each of several categories.

    Args:
        images: ``(N, 3, H, W)``, uint8 or float in [0, 1]; or a sequence of image files or Pillow
            images, which are read when they are asked for. Photographs in files are turned upright,
            as viewers show them; masks belong to what is seen.
        masks: Integers ``(N, h, w)``, or a sequence of files of one channel. A tensor ``(N,)`` is
            one label for each image as a whole. Or category → one of these.
        names: The names of the values 1, 2, …, or value → name. Or category → one of these. Values
            with the same name are one label.
        category: What the labels are, where ``masks`` is no mapping.
        size: Height and width that the images are resized to, bilinearly with antialiasing. It
            must be given for files; a tensor stays as it is by default.
        mask_size: What the masks are resized to, to the nearest. By default tensors stay as they
            are, and files become half of ``size``.
        ignore: Values that carry no label, whether they are named or not; by default 0 where it
            has no name.

    Raises:
        InputError: The arguments do not fit each other, or a tensor has a value without a name.

    Example:
        >>> import torch
        >>> images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> masks = torch.zeros(2, 8, 8, dtype=torch.uint8)
        >>> masks[0, :4] = 2
        >>> concepts = MaskConcepts(images, masks, ["sea", "sky"])
        >>> concepts.annotations(0)["object"].pixels[0, ::4, 0]
        tensor([2, 0], dtype=torch.int32)
        >>> kinds = {"object": masks, "scene": torch.tensor([1, 0])}
        >>> names = {"object": ["sea", "sky"], "scene": ["beach"]}
        >>> MaskConcepts(images, kinds, names).annotations(0)["scene"].whole
        (3,)
    """

    def __init__(
        self,
        images: Pictures,
        masks: Pictures | Mapping[str, Pictures],
        names: Names | Mapping[str, Names],
        *,
        category: str = "object",
        size: Size | None = None,
        mask_size: Size | None = None,
        ignore: Collection[int] | None = None,
    ) -> None:
        check_kind(images, "images")
        self._images = on_cpu(images)
        given = by_category(masks, names, category)
        for each, (masks, _) in given.items():
            check_kind(masks, f"the masks of {each!r}")
        self._masks = {each: on_cpu(masks) for each, (masks, _) in given.items()}
        values = [(each, named_values(named, ignore)) for each, (_, named) in given.items()]
        labels, self._tables = tables(values, _ADVICE)
        image_size = image_size_of(self._images, size)
        shape = mask_size_of(self._masks, image_size, mask_size)
        super().__init__(list(self._masks), labels, image_size, shape)
        check_masks(self._masks, self._images, self._tables)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        names: Names | None = None,
        *,
        size: Size,
        masks: str | Path | None = None,
        mask_size: Size | None = None,
        ignore: Collection[int] = (0,),
        category: str = "object",
    ) -> "MaskConcepts":
        """Take the images of a folder and the PNG masks of the same names.

        Args:
            folder: Holds the images: JPEG files, and PNG files where the masks lie elsewhere.
            names: As above; by default ``classes.json`` of the masks' folder, such as
                ``{"1": "person"}``.
            size: Height and width of the images.
            masks: The folder of the masks; by default the same, ``000.png`` beside ``000.jpg``.
            mask_size: Height and width of the masks; by default half of the images'.
            ignore: Values that carry no label, whether they are named or not.
            category: What the labels are.

        Raises:
            DataError: There is no image, no mask for one, or ``classes.json`` is missing or broken.
        """
        beside = Path(masks) if masks is not None else Path(folder)
        found, drawn = images_and_masks(Path(folder), beside)
        return cls(
            found,
            drawn,
            names if names is not None else names_of(beside / "classes.json"),
            category=category,
            size=size,
            mask_size=mask_size,
            ignore=ignore,
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def image(self, index: int) -> Tensor:
        """Return an image, ``(3, H, W)`` float32 in [0, 1].

        Raises:
            DataError: Its file is missing or broken.
            InputError: A tensor's values are not in [0, 1].
        """
        image = self._images[index]
        if isinstance(image, Tensor):
            return picture_from_tensor(image, self.image_size)
        return picture(_opened(image), self.image_size)

    def annotations(self, index: int) -> dict[str, Annotation]:
        """Return the labels of an image, one layer for each category.

        Raises:
            DataError: A file is missing or broken, has several channels, has other proportions
                than the image's, or has a value without a name.
        """
        return {category: self._annotation(category, index) for category in self._masks}

    def digest(self) -> str:
        """Return a hash of tensors and settings, and of the sizes and times of files."""
        contents = [_content(self._images), *map(_content, self._masks.values())]
        entries = [table.entries() for table in self._tables.values()]
        sizes = (self.image_size, self.mask_size)
        return digest_of("masks", contents, self.categories, self.labels, entries, sizes)

    def _annotation(self, category: str, index: int) -> Annotation:
        mask = self._masks[category][index]
        where = _name_of(mask, f"the mask {index} of {category!r}")
        if isinstance(mask, Tensor):
            values = mask.numpy()
        else:
            values = mask_values(_opened(mask), where)
            check_proportions(original_size(self._images[index]), values.shape, where)
        numbers = self._tables[category].numbers(values, where)
        if numbers.ndim == 0:
            return whole_annotation(int(numbers), self.mask_size)
        return layer_annotation(nearest(numbers, self.mask_size))


def _opened(file: File) -> Image.Image:
    return file if isinstance(file, Image.Image) else load_image(Path(file), upright=True)


def _name_of(mask: object, otherwise: str) -> str:
    return repr(str(mask)) if isinstance(mask, str | Path) else otherwise


def _content(pictures: Pictures) -> str:
    """Return a hash of the values of tensors and Pillow images, and of the state of files."""
    if isinstance(pictures, Tensor):
        seen = hashlib.sha256(f"{tuple(pictures.shape)} {pictures.dtype}\n".encode())
        seen.update(tensor_bytes(pictures))
        return seen.hexdigest()
    held = [each for each in pictures if isinstance(each, Image.Image)]
    values = [hashlib.sha256(np.asarray(image).tobytes()).hexdigest() for image in held]
    files = [each for each in pictures if not isinstance(each, Image.Image)]
    return digest_of(values, digest_of_files(files))
