"""What an attack did to the explanations of some images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_blackbox.metrics import (
    center_shift,
    cosine_similarity,
    rank_correlation,
    region_mass,
    topk_intersection,
)
from captum_blackbox.shapes import Images, Labels, PerImage

WRONG_LABEL = "the clean prediction is not the label that is to be kept"
NO_SIGNAL = "no second-order signal: the explanation does not change with the image at first order"
NO_GAIN = "no iterate with this label has a better criterion"


class Measures(NamedTuple):
    """How an explanation compares with the clean one, a number for each image.

    Attributes:
        intersection: Share of the ``k`` most important pixels in common, in [0, 1]; lower is
            a stronger attack.
        rank_correlation: Spearman's, in [-1, 1]; lower is a stronger attack.
        center_shift: Of the centre of mass, in pixels; higher is a stronger attack.
        cosine: Between the maps, signs and channels included, in [-1, 1].
        confidence: Probability of the label that is kept.
        region_mass: Share of the importance in the region; ``None`` without one.
        linf: Largest change of a number, in units of the radius.
        l2: Euclidean length of the change, in the same units.
    """

    intersection: PerImage
    rank_correlation: PerImage
    center_shift: PerImage
    cosine: PerImage
    confidence: PerImage
    region_mass: PerImage | None
    linf: PerImage
    l2: PerImage


def measured(
    clean: Tensor,
    attacked: Tensor,
    *,
    k: int,
    confidence: PerImage,
    region: Tensor | None,
    distances: tuple[PerImage, PerImage],
) -> Measures:
    """Compare the maps ``(N, C, H, W)`` of attacked images with those of the clean ones."""
    return Measures(
        intersection=topk_intersection(clean, attacked, k),
        rank_correlation=rank_correlation(clean, attacked),
        center_shift=center_shift(clean, attacked),
        cosine=cosine_similarity(clean, attacked),
        confidence=confidence.double(),
        region_mass=None if region is None else region_mass(attacked, region),
        linf=distances[0],
        l2=distances[1],
    )


@dataclass(frozen=True, eq=False)
class AttackResult:
    """The attacked images, and how far their explanations moved.

    Attributes:
        inputs: The attacked images ``(N, C, H, W)``; the clean ones where nothing was gained.
        clean: Measures of the clean images (compared with themselves).
        attacked: Measures of the attacked ones.
        success: Whether the criterion got better, or the test of success was passed, with the label
            kept, ``(N,)``.
        label_kept: Whether the prediction on ``inputs`` is the label, ``(N,)``.
        label: The label kept, ``(N,)``.
        target: The class explained, ``(N,)``.
        best_step: The step after which an image was best, ``(N,)``, of a random change the number
            of the draw; 0 where nothing was gained.
        steps: The steps after which the explanation was judged, ``(S,)``, from 0.
        trajectory: The criterion there, ``(N, S)``; larger is a stronger attack; NaN where an image
            was not attacked any more.
        eligible: Whether the label was kept there, ``(N, S)``.
        clean_maps: Explanations of the clean images, ``(N, C, H, W)`` or ``(N, 1, H, W)``.
        attacked_maps: Explanations of the attacked images.
        reasons: For each image why it was not moved; empty where it was.
        settings: Of the attack.
    """

    inputs: Images
    clean: Measures
    attacked: Measures
    success: Tensor
    label_kept: Tensor
    label: Labels
    target: Labels
    best_step: Tensor
    steps: Tensor
    trajectory: Tensor
    eligible: Tensor
    clean_maps: Tensor
    attacked_maps: Tensor
    reasons: tuple[str, ...]
    settings: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON knows them, without images and maps."""
        return {
            "settings": dict(self.settings),
            "label": self.label.tolist(),
            "target": self.target.tolist(),
            "success": self.success.tolist(),
            "label_kept": self.label_kept.tolist(),
            "best_step": self.best_step.tolist(),
            "reasons": list(self.reasons),
            "clean": _as_lists(self.clean),
            "attacked": _as_lists(self.attacked),
            "steps": self.steps.tolist(),
            "trajectory": [
                [None if math.isnan(value) else value for value in row]
                for row in self.trajectory.tolist()
            ],
        }

    def __str__(self) -> str:
        """Say in a few lines how strong the attack was."""
        moved = self.success
        lines = [f"{int(moved.sum())} of {len(moved)} explanations moved with the label kept"]
        for name in ("intersection", "rank_correlation", "center_shift", "confidence"):
            before, after = getattr(self.clean, name), getattr(self.attacked, name)
            lines.append(f"{name}: {float(before.mean()):.3f} → {float(after.mean()):.3f}")
        return "\n".join(lines)


def _as_lists(measures: Measures) -> dict[str, list[float] | None]:
    return {
        name: None if value is None else torch.as_tensor(value).tolist()
        for name, value in measures._asdict().items()
    }
