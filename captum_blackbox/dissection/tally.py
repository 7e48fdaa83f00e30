"""How often units and labels meet: exact counts, from which every score follows."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from captum_blackbox.dissection.lit_pixels import LitPixels
from captum_blackbox.errors import ArtifactError
from captum_blackbox.statistics import Statistic
from captum_blackbox.statistics.running import check_names

Presence: TypeAlias = Literal["image", "mask"]
"""Where a category has to be for a unit's pixels to count: in the image, or under the mask."""

_ENOUGH = 1 << 20  # pixels to count at a time: counting costs as much for few


class BatchLabels(NamedTuple):
    """What the images of a batch show.

    Attributes:
        pixels: Label numbers, 0 for none, ``(N, K, h * w)`` int64; no pixel has one twice, and none
            of those that hold for the whole image.
        whole: Whether a label holds for the whole image, ``(N, labels)`` bool.
        counts: How many pixels carry each label, ``(N, labels)`` int64.
    """

    pixels: Tensor
    whole: Tensor
    counts: Tensor

    @staticmethod
    def of(pixels: Tensor, whole: Tensor) -> "BatchLabels":
        """Return labels of which each pixel has any only once.

        Args:
            pixels: Label numbers, 0 for none, ``(N, K, h * w)`` integers.
            whole: Whether a label holds for the whole image, ``(N, labels)`` bool.

        Example:
            >>> twice = torch.tensor([[[1, 2, 0], [1, 3, 0]]])
            >>> batch = BatchLabels.of(twice, torch.tensor([[False, False, True]]))
            >>> batch.pixels, batch.counts
            (tensor([[[1, 2, 0],
                     [0, 0, 0]]]), tensor([[1, 1, 3]]))
        """
        images, layers, size = pixels.shape
        labels = whole.shape[1]
        pixels = pixels.long().clone()
        if bool(whole.any()):
            holds = torch.cat([whole.new_zeros(images, 1), whole], 1)
            pixels[holds.gather(1, pixels.flatten(1)).view_as(pixels)] = 0
        for later in range(1, layers):
            for earlier in range(later):
                pixels[:, later].masked_fill_(pixels[:, later] == pixels[:, earlier], 0)
        first = torch.arange(images, device=pixels.device)[:, None, None] * (labels + 1)
        found = torch.bincount((first + pixels).flatten(), minlength=images * (labels + 1))
        counts = found.view(images, labels + 1)[:, 1:] + whole.long() * size
        return BatchLabels(pixels, whole, counts)


class Tally(Statistic):
    r"""Counts of pixels, exact and additive over any division of the images.

    With :math:`M_k(x)` the mask of unit :math:`k` on image :math:`x` and :math:`L_c(x)` that of
    label :math:`c`:

    * ``truth[c]`` :math:`= \sum_x |L_c(x)|`;
    * ``intersection[k, c]`` :math:`= \sum_x |M_k(x) \cap L_c(x)|`;
    * ``activation[k, q]`` :math:`= \sum_x |M_k(x)|` over the images in which category :math:`q`
      is present. It is present where a label occurs whose own category it is.

    Args:
        units: How many units the layer has.
        label_categories: Position of each label's category, ``(labels,)``.
        categories: How many categories there are.
        presence: ``"image"``: present anywhere in the image, as the published results count.
            ``"mask"``: present under the unit's mask, or for the whole image, as NetDissect-Lite
            counts; IoU is never smaller.

    References:
        Bau et al., "Network Dissection", CVPR 2017, sec. 2.3.
    """

    def __init__(
        self,
        units: int,
        label_categories: Tensor,
        categories: int,
        presence: Presence = "image",
    ) -> None:
        self.units, self.categories, self.presence = units, categories, presence
        self.label_categories = label_categories
        device, labels = label_categories.device, len(label_categories)
        self.truth = torch.zeros(labels, dtype=torch.int64, device=device)
        self.intersection = torch.zeros(units, labels, dtype=torch.int64, device=device)
        self.activation = torch.zeros(units, categories, dtype=torch.int64, device=device)

    def empty(self) -> "Tally":
        """Return one of the same settings that has seen nothing."""
        return Tally(self.units, self.label_categories, self.categories, self.presence)

    def update(self, batch: BatchLabels, lit: Iterable[LitPixels]) -> None:
        """Count a batch of images, all of whose lit pixels are in ``lit``."""
        images, labels = batch.whole.shape
        size = batch.pixels.shape[2]
        areas = self.activation.new_zeros(images * self.units)
        under_mask = areas.new_zeros(len(areas), self.categories + 1, dtype=torch.bool)
        category_of = torch.cat([self.label_categories.new_zeros(1), self.label_categories + 1])
        for some in _enough_at_a_time(lit):
            at = some.images * self.units + some.units
            areas += torch.bincount(at, minlength=len(areas))
            place = some.images * size + some.pixels
            for layer in range(batch.pixels.shape[1]):
                found = batch.pixels[:, layer].flatten().index_select(0, place)
                pairs = some.units * (labels + 1) + found
                counts = torch.bincount(pairs, minlength=self.units * (labels + 1))
                self.intersection += counts.view(self.units, labels + 1)[:, 1:]
                if self.presence == "mask":
                    under_mask[at, category_of[found]] = True
        areas = areas.view(images, self.units)
        self.truth += batch.counts.sum(0)
        if bool(batch.whole.any()):
            self.intersection += _exact_product(areas, batch.whole)
        own_category = one_hot(self.label_categories, self.categories)
        if self.presence == "image":
            present = _exact_product(batch.counts.T > 0, own_category) > 0
            self.activation += _exact_product(areas, present)
        else:
            everywhere = _exact_product(batch.whole.T, own_category) > 0
            present = under_mask.view(images, self.units, -1)[..., 1:] | everywhere[:, None]
            self.activation += (areas[..., None] * present).sum(0)

    def merge(self, other: "Tally") -> None:
        """Add what ``other`` has counted."""
        for own, theirs in zip(self.state().values(), other.state().values(), strict=True):
            own += theirs.to(own.device)

    def state(self) -> dict[str, Tensor]:
        """Return the three counts."""
        return {
            "truth": self.truth,
            "intersection": self.intersection,
            "activation": self.activation,
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state`.

        Raises:
            ArtifactError: It counts other units, labels or categories.
        """
        own = self.state()
        check_names(state, own)
        for name, tensor in own.items():
            if state[name].shape != tensor.shape:
                raise ArtifactError(
                    f"this state has {name} of shape {tuple(state[name].shape)}, expected "
                    f"{tuple(tensor.shape)}"
                )
            tensor.copy_(state[name])


def _exact_product(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left.T @ right`` of integers, exact up to 2 ** 53."""
    return (left.T.double() @ right.double()).long()


def _enough_at_a_time(lit: Iterable[LitPixels]) -> Iterator[LitPixels]:
    waiting: list[LitPixels] = []
    for some in lit:
        waiting.append(some)
        if sum(len(each.pixels) for each in waiting) >= _ENOUGH:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[LitPixels]) -> LitPixels:
    return LitPixels(*(torch.cat(column) for column in zip(*parts, strict=True)))
