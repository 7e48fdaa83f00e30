"""What a dissection gathers about one layer."""

import math

import torch
from torch import Tensor

from captum_blackbox.concepts.concepts import Concepts
from captum_blackbox.dissection.active_cells import ActiveCells
from captum_blackbox.dissection.cell_store import CellStore
from captum_blackbox.dissection.lit_pixels import lit_pixels
from captum_blackbox.dissection.options import Settings, ThresholdMethod
from captum_blackbox.dissection.tally import BatchLabels, Tally
from captum_blackbox.dissection.upsampling import Axis
from captum_blackbox.errors import InputError, warn_user
from captum_blackbox.statistics import QuantileSketch, TopFraction, TopImages, this_process


class LayerRun:
    """First the largest activations of each unit, then what their masks show.

    Args:
        name: Of the layer.
        maps: Of one image, ``(1, units, h, w)``.
        axes: How rows and columns of cells become those of the masks.
        concepts: What is asked.
        settings: See :class:`Settings`.
        most_bytes: Memory for the largest values, and for the active cells.
    """

    def __init__(
        self,
        name: str,
        maps: Tensor,
        axes: tuple[Axis, Axis],
        concepts: Concepts,
        settings: Settings,
        most_bytes: int,
    ) -> None:
        self.name = name
        self.shape = tuple(maps.shape[1:])
        self._axes = axes
        self._settings = settings
        units, height, width = self.shape
        capacity = TopFraction.capacity_for(
            len(concepts) * height * width, settings.threshold_level
        )
        needed = 2 * capacity * units * maps.element_size()
        self.top: TopFraction | QuantileSketch
        if settings.threshold_method == "exact" and needed <= most_bytes:
            self.top = TopFraction(capacity, maps.dtype)
        else:
            if settings.threshold_method == "exact":
                warn_user(
                    f"the exact thresholds of layer {name!r} need {needed / 2**30:.1f} GiB; a "
                    "sketch takes their place, to a rank within a 50th of the quantile; raise "
                    "memory_limit for exact ones"
                )
            # Shards that draw the same numbers would err in the same way.
            self.top = QuantileSketch(units, seed=this_process()[0], dtype=maps.dtype)
        self.best = TopImages(settings.top_images, maps.dtype)
        self.store = CellStore(most_bytes)
        self.tally = Tally(
            units,
            concepts.label_categories().to(maps.device),
            len(concepts.categories),
            settings.presence,
        )
        self.thresholds = torch.empty(0)
        self._limit = torch.empty(0)
        self._like = maps.new_empty(0)

    @property
    def threshold_method(self) -> ThresholdMethod:
        """How the thresholds are found in fact."""
        return "exact" if isinstance(self.top, TopFraction) else "sketch"

    def watch(self, batch: int, maps: Tensor, numbers: Tensor) -> None:
        """Take in the maps of a batch of images with these numbers."""
        try:
            self._watch_values(maps)
        except InputError as error:
            raise InputError(f"layer {self.name!r}: {error}") from error
        self.best.update(maps.amax((2, 3)), numbers)
        top = self.top
        # While the bound is young, most cells are above it: not worth listing.
        if isinstance(top, TopFraction) and self.store.takes(top.capacity, top.count):
            cells = ActiveCells.above(top.bound, maps)
            self.store.keep(batch, cells, maps.numel(), top.tight_bound)

    def _watch_values(self, maps: Tensor) -> None:
        if isinstance(self.top, TopFraction):
            self.top.update(maps.flatten(2))
        else:
            self.top.update(maps.transpose(0, 1).flatten(1))

    def set_thresholds(self) -> None:
        """Fix the thresholds by what was seen.

        Raises:
            InputError: They are negative, where masks fade to 0.
        """
        self.thresholds = self.top.quantile(self._settings.threshold_level).cpu()
        negative = (self.thresholds < 0).nonzero().flatten().tolist()
        if negative and self._settings.upsample == "grid_zeros":
            raise InputError(
                f"layer {self.name!r}: unit {negative[0]} has a threshold below 0 ({len(negative)} "
                "units have), and with upsample='grid_zeros' it would be active wherever the map "
                "fades to 0; use 'receptive_field' or 'resize'"
            )
        self._limit = rounded_down(self.thresholds, self._like)

    def is_kept(self, batch: int) -> bool:
        """Return whether the network need not run again on a batch."""
        return self.store.find(batch) is not None

    def count(self, batch: int, labels: BatchLabels, maps: Tensor | None) -> None:
        """Compare the masks of a batch with its labels."""
        cells = self.store.find(batch)
        if cells is None and maps is not None:
            cells = ActiveCells.above(self._limit, maps)
        if cells is not None:
            lit = lit_pixels(cells.to(self._limit.device), self._limit, *self._axes)
            self.tally.update(labels, lit)


def rounded_down(thresholds: Tensor, like: Tensor) -> Tensor:
    """Return the largest values of a dtype that are not above ``thresholds``.

    A value of that dtype is above the one exactly if it is above the other.
    """
    rounded = thresholds.to(like)
    lower = torch.nextafter(rounded, torch.full_like(rounded, -math.inf))
    return torch.where(rounded.double() > thresholds.to(like.device), lower, rounded)
