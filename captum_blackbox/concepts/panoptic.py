"""Panoptic masks as COCO keeps them."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_blackbox.concepts.concepts import Annotation, Concepts, Label
from captum_blackbox.concepts.image_files import (
    Size,
    check_proportions,
    code_values,
    digest_of,
    digest_of_files,
    height_and_width,
    mask_size_for,
    nearest,
    picture,
)
from captum_blackbox.concepts.image_loading import load_image, size_of_file
from captum_blackbox.errors import DataError


class _Entry(NamedTuple):
    """One annotated image.

    Attributes:
        image: File below the images' folder.
        mask: File below the masks' folder.
        segments: Segment ids in ascending order, 0 first.
        numbers: Label number of each.
    """

    image: str
    mask: str
    segments: np.ndarray[tuple[int], np.dtype[np.int64]]
    numbers: np.ndarray[tuple[int], np.dtype[np.int32]]


class PanopticConcepts(Concepts):
    """Read images with panoptic masks: PNG files of segment ids, and JSON that names the segments.

    A segment id is red + 256 green + 65536 blue; 0 is nothing. Things and stuff are labels alike,
    and the segments of one class, crowds too, are one label.

    Args:
        images: The folder of the images.
        panoptic: The folder of the masks.
        json_file: With ``images``, ``annotations`` and ``categories`` as in COCO's
            ``panoptic_val2017.json``.
        size: Height and width that the images are resized to, bilinearly with antialiasing.
        mask_size: What the masks are resized to, to the nearest; by default half of ``size``.
        category: What the labels are.

    Raises:
        DataError: The JSON file is missing or broken, or names a class that it does not define.

    References:
        Kirillov, He, Girshick, Rother, Dollár, "Panoptic segmentation", CVPR 2019; the format is
        that of cocodataset.org.

    Example:
        >>> PanopticConcepts("val2017", "panoptic_val2017", "panoptic_val2017.json", size=224)
        Traceback (most recent call last):
        ...
        captum_blackbox.errors.DataError: there is no file 'panoptic_val2017.json'
    """

    def __init__(
        self,
        images: str | Path,
        panoptic: str | Path,
        json_file: str | Path,
        *,
        size: Size,
        mask_size: Size | None = None,
        category: str = "object",
    ) -> None:
        self._images = Path(images)
        self._panoptic = Path(panoptic)
        self._json_file = Path(json_file)
        try:
            labels, self._entries = _parsed(_read(self._json_file), category)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{str(json_file)!r} holds no panoptic annotations as COCO's: {error!r}"
            ) from error
        image_size = height_and_width("size", size)
        super().__init__([category], labels, image_size, mask_size_for(image_size, mask_size))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._entries)

    def image(self, index: int) -> Tensor:
        """Read an image, ``(3, H, W)`` float32 in [0, 1].

        Raises:
            DataError: Its file is missing or broken.
        """
        return picture(load_image(self._images / self._entries[index].image), self.image_size)

    def annotations(self, index: int) -> dict[str, Annotation]:
        """Read what is labelled in an image.

        Raises:
            DataError: The mask is missing or broken, or has a segment that the JSON file lacks.
        """
        entry = self._entries[index]
        path = self._panoptic / entry.mask
        codes = code_values(path, bits=24).astype(np.int32)
        check_proportions(size_of_file(self._images / entry.image), codes.shape, repr(str(path)))
        values = nearest(codes, self.mask_size)
        places = np.searchsorted(entry.segments, values).clip(max=len(entry.segments) - 1)
        unknown = values[entry.segments[places] != values]
        if unknown.size:
            raise DataError(
                f"{str(path)!r} holds the segment {unknown[0]}, which {str(self._json_file)!r} "
                "does not describe"
            )
        return {self.categories[0]: Annotation(torch.from_numpy(entry.numbers[places][None]))}

    def digest(self) -> str:
        """Return a hash of the JSON file, the settings, and the sizes and times of the files."""
        described = hashlib.sha256(self._json_file.read_bytes()).hexdigest()
        images = digest_of_files(self._images / entry.image for entry in self._entries)
        masks = digest_of_files(self._panoptic / entry.mask for entry in self._entries)
        sizes = (self.image_size, self.mask_size)
        return digest_of("panoptic", described, self.categories, sizes, images, masks)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no file {str(path)!r}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read as JSON: {error}") from error
    return content


def _parsed(content: dict[str, Any], category: str) -> tuple[list[Label], list[_Entry]]:
    classes = {each["id"]: str(each["name"]) for each in content["categories"]}
    files = {each["id"]: str(each["file_name"]) for each in content["images"]}
    distinct = {name: place for place, name in enumerate(dict.fromkeys(classes.values()), 1)}
    entries = []
    for each in content["annotations"]:
        numbers = {0: 0}
        for segment in each["segments_info"]:
            if segment["category_id"] not in classes:
                raise DataError(
                    f"the mask {each['file_name']!r} has a segment of the class "
                    f"{segment['category_id']}, which 'categories' does not define"
                )
            numbers[int(segment["id"])] = distinct[classes[segment["category_id"]]]
        ascending = sorted(numbers)
        entries.append(
            _Entry(
                files[each["image_id"]],
                str(each["file_name"]),
                np.array(ascending, dtype=np.int64),
                np.array([numbers[segment] for segment in ascending], dtype=np.int32),
            )
        )
    return [Label(name, category) for name in distinct], entries
