"""The algebra of signal quality: what, in the residual of an estimator, still tells the output.

All tensors are of float64 and divided into the layer's groups: patches ``(groups, samples, taps)``,
weights, patterns and directions ``(groups, units, taps)``, numbers per unit ``(groups, units)``.
"""

from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from captum_blackbox.statistics.patch_covariance import Outputs, Patches, PatchMoments, PerUnit

Taps: TypeAlias = Float[Tensor, "groups units taps"]
Factor: TypeAlias = Float[Tensor, "groups taps taps"]

_RIDGE = 1e-6
_SMALLEST_PIVOT = 1e-10
_NO_CORRELATION = 1e-12
_ROUNDING = 1e-7


class Estimator(NamedTuple):
    """An estimator S(x) = a₊ wᵀx where a unit is on, a₋ wᵀx elsewhere, with wᵀa₊ = wᵀa₋ = 1.

    Attributes:
        positive: a₊; NaN for a unit without a pattern.
        negative: a₋; ``None`` where it is a₊, that is S(x) = a wᵀx.
    """

    positive: Taps
    negative: Taps | None = None

    @classmethod
    def of(cls, weight: Taps, positive: Taps, negative: Taps | None = None) -> "Estimator":
        """Scale patterns to wᵀa = 1, the promise of Eq. 1; a pattern of zeros becomes NaN."""
        return cls(
            _of_unit_length(weight, positive),
            None if negative is None else _of_unit_length(weight, negative),
        )

    @property
    def off(self) -> Taps:
        """The pattern of a unit that is off."""
        return self.positive if self.negative is None else self.negative

    def residual(self, direction: Taps, patches: Patches, outputs: Outputs, on: Tensor) -> Outputs:
        """Return vᵀ(x - S(x)) for one direction v for each unit.

        Args:
            direction: v.
            patches: x.
            outputs: wᵀx.
            on: Whether the unit is on.
        """
        slopes = torch.where(
            on,
            _dot(direction, self.positive)[:, None],
            _dot(direction, self.off)[:, None],
        )
        return patches @ direction.mT - slopes * outputs


def factor(covariance: Factor) -> Factor:
    """Return the Cholesky factor of each group's covariance C.

    It is taken of the correlation, so that the scale of a tap does not matter. Where that is
    singular to within 1e-10, as with fewer samples than taps, 1e-6 is added to its diagonal; a tap
    that never varies counts as varying by a millionth of the others, on its own. A pattern that
    points where nothing varies then leaves a residual that gives the output away, as by the
    definition.
    """
    variances = covariance.diagonal(dim1=-2, dim2=-1)
    mean = variances.mean(-1, keepdim=True)
    # Patches that never vary at all: anything will do, their units are constant.
    least = torch.where(mean > 0, _RIDGE * mean, torch.ones_like(mean))
    is_dead = variances <= 0
    deviations = torch.where(is_dead, least, variances).sqrt()
    correlation = covariance / (deviations[..., :, None] * deviations[..., None, :])
    correlation.diagonal(dim1=-2, dim2=-1)[is_dead] = 1.0
    lower: Tensor
    lower, info = torch.linalg.cholesky_ex(correlation)
    pivots = lower.diagonal(dim1=-2, dim2=-1).square().amin(-1)
    singular = (info != 0) | ~(pivots > _SMALLEST_PIVOT)
    if singular.any():
        ridged = correlation[singular]
        ridged.diagonal(dim1=-2, dim2=-1).add_(_RIDGE)
        lower[singular] = torch.linalg.cholesky(ridged)
    return deviations[..., :, None] * lower


def best_direction(
    moments: PatchMoments, lower: Factor, weight: Taps, estimator: Estimator
) -> Taps:
    """Return v that maximises corr(wᵀx, vᵀ(x - S(x))), the maximum in Eq. 1.

    For S(x) = a wᵀx, the numbers vᵀ(x - S(x)) are all tᵀx with aᵀt = 0. The projection of w on
    them, in the metric of C = cov[x], is v = w - C⁻¹a / (aᵀC⁻¹a), with squared correlation
    1 - 1 / (aᵀC⁻¹a var[y]).

    For two components let z = (x, y₊), with y₊ = y where the unit is on and 0 elsewhere. Then
    vᵀ(x - S(x)) are all tᵀz with Bᵀt = 0, where B has the columns (a₊, 1) and (a₋, 0), and the
    same projection, now with Z = cov[z], is t = (w, 0) - Z⁻¹B (BᵀZ⁻¹B)⁻¹(1, 1)ᵀ. Its part for x
    is v, with vᵀa₋ = 0. By the Schur complement, C is all that is ever factorised.

    Args:
        moments: Of the data to maximise on.
        lower: :func:`factor` of their covariance.
        weight: w.
        estimator: a₊ and a₋.

    Returns:
        v; zero where the largest correlation is below 1e-6, which rounding
        cannot tell from none; NaN where the estimator is.

    References:
        Kindermans et al., "Learning how to explain neural networks: PatternNet and
        PatternAttribution", ICLR 2018, Eq. 1; there v is found by gradient descent.
    """
    variance = (weight @ lower).square().sum(-1)
    if estimator.negative is None:
        away, unexplained = _one_component(lower, estimator)
    else:
        away, unexplained = _two_components(moments, lower, variance, estimator)
    explained = 1 - unexplained / variance
    return (weight - away) * (explained > _NO_CORRELATION)[..., None]


def rounding_variance(weight: Taps, energy: Float[Tensor, " groups"]) -> PerUnit:
    """Return the variance that rounding to float32 alone can give outputs: below it, none counts.

    Args:
        weight: Of the units.
        energy: Mean squared length of a patch.
    """
    return _ROUNDING**2 * weight.square().sum(-1) * energy[:, None]


def energy(moments: PatchMoments) -> Float[Tensor, " groups"]:
    """Return the mean squared length of a patch."""
    return moments.covariance.diagonal(dim1=-2, dim2=-1).sum(-1) + moments.mean.square().sum(-1)


def _one_component(lower: Factor, estimator: Estimator) -> tuple[Taps, PerUnit]:
    solved = _solve(lower, estimator.positive)
    unexplained = 1 / _dot(estimator.positive, solved)
    return solved * unexplained[..., None], unexplained


def _two_components(
    moments: PatchMoments, lower: Factor, variance: PerUnit, estimator: Estimator
) -> tuple[Taps, PerUnit]:
    positive, negative, cross = estimator.positive, estimator.off, moments.cross
    solved_cross = _solve(lower, cross)
    # A unit that is always on, or never, leaves no variance to y₊ given x. A small one takes its
    # place: then only the pattern in use counts.
    left = moments.active_variance - _dot(cross, solved_cross)
    left = torch.maximum(left, _SMALLEST_PIVOT * variance)
    # Z⁻¹ (a₊, 1) and Z⁻¹ (a₋, 0): first the part for y₊, then the part for x.
    last_positive = (1 - _dot(positive, solved_cross)) / left
    last_negative = -_dot(negative, solved_cross) / left
    first_positive = _solve(lower, positive) - solved_cross * last_positive[..., None]
    first_negative = _solve(lower, negative) - solved_cross * last_negative[..., None]
    # (BᵀZ⁻¹B)⁻¹ (1, 1)ᵀ by Cramer's rule.
    both = _dot(negative, first_positive)
    of_positive = _dot(positive, first_positive) + last_positive
    of_negative = _dot(negative, first_negative)
    determinant = of_positive * of_negative - both.square()
    for_positive = (of_negative - both) / determinant
    for_negative = (of_positive - both) / determinant
    away = first_positive * for_positive[..., None] + first_negative * for_negative[..., None]
    return away, for_positive + for_negative


def _of_unit_length(weight: Taps, pattern: Taps) -> Taps:
    length = _dot(weight, pattern)
    return pattern / length.where(length != 0, torch.nan)[..., None]


def _solve(lower: Factor, right: Taps) -> Taps:
    """Return C⁻¹ times each row of ``right``."""
    return torch.cholesky_solve(right.mT, lower).mT


def _dot(first: Taps, second: Taps) -> PerUnit:
    return (first * second).sum(-1)
