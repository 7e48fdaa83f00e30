"""Dummy: what never changes the score has no importance."""

import torch
from torch import Tensor, nn

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.metrics.axioms.cases import Case, case
from captum_blackbox.metrics.axioms.explaining import AttributionFactory, by_pixel, explain
from captum_blackbox.metrics.axioms.result import AxiomResult, Finding, judged
from captum_blackbox.shapes import Target
from captum_blackbox.testing import ignoring_network


def dummy(
    factory: AttributionFactory,
    *,
    model: nn.Module | None = None,
    inputs: Tensor | None = None,
    ignored: Tensor | None = None,
    target: Target = None,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> AxiomResult:
    """Check that pixels which the score does not depend on have no importance: sensitivity (b).

    Args:
        factory: Model → explainer.
        model: The network; by default :func:`~captum_blackbox.testing.ignoring_network`, in which
            some pixels are not read, and what is read of others cancels.
        inputs: Images for it.
        ignored: ``(H, W)``, not 0 where a pixel of the model cannot change any score; needed with
            a model of your own.
        target: Class to explain; by default the prediction.
        tolerance: Share of the largest importance.
        seed: Of network and images.

    Returns:
        The error is the largest importance of such a pixel, as a share of the largest importance in
        its map.

    Raises:
        InputError: A model came without ``ignored``, or these pixels do change the score.
        ShapeError: ``ignored`` is not of the size of the images.

    References:
        Friedman, "Paths and consistency in additive cost sharing", 2004; Sundararajan, Taly, Yan,
        ICML 2017, sec. 3 (sensitivity (b)).

    Example:
        >>> from captum.attr import GuidedBackprop, Saliency
        >>> dummy(Saliency).holds, dummy(GuidedBackprop).holds
        (True, False)
    """
    if (model is None) != (ignored is None):
        raise InputError("a model of your own and the pixels that it ignores come together")
    if model is None or ignored is None:
        model, ignored = ignoring_network(seed)
    on = case(model, inputs, target, seed)
    if ignored.shape != on.inputs.shape[2:]:
        raise ShapeError(
            f"expected ignored pixels {tuple(on.inputs.shape[2:])}, got {tuple(ignored.shape)}"
        )
    inside = ignored.to(on.inputs.device) != 0
    _check_ignored(on, inside)
    return judged(
        "dummy",
        "share of the largest importance",
        tolerance,
        lambda: _importance(factory, on, inside, seed),
    )


def _check_ignored(on: Case, ignored: Tensor) -> None:
    with torch.no_grad():
        scores = on.model(on.inputs)
        changed = on.model(torch.where(ignored, on.inputs.flip(0) + 1, on.inputs))
    largest = float((changed - scores).abs().max())
    if largest > 1e-5 * float(scores.abs().max()):
        raise InputError(
            f"the pixels called ignored change a score by {largest:.3g}; they are no dummies"
        )


def _importance(factory: AttributionFactory, on: Case, ignored: Tensor, seed: int) -> Finding:
    maps = explain(factory, on.model, on.inputs, on.target, data=on.data, seed=seed)
    importance = by_pixel(maps, on.inputs)
    largest = importance.amax((1, 2), keepdim=True)
    share = importance * ignored / torch.where(largest > 0, largest, 1.0)
    place = int(share.argmax())
    worst, pixel = divmod(place, share[0].numel())
    row, column = divmod(pixel, share.shape[2])
    error = float(share.flatten()[place])
    return Finding(
        error,
        f"pixel ({row}, {column}) changes no score and has {100 * error:.3g} % of the largest "
        "importance",
        {
            "model": on.model,
            "image": on.inputs[worst],
            "target": int(on.target[worst]),
            "pixel": [row, column],
            "map": maps[worst],
        },
    )
