"""The eleven basic colour names, found in the images themselves."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import rgb2lab
from torch import Tensor
from torch.nn import functional as F

from captum_blackbox.concepts.concepts import Annotation, Concepts, Label
from captum_blackbox.concepts.image_files import digest_of
from captum_blackbox.errors import InputError

BASIC_COLORS: dict[str, tuple[str, ...]] = {
    "black": ("#000000",),
    "blue": ("#0343df", "#95d0fc", "#00035b", "#d0fefe", "#49759c"),
    "brown": ("#653700", "#ad8150", "#341c02", "#b1916e", "#876e4b"),
    "green": ("#15b01a", "#96f97b", "#033500", "#c7fdb5", "#74a662"),
    "grey": ("#929591",),
    "orange": ("#f97306", "#fdaa48", "#c65102", "#ffa756", "#d8863b"),
    "pink": ("#ff81c0", "#ffd1df", "#cb416b", "#ffcfdc", "#d5869d"),
    "purple": ("#7e1e9c", "#bf77f6", "#35063e", "#b790d4", "#84597e"),
    "red": ("#e50000", "#ff474c", "#840000", "#d9544d", "#bb3f3f"),
    "white": ("#ffffff",),
    "yellow": ("#ffff14", "#fffe7a", "#d5b60a", "#ffff84", "#eedc5b"),
}
"""The basic colour terms of English, each with the sRGB colours that stand for it.

They are the colours that people called so in the xkcd colour survey (222 500 sessions, 2010, public
domain): the term itself and, where it has a hue, ``light``, ``dark``, ``pale`` and ``dull`` in
front of it. By the pure colours alone no sky is blue: photographs are seldom that vivid."""

_CATEGORY = "color"


class ColorConcepts(Concepts):
    """Add to concepts the colour of every pixel, as the category ``"color"``.

    Each pixel of the image, resized to the size of the masks, gets the name of the colour in
    ``BASIC_COLORS`` that is nearest to it in CIELAB (D65, Euclidean distance); of two equally near
    ones the first in the table. No pixel is left without a name. Broden, which has colours
    already, took the names from a table that was learnt from photographs (van de Weijer et al.
    2009); names of in-between colours differ.

    Args:
        concepts: Any without a category ``"color"``; they are left as they are.

    Raises:
        InputError: They have such a category.

    References:
        Berlin, Kay, "Basic color terms", 1969. Munroe, "Color survey results", 2010. van de Weijer,
        Schmid, Verbeek, Larlus, "Learning color names for real-world applications", IEEE TIP 2009.

    Example:
        >>> from captum_blackbox.concepts import MaskConcepts
        >>> red = torch.tensor([0.8, 0.1, 0.1]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
        >>> masks = torch.ones(1, 4, 4, dtype=torch.uint8)
        >>> concepts = ColorConcepts(MaskConcepts(red, masks, ["thing"]))
        >>> concepts.labels[concepts.annotations(0)["color"].pixels[0, 0, 0] - 1].name
        'red'
    """

    def __init__(self, concepts: Concepts) -> None:
        if _CATEGORY in concepts.categories:
            raise InputError(
                f"the concepts have a category {_CATEGORY!r} already; leave it out when you make "
                "them, or use them as they are"
            )
        self._concepts = concepts
        super().__init__(
            [*concepts.categories, _CATEGORY],
            [*concepts.labels, *(Label(name, _CATEGORY) for name in BASIC_COLORS)],
            concepts.image_size,
            concepts.mask_size,
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._concepts)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Annotation]]:
        """Return an image and its annotations; the image is read once for both."""
        image, annotations = self._concepts[index]
        return image, annotations | {_CATEGORY: self._colored(image)}

    def image(self, index: int) -> Tensor:
        """Return an image, ``(3, H, W)`` float32 in [0, 1]."""
        return self._concepts.image(index)

    def annotations(self, index: int) -> dict[str, Annotation]:
        """Return the annotations of an image with its colours, for which the image is read."""
        colored = self._colored(self._concepts.image(index))
        return self._concepts.annotations(index) | {_CATEGORY: colored}

    def digest(self) -> str:
        """Return a hash of the concepts and the colours."""
        return digest_of("colors", self._concepts.digest(), BASIC_COLORS)

    def _colored(self, image: Tensor) -> Annotation:
        resized = F.interpolate(image[None], self.mask_size, mode="bilinear", antialias=True)
        nearest = nearest_basic_colors(resized[0].permute(1, 2, 0).numpy().clip(0, 1))
        return Annotation(torch.from_numpy(nearest + 1 + len(self._concepts.labels))[None])


def nearest_basic_colors(pixels: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the position in ``BASIC_COLORS`` of the name of each pixel's nearest colour.

    Args:
        pixels: Red, green and blue (sRGB) in [0, 1], ``(h, w, 3)``.

    Example:
        >>> nearest_basic_colors(np.ones((1, 1, 3), dtype=np.float32)).item()
        9
    """
    prototypes, names = _prototypes()
    # |lab - p|² without |lab|², which is the same for all of them.
    distances = (prototypes**2).sum(axis=1) - 2 * rgb2lab(pixels) @ prototypes.T
    nearest: NDArray[np.int32] = names[distances.argmin(axis=-1)]
    return nearest


@lru_cache
def _prototypes() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the colours in CIELAB, and the position of the name of each."""
    named = [(place, code) for place, codes in enumerate(BASIC_COLORS.values()) for code in codes]
    values = [list(bytes.fromhex(code[1:])) for _, code in named]
    lab: NDArray[np.float32] = rgb2lab(np.array(values, dtype=np.float32) / 255)
    return lab, np.array([place for place, _ in named], dtype=np.int32)
