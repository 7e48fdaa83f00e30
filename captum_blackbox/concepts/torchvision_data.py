"""Data sets for segmentation that follow torchvision's conventions."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from captum_blackbox.concepts.concepts import Annotation, Concepts
from captum_blackbox.concepts.image_files import (
    Integers,
    Size,
    check_proportions,
    digest_of,
    digest_of_files,
    height_and_width,
    mask_size_for,
    mask_values,
    nearest,
    picture,
    picture_from_tensor,
)
from captum_blackbox.concepts.image_loading import UNREADABLE
from captum_blackbox.concepts.mask_arguments import original_size
from captum_blackbox.concepts.torchvision_names import known_targets, listed_files, unwrapped
from captum_blackbox.concepts.value_table import (
    Names,
    layer_annotation,
    named_values,
    tables,
    whole_annotation,
)
from captum_blackbox.errors import DataError, InputError

_ADVICE = "name it in names, or list it in ignore"
_SAMPLE = 16


class TorchvisionConcepts(Concepts):
    """Read a data set that yields an image and a mask; nothing is downloaded.

    Torchvision's ``VOCSegmentation``, ``SBDataset(mode="segmentation")``,
    ``Cityscapes(target_type="semantic")`` and ``OxfordIIITPet`` bring their names, also inside a
    ``torch.utils.data.Subset``: of VOC and SBD the 20 classes and ``background``, of Cityscapes
    the 19 classes that are evaluated, of the pets ``pet``, ``background`` and ``border``, and
    with ``target_types=["segmentation", "category"]`` also the breed of the image as a whole.
    Make them without transforms; a mask that was resized smoothly names what is not there.
    Photographs are not turned as their EXIF orientation says, as torchvision does not either.

    Args:
        dataset: Yields ``(image, mask)``: Pillow images, or tensors ``(3, H, W)``, uint8 or in
            [0, 1], and ``(H, W)`` or ``(1, H, W)``.
        names: The names of the values 1, 2, …, or value → name; by default those of the four. With
            values that a transform has changed, such as the train ids of Cityscapes, they are
            needed too: ``{c.train_id: c.name for c in Cityscapes.classes if c.train_id < 255}``.
        size: Height and width that the images are resized to, bilinearly with antialiasing.
        mask_size: What the masks are resized to, to the nearest; by default half of ``size``.
        ignore: Values that carry no label, whether they are named or not. By default what the
            four say (255 of VOC), or 0 where it has no name.
        category: What the labels of the masks are.

    Raises:
        InputError: The data set is none of the four, and ``names`` is not given; or it does not
            yield masks.

    Example:
        >>> import torch
        >>> image, mask = torch.rand(3, 8, 8), torch.ones(8, 8, dtype=torch.uint8)
        >>> concepts = TorchvisionConcepts([(image, mask)], names=["sky"], size=8)
        >>> concepts.annotations(0)["object"].pixels.shape
        torch.Size([1, 4, 4])
    """

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401 - what can be indexed and has a length
        *,
        names: Names | None = None,
        size: Size,
        mask_size: Size | None = None,
        ignore: Collection[int] | None = None,
        category: str = "object",
    ) -> None:
        self._dataset = dataset
        values, self._places = _targets(dataset, names, ignore, category)
        labels, self._tables = tables(values.items(), _ADVICE)
        image_size = height_and_width("size", size)
        super().__init__(list(values), labels, image_size, mask_size_for(image_size, mask_size))

    def __len__(self) -> int:
        """Return the number of images."""
        count: int = len(self._dataset)
        return count

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Annotation]]:
        """Return an image and its annotations; the data set is asked once for both.

        Raises:
            DataError: A file is missing or broken, or a mask has a value without a name.
            IndexError: There is no such image.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} images, got index {index}")
        with self._item(index) as (image, targets):
            return self._picture(image, index), self._labelled(image, targets, index)

    def image(self, index: int) -> Tensor:
        """Return an image, ``(3, H, W)`` float32 in [0, 1].

        Raises:
            DataError: Its file is missing or broken.
        """
        with self._item(index) as (image, _):
            return self._picture(image, index)

    def annotations(self, index: int) -> dict[str, Annotation]:
        """Return the labels of an image; the data set decodes the image for that too.

        Raises:
            DataError: A file is missing or broken, or a mask has a value without a name.
        """
        with self._item(index) as (image, targets):
            return self._labelled(image, targets, index)

    def digest(self) -> str:
        """Return a hash of names and settings, and of the files that the data set lists.

        Of a file the size and the time of change are hashed. Of a data set without a list of files
        it is the contents of up to 16 items that lie evenly in it.
        """
        base, indices = unwrapped(self._dataset)
        files = listed_files(base)
        content: object = digest_of_files(files) if files else self._sample()
        entries = [table.entries() for table in self._tables.values()]
        settings = (self.categories, self.labels, entries, self.image_size, self.mask_size)
        return digest_of("torchvision", type(base).__name__, len(self), indices, settings, content)

    @contextmanager
    def _item(self, index: int) -> Iterator[tuple[Tensor | Image.Image, Sequence[Any]]]:
        """Yield an image as the data set has it, and its targets; leave no file open."""
        try:
            item = self._dataset[index]
        except UNREADABLE as error:
            raise DataError(f"the item {index} of the data set cannot be read: {error}") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(f"the item {index} of the data set is no pair of an image and a mask")
        image, target = item
        if not isinstance(image, Tensor | Image.Image):
            raise DataError(
                f"the image {index} of the data set is a {type(image).__name__}; expected a Pillow "
                "image or a tensor (3, H, W)"
            )
        targets = target if isinstance(target, tuple | list) else (target,)
        try:
            yield image, targets
        finally:
            for each in (image, *targets):
                _close_file_of(each)

    def _picture(self, image: Tensor | Image.Image, index: int) -> Tensor:
        if isinstance(image, Tensor):
            return picture_from_tensor(image, self.image_size)
        return picture(_loaded(image, f"the image {index} of the data set"), self.image_size)

    def _labelled(
        self, image: Tensor | Image.Image, targets: Sequence[Any], index: int
    ) -> dict[str, Annotation]:
        found = {}
        for category, place in self._places.items():
            where = f"the mask of {category!r} of item {index} of the data set"
            values = _values(targets[place], where)
            numbers = self._tables[category].numbers(values, where)
            if numbers.ndim == 0:
                found[category] = whole_annotation(int(numbers), self.mask_size)
            else:
                check_proportions(original_size(image), numbers.shape, where)
                found[category] = layer_annotation(nearest(numbers, self.mask_size))
        return found

    def _sample(self) -> list[str]:
        places = np.linspace(0, len(self) - 1, min(_SAMPLE, len(self))).round().astype(int)
        found = []
        for index in dict.fromkeys(places.tolist()):
            image, annotations = self[index]
            layers = {name: each.pixels.tolist() for name, each in annotations.items()}
            found.append(digest_of(image.tolist(), layers))
        return found


def _close_file_of(image: object) -> None:
    """Close the file of a Pillow image, which stays usable: Pillow closes what it has read."""
    if isinstance(image, Image.Image):
        try:
            image.load()
        except UNREADABLE:
            image.close()


def _loaded(image: Image.Image, where: str) -> Image.Image:
    """Read the file of a Pillow image, which is not read before it is looked at."""
    try:
        image.load()
    except UNREADABLE as error:
        name = getattr(image, "filename", "")
        raise DataError(f"{where} cannot be read: {str(name)!r}: {error}") from error
    return image


def _targets(
    dataset: object, names: Names | None, ignore: Collection[int] | None, category: str
) -> tuple[dict[str, dict[int, str]], dict[str, int]]:
    """Return category → value → name, and category → place in the data set's targets."""
    known = known_targets(unwrapped(dataset)[0], category)
    if names is not None:
        place = next((target.place for target in known if target.category == category), 0)
        return {category: named_values(names, ignore)}, {category: place}
    if not known:
        raise InputError(
            f"the names of {type(dataset).__name__} are not known; give them, as "
            "names={1: 'person'} or names=['person']"
        )
    named = {
        target.category: named_values(
            target.names,
            ignore if ignore is not None and target.category == category else target.ignored,
        )
        for target in known
    }
    return named, {target.category: target.place for target in known}


def _values(mask: Any, where: str) -> Integers:  # noqa: ANN401 - what a data set yields
    """Return a mask, or one label, as integers."""
    if isinstance(mask, Image.Image):
        return mask_values(_loaded(mask, where), where)
    values: NDArray[Any] = np.asarray(mask.numpy() if isinstance(mask, Tensor) else mask)
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.dtype.kind not in "iub" or values.ndim not in {0, 2}:
        raise DataError(
            f"{where} is a {type(mask).__name__} of shape {values.shape} and {values.dtype}; "
            "expected a mask (H, W) of whole numbers"
        )
    return values
