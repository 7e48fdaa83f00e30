"""What an attack did to the training points that explain some predictions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from captum_blackbox.metrics import rank_correlation, topk_intersection
from captum_blackbox.shapes import Images, Labels, PerImage


@dataclass(frozen=True, eq=False)
class InfluenceAttackResult:
    """The attacked images, and what training points explain their predictions now.

    Attributes:
        inputs: The attacked images ``(N, C, H, W)``; the clean ones where nothing was gained.
        clean_inputs: The clean images.
        clean: Influence of each training point on the clean images, ``(N, n)``; positive is
            helpful.
        attacked: Influence on the attacked images, ``(N, n)``.
        success: Whether the summed influence of ``reduced`` fell with the label kept, ``(N,)``.
        label_kept: Whether the prediction on ``inputs`` is the clean one, ``(N,)``.
        label: The clean prediction, ``(N,)``.
        target: The class in the loss at the images, ``(N,)``.
        reduced: Numbers of the training points whose influence was to fall, ``(N, top)``.
        best_step: The step that led to ``inputs``, ``(N,)``; 0 for clean images.
        trajectory: Summed influence of ``reduced`` after each step or draw, ``(N, steps + 1)``; the
            first is that of the clean image; lower is a stronger attack. NaN after the draw of
            random signs that was kept.
        eligible: Whether the label was kept there, ``(N, steps + 1)``.
        settings: Of the attack.
    """

    inputs: Images
    clean_inputs: Images
    clean: Float[Tensor, "batch training"]
    attacked: Float[Tensor, "batch training"]
    success: Bool[Tensor, " batch"]
    label_kept: Bool[Tensor, " batch"]
    label: Labels
    target: Labels
    reduced: Int64[Tensor, "batch top"]
    best_step: Labels
    trajectory: Float[Tensor, "batch steps"]
    eligible: Bool[Tensor, "batch steps"]
    settings: Mapping[str, Any]

    @property
    def rank_correlation(self) -> PerImage:
        """Spearman's correlation of clean and attacked influences, ``(N,)`` in [-1, 1].

        Lower is a stronger attack, 1 is the same order. 0 where all influences are equal.
        """
        return rank_correlation(self.clean[:, None], self.attacked[:, None], channels="sum")

    def overlap(self, k: int = 5) -> PerImage:
        """Return the share of the ``k`` most helpful training points that stay, ``(N,)``.

        In [0, 1]; lower is a stronger attack. ``k / n`` by chance.

        Raises:
            InputError: ``k`` is not between 1 and the number of training points.
        """
        pair = self.clean[:, None], self.attacked[:, None]
        return topk_intersection(*pair, k, channels="sum")

    def exemplars(self, k: int = 5) -> tuple[Tensor, Tensor]:
        """Return the most helpful training points of the clean and of the attacked images.

        Returns:
            Two tensors of numbers ``(N, k)``, the most helpful first; of equal ones the one with
            the smaller number. Fewer where there are fewer points.
        """
        clean, attacked = (
            influence.argsort(dim=1, descending=True, stable=True)[:, :k]
            for influence in (self.clean, self.attacked)
        )
        return clean, attacked

    def to_dict(self) -> dict[str, Any]:
        """Return what a reader needs as JSON knows it, without images and single influences.

        A number that is not finite is ``None``: the trajectory of random signs after the draw that
        was kept.
        """
        k = min(5, self.clean.shape[1])
        clean, attacked = self.exemplars(k)
        return {
            "settings": dict(self.settings),
            "label": self.label.tolist(),
            "target": self.target.tolist(),
            "success": self.success.tolist(),
            "label_kept": self.label_kept.tolist(),
            "best_step": self.best_step.tolist(),
            "rank_correlation": _plain(self.rank_correlation.tolist()),
            "overlap": _plain(self.overlap(k).tolist()),
            "exemplars": {"clean": clean.tolist(), "attacked": attacked.tolist()},
            "reduced": self.reduced.tolist(),
            "trajectory": _plain(self.trajectory.tolist()),
            "eligible": self.eligible.tolist(),
        }


def _plain(value: Any) -> Any:  # noqa: ANN401 - nested lists
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if math.isfinite(value) else None
