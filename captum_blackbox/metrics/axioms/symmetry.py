"""Symmetry: what can be exchanged is equally important."""

import torch
from torch import Tensor, nn

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.metrics.axioms.cases import FITTING, Case, case
from captum_blackbox.metrics.axioms.explaining import AttributionFactory, by_pixel, explain
from captum_blackbox.metrics.axioms.result import AxiomResult, Finding, judged
from captum_blackbox.shapes import Target
from captum_blackbox.testing import some_images, symmetric_network


def symmetry(
    factory: AttributionFactory,
    *,
    model: nn.Module | None = None,
    inputs: Tensor | None = None,
    pairs: Tensor | None = None,
    target: Target = None,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> AxiomResult:
    """Check that pixels which can be exchanged, and are equal, have the same importance.

    Args:
        factory: Model → explainer.
        model: The network; by default :func:`~captum_blackbox.testing.symmetric_network`, a
            symmetric function of layers that are not symmetric.
        inputs: Images for it; the first pixel of a pair is copied to the second.
        pairs: ``(pairs, 2, 2)`` row and column of both pixels; needed with a model of your own.
        target: Class to explain; by default the prediction.
        tolerance: Share of the largest importance.
        seed: Of network and images.

    Returns:
        The error is the largest difference within a pair, as a share of the largest importance.

    Raises:
        InputError: A model came without ``pairs``, or the score changes when they are exchanged.
        ShapeError: ``pairs`` has another shape.

    References:
        Shapley, "A value for n-person games", 1953; Sundararajan, Taly, Yan, ICML 2017, sec. 4.1
        (symmetry-preserving).

    Example:
        >>> from captum.attr import DeepLift, IntegratedGradients
        >>> symmetry(IntegratedGradients).holds, symmetry(DeepLift).holds
        (True, False)
    """
    data = inputs
    if (model is None) != (pairs is None):
        raise InputError("a model of your own and the pairs of its pixels come together")
    if model is None or pairs is None:
        model, pairs = symmetric_network(seed)
        if inputs is None:
            inputs, data = (_bright(count, seed) for count in (4, FITTING))
    if pairs.dim() != 3 or pairs.shape[1:] != (2, 2):
        raise ShapeError(f"expected pairs of pixels (pairs, 2, 2), got {tuple(pairs.shape)}")
    on = case(model, inputs, target, seed)
    first, second = (pairs[:, i].to(on.inputs.device).unbind(1) for i in (0, 1))
    _check_symmetric(on, first, second)
    equal = on.inputs.clone()
    equal[:, :, second[0], second[1]] = equal[:, :, first[0], first[1]]
    on = Case(on.model, equal, on.target, on.data if data is None else data)
    return judged(
        "symmetry",
        "share of the largest importance",
        tolerance,
        lambda: _difference(factory, on, pairs, seed),
    )


def _bright(count: int, seed: int) -> Tensor:
    return some_images(count, seed).abs() + 0.5


def _check_symmetric(on: Case, first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> None:
    with torch.no_grad():
        scores = on.model(on.inputs)
        for (a, b), (c, d) in zip(zip(*first, strict=True), zip(*second, strict=True), strict=True):
            swapped = on.inputs.clone()
            swapped[:, :, a, b] = on.inputs[:, :, c, d]
            swapped[:, :, c, d] = on.inputs[:, :, a, b]
            change = float((on.model(swapped) - scores).abs().max())
            if change > 1e-5 * float(scores.abs().max()):
                raise InputError(
                    f"a score changes by {change:.3g} when pixels ({int(a)}, {int(b)}) and "
                    f"({int(c)}, {int(d)}) are exchanged; the model is not symmetric in them"
                )


def _difference(factory: AttributionFactory, on: Case, pairs: Tensor, seed: int) -> Finding:
    maps = explain(factory, on.model, on.inputs, on.target, data=on.data, seed=seed)
    by_pixel(maps, on.inputs)  # refuses what is no map of pixels
    by_channel = maps[:, None] if maps.dim() == 3 else maps
    rows, columns = pairs.to(maps.device).unbind(2)
    of_pairs = by_channel[:, :, rows, columns]  # images, channels, pairs, 2
    largest = by_channel.abs().amax((1, 2, 3))
    apart = (of_pairs[..., 0] - of_pairs[..., 1]).abs().amax(1)
    share = apart / torch.where(largest > 0, largest, 1.0)[:, None]
    worst, pair = divmod(int(share.argmax()), len(pairs))
    (a, b), (c, d) = pairs[pair].tolist()
    return Finding(
        float(share[worst, pair]),
        f"the importance of pixels ({a}, {b}) and ({c}, {d}), equal and exchangeable, differs by "
        f"{100 * float(share[worst, pair]):.3g} % of the largest",
        {
            "model": on.model,
            "image": on.inputs[worst],
            "target": int(on.target[worst]),
            "pixels": [[a, b], [c, d]],
            "map": maps[worst],
        },
    )
