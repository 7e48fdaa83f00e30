"""From moments to patterns: the signal estimators of the paper, one row for each unit."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_blackbox.patterns.linear_layers import Rows
from captum_blackbox.statistics import Moments

Regime: TypeAlias = Literal["positive", "negative", "two_component", "linear", "filter"]
"""Which samples a pattern is estimated from; ``"filter"`` uses none."""

Final: TypeAlias = Literal["positive", "linear"]
"""The regime of layers whose own output no ReLU takes."""

DEGENERATE = 1e-12
"""A pattern is undefined where ``|wᵀn| <= DEGENERATE ‖w‖ ‖n‖`` for its numerator ``n``."""

UNSTABLE = 0.01
"""Below this cosine between weight and numerator, a pattern is not to be trusted."""

_ROUNDING = 1.0  # units in the last place by which a constant output may vary

Component: TypeAlias = Literal["filter", "linear", "positive", "negative"]


class Estimate(NamedTuple):
    """Patterns of one layer.

    Attributes:
        rows: One pattern for each unit, float64; ``wᵀa = 1``, or 0 where there is none.
        degenerate: Units without a pattern: never in the regime, constant, or ``wᵀn`` is 0.
        unstable: Units whose numerator ``n`` has hardly a part along ``w``,
            ``wᵀn < UNSTABLE ‖w‖ ‖n‖``: their patterns are huge, or point against the numerator
            where ``wᵀn < 0``. A large bias is the cause, or few samples. They are kept.
    """

    rows: Rows
    degenerate: Bool[Tensor, " units"]
    unstable: Bool[Tensor, " units"]


def components_of(regime: Regime, final: Final, *, is_gated: bool) -> tuple[Component, ...]:
    """Return what a layer's pattern is made of.

    Args:
        regime: As asked for.
        final: For layers that are not gated.
        is_gated: Whether the layer's own output goes to a ReLU.

    Example:
        >>> components_of("two_component", "positive", is_gated=True)
        ('positive', 'negative')
        >>> components_of("negative", "linear", is_gated=False)
        ('linear',)
    """
    if regime in ("filter", "linear"):
        return (regime,)
    if not is_gated and final == "linear":
        return ("linear",)
    if regime == "two_component":
        return ("positive", "negative")
    return (regime,) if is_gated else ("positive",)


def estimate(
    component: Component,
    weight: Rows,
    moments: Mapping[str, Moments],
    mean_outputs: Float[Tensor, " units"],
    *,
    regime_centering: bool = False,
) -> Estimate:
    r"""Return the patterns of a layer.

    With :math:`y = w^T x` and means :math:`E_r` over the samples of a regime,

    .. math:: a_w = \frac{w}{w^T w}, \quad a = \frac{cov[x, y]}{w^T cov[x, y]}, \quad
        a_\pm = \frac{n_\pm}{w^T n_\pm}, \quad n_\pm = E_\pm[x y] - E_\pm[x] E[y],

    where :math:`E[y]` is over all samples. The last is computed as
    :math:`cov_\pm[x, y] + E_\pm[x] (E_\pm[y] - E[y])`, which does not cancel.

    Args:
        component: Which of them.
        weight: Rows of the layer's weight, float64, BatchNorm folded in.
        moments: Regime → moments; ``"all"`` for the linear one; none for the filter.
        mean_outputs: Over all samples.
        regime_centering: Take :math:`n_\pm = cov_\pm[x, y]` instead, which recovers the signal's
            direction also where inputs have a mean.

    References:
        Kindermans et al., "Learning how to explain neural networks", ICLR 2018, eq. 3 and 7.
    """
    if component == "filter":
        return _normalised(weight, weight, weight.new_zeros(len(weight), dtype=torch.bool))
    found = moments["all" if component == "linear" else component]
    offset = found.mean_outputs - mean_outputs
    numerator = found.covariance
    if component != "linear" and not regime_centering:
        numerator = numerator + found.mean_inputs * offset[:, None]
    # Rounding makes a constant vary a little, in any direction.
    moved = 0.0 if regime_centering else offset**2
    spread = (found.variance_outputs + moved).sqrt()
    undefined = (found.count == 0) | (spread <= _ROUNDING * found.resolution)
    return _normalised(weight, numerator, undefined)


def _normalised(weight: Rows, numerator: Rows, undefined: Bool[Tensor, " units"]) -> Estimate:
    projection = (weight * numerator).sum(1)
    lengths = weight.norm(dim=1) * numerator.norm(dim=1)
    degenerate = undefined | (projection.abs() <= DEGENERATE * lengths)
    rows = numerator / torch.where(degenerate, 1.0, projection)[:, None]
    rows = torch.where(degenerate[:, None], 0.0, rows)
    return Estimate(rows, degenerate, ~degenerate & (projection < UNSTABLE * lengths))
