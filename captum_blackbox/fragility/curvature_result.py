"""What is known of the curvature around some images."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from captum_blackbox.errors import InputError, check_choice
from captum_blackbox.fragility.surrogate import Sharpness
from captum_blackbox.shapes import Images, Labels, PerImage

Direction: TypeAlias = Literal["fragile", "gradient", "random"]
"""The leading eigenvector, the gradient of the score, and a random direction to compare with."""

Norm: TypeAlias = Literal["Linf", "L2"]


class Movement(NamedTuple):
    """What a small step in one direction does at first order, per unit of the step's radius.

    Attributes:
        explanation: ``‖H d‖``: how fast the gradient map moves.
        turning: The part of it across the map. It turns the map; the rest makes it only larger or
            smaller, which a normalised map does not show.
        score: ``|g · d|``: how fast the score of the class moves.
    """

    explanation: PerImage
    turning: PerImage
    score: PerImage


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Curvature:
    """The leading eigenpairs of the score's Hessian, beside the score's gradient.

    All numbers belong to the network with softened ReLUs, and to the units of the inputs.

    Attributes:
        target: The class that is explained, ``(N,)``.
        scores: Its score, ``(N,)``.
        gradients: Of the score, ``(N, C, H, W)``: the explanation, with signs.
        eigenvalues: ``(N, k)``, the largest absolute value first, with signs.
        eigenvectors: ``(N, k, C, H, W)``, each of length 1, pointing to where the score grows.
        angles: Between eigenvector and gradient in degrees, ``(N, k)``, from 0 (along the gradient)
            to 90 (across it), without regard to signs; NaN where there is no curvature or no
            gradient. Two *random* directions among ``n`` pixels are at about ``90 - 46 / √n`` too,
            so compare the speeds in ``along`` before drawing conclusions.
        residuals: ``‖H v - λ v‖``, ``(N, k)``; an eigenvalue lies no further than that from ``λ``.
        converged: Whether the search came to its end, ``(N, k)``.
        iterations: Products with ``H`` that a pair took, ``(N, k)``.
        along: Direction → :class:`Movement` for a step of Euclidean length 1 along the leading
            eigenvector (``"fragile"``), the gradient, and a random direction.
        along_signs: The same for a step that changes every number by 1, by the sign of the
            direction: the steps of the attacks in an L-infinity ball.
        beta: Of the softened ReLUs; ``None`` for the network as it is.
    """

    target: Labels
    scores: PerImage
    gradients: Images
    eigenvalues: Float[Tensor, "batch k"]
    eigenvectors: Float[Tensor, "batch k channels height width"]
    angles: Float[Tensor, "batch k"]
    residuals: Float[Tensor, "batch k"]
    converged: Bool[Tensor, "batch k"]
    iterations: Int64[Tensor, "batch k"]
    along: Mapping[Direction, Movement]
    along_signs: Mapping[Direction, Movement]
    beta: Sharpness | None

    @property
    def gradient_norms(self) -> PerImage:
        """Return the Euclidean length of each gradient, ``(N,)``."""
        norms: Tensor = self.gradients.flatten(1).double().norm(dim=1)
        return norms

    def relative_change(
        self, radius: float, norm: Norm = "Linf", direction: Direction = "fragile"
    ) -> PerImage:
        """Return by how much of its own length the gradient map moves, at first order.

        For a score ``g(w · x)`` and ``"Linf"`` it is ``radius ‖w‖₁ |g'' / g'|``, which grows with
        the number of pixels.

        Args:
            radius: Of the step, in units of the inputs.
            norm: ``"Linf"``, a step of ``radius · sign(direction)``; ``"L2"``, a step along the
                direction itself.
            direction: Which one.

        Returns:
            A fraction for each image ``(N,)``; NaN without a gradient. It grows with the radius
            without end, the real change does not: a sharp ``beta`` makes the curvature large in a
            small region, and beyond it the number is no forecast.

        Raises:
            InputError: The radius is negative, or a choice unknown.
        """
        check_choice("norm", norm, get_args(Norm))
        check_choice("direction", direction, get_args(Direction))
        if not 0 <= radius < math.inf:
            raise InputError(f"radius must be finite and not negative, got {radius}")
        moved = (self.along_signs if norm == "Linf" else self.along)[direction].explanation
        return radius * moved / self.gradient_norms

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as values that JSON knows, NaN as ``None``; without the pictures."""
        names = ("target", "scores", "gradient_norms", "eigenvalues", "angles", "residuals")
        is_number = self.beta is None or isinstance(self.beta, float | int)
        fields: dict[str, Any] = {"beta": self.beta if is_number else str(self.beta)}
        for name in (*names, "converged", "iterations"):
            fields[name] = _plain(getattr(self, name).tolist())
        for name in ("along", "along_signs"):
            fields[name] = {
                direction: {key: _plain(value.tolist()) for key, value in moved._asdict().items()}
                for direction, moved in getattr(self, name).items()
            }
        return fields


def _plain(value: Any) -> Any:  # noqa: ANN401 - nested lists
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
