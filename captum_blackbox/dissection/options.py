"""What decides the outcome of a dissection, and how it is carried out."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor

from captum_blackbox.dissection.reading import OnError
from captum_blackbox.dissection.tally import Presence
from captum_blackbox.errors import InputError, check_choice

Upsample: TypeAlias = Literal["receptive_field", "resize", "grid_zeros"]
"""How a feature map is laid over the image; see :class:`NetworkDissection`."""

ThresholdMethod: TypeAlias = Literal["exact", "sketch"]
"""How the thresholds are found: from all of the largest values, or from a summary of all."""

Rotation: TypeAlias = Callable[[int], Tensor]
"""Number of units → orthogonal matrix ``(units, units)``."""


@dataclass(frozen=True)
class Settings:
    """What decides the outcome.

    Attributes:
        quantile: Share of activations above a unit's threshold, in (0, 1).
        level: Quantile level that replaces ``1 - quantile``, in (0, 1).
        iou_threshold: IoU above which a unit detects its concept, in [0, 1).
        upsample: See :data:`Upsample`.
        presence: See :data:`~captum_blackbox.dissection.tally.Presence`.
        threshold_method: See :data:`ThresholdMethod`.
        top_images: How many images with the highest activations to remember for each unit.
    """

    quantile: float = 0.005
    level: float | None = None
    iou_threshold: float = 0.04
    upsample: Upsample = "receptive_field"
    presence: Presence = "image"
    threshold_method: ThresholdMethod = "exact"
    top_images: int = 10

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, share in (("quantile", self.quantile), ("level", self.level)):
            if share is not None and not 0 < share < 1:
                raise InputError(f"{name} is a share between 0 and 1, got {share}")
        if not 0 <= self.iou_threshold < 1:
            raise InputError(f"iou_threshold is in [0, 1), got {self.iou_threshold}")
        if self.top_images < 1:
            raise InputError(f"top_images is a number of images, got {self.top_images}")
        check_choice("upsample", self.upsample, get_args(Upsample))
        check_choice("presence", self.presence, get_args(Presence))
        check_choice("threshold_method", self.threshold_method, get_args(ThresholdMethod))

    @property
    def threshold_level(self) -> float:
        """The quantile level of the thresholds."""
        return 1 - self.quantile if self.level is None else self.level

    def to_json(self) -> dict[str, Any]:
        """Return them as JSON."""
        return asdict(self)

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> "Settings":
        """Return what :meth:`to_json` returned, which may stand among other entries.

        Example:
            >>> Settings.from_json({**Settings(quantile=0.01).to_json(), "images": 3}).quantile
            0.01
        """
        return Settings(**{each.name: found[each.name] for each in fields(Settings)})


@dataclass(frozen=True)
class Execution:
    """How a dissection is carried out; of no influence on its outcome.

    Attributes:
        batch_size: Images at a time.
        workers: Processes that read images and labels; 0 for none beside this one.
        on_error: What a broken file does.
        most_bytes: Memory for active cells, and for the largest values of each layer.
        checkpoint: Folder that keeps an unfinished run.
        checkpoint_every: Batches between two writings of it.
        show_progress: Whether to show bars.
    """

    batch_size: int = 32
    workers: int = 0
    on_error: OnError = "raise"
    most_bytes: int = 2 << 30
    checkpoint: Path | None = None
    checkpoint_every: int = 100
    show_progress: bool = True

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name in ("batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is at least 1, got {getattr(self, name)}")
        for name in ("workers", "most_bytes"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is at least 0, got {getattr(self, name)}")
        check_choice("on_error", self.on_error, get_args(OnError))
