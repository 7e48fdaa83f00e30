"""Completeness: a map adds up to what it explains."""

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from captum_blackbox.errors import check_choice
from captum_blackbox.metrics.axioms.cases import Case, case
from captum_blackbox.metrics.axioms.explaining import (
    AttributionFactory,
    NotApplicableError,
    explain,
    scores,
)
from captum_blackbox.metrics.axioms.result import AxiomResult, Finding, judged
from captum_blackbox.shapes import Target

Total: TypeAlias = Literal["difference", "score"]
"""What a map adds up to."""

_COUNT = 16


def completeness(
    factory: AttributionFactory,
    *,
    model: nn.Module | None = None,
    inputs: Tensor | None = None,
    target: Target = None,
    baseline: Tensor | None = None,
    total: Total = "difference",
    tolerance: float = 0.05,
    seed: int = 0,
) -> AxiomResult:
    r"""Check that the importance of all inputs adds up to the score, less that of a baseline.

    .. math:: \sum_i a_i = f(x) - f(x')

    Args:
        factory: Model → explainer.
        model: The network; by default a small one, with ReLUs and biases, without padding.
        inputs: Images for it.
        target: Class to explain; by default the prediction.
        baseline: The image :math:`x'` that the score is compared with, as large as the inputs or
            one for all; black by default.
        total: ``"difference"``, as above; or ``"score"``, the conservation that LRP and deep Taylor
            decomposition aim at, :math:`\sum_i a_i = f(x)`. Both are the same where a black image
            has score 0.
        tolerance: Share of the largest total; the default leaves room for 50 steps of integration.
        seed: Of network and images.

    Returns:
        The error is the largest gap, as a share of the largest total.

    Raises:
        InputError: ``total`` is unknown.

    References:
        Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, sec. 3; Bach
        et al., PLoS ONE 2015, eq. 2 (conservation).

    Example:
        >>> from captum.attr import IntegratedGradients, Saliency
        >>> completeness(IntegratedGradients).holds, completeness(Saliency).holds
        (True, False)
    """
    check_choice("total", total, get_args(Total))
    return judged(
        "completeness",
        "share of the largest total",
        tolerance,
        lambda: _gap(
            factory, case(model, inputs, target, seed, count=_COUNT), baseline, total, seed
        ),
    )


def _gap(
    factory: AttributionFactory, on: Case, baseline: Tensor | None, total: Total, seed: int
) -> Finding:
    maps = explain(factory, on.model, on.inputs, on.target, data=on.data, seed=seed)
    expected = scores(on.model, on.inputs, on.target)
    if total == "difference":
        black = torch.zeros_like(on.inputs)
        black = black if baseline is None else black + baseline
        expected = expected - scores(on.model, black, on.target)
    largest = expected.abs().max()
    if largest == 0:
        raise NotApplicableError("no image changes the score, so there is nothing to add up to")
    sums = maps.flatten(1).sum(1)
    gaps = (sums - expected).abs() / largest
    worst = int(gaps.argmax())
    what = "the score" if total == "score" else "the change of the score"
    return Finding(
        float(gaps[worst]),
        f"the map of image {worst} adds up to {float(sums[worst]):.3g}, {what} is "
        f"{float(expected[worst]):.3g}",
        {
            "model": on.model,
            "image": on.inputs[worst],
            "target": int(on.target[worst]),
            "sum": float(sums[worst]),
            "expected": float(expected[worst]),
        },
    )
