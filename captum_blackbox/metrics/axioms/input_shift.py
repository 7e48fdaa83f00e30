"""Input-shift invariance: a constant that the first layer takes off again changes no map."""

import copy

import torch
from torch import Tensor, nn

from captum_blackbox.metrics.axioms.cases import Case, case
from captum_blackbox.metrics.axioms.explaining import (
    AttributionFactory,
    NotApplicableError,
    explain,
    relative_difference,
)
from captum_blackbox.metrics.axioms.result import AxiomResult, Finding, judged
from captum_blackbox.shapes import Target


def input_shift(
    factory: AttributionFactory,
    *,
    model: nn.Module | None = None,
    inputs: Tensor | None = None,
    target: Target = None,
    shift: float = 1.0,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> AxiomResult:
    r"""Check that a constant shift of all images, undone by the first bias, changes no map.

    The second network has :math:`b - \sum W m` for the first bias :math:`b` and sees
    :math:`x + m`, so that all its units do the same.

    Args:
        factory: Model → explainer. Where a baseline is an image, such as black, it stays the same
            for both. What is fitted, is fitted to shifted images (parameter ``data``).
        model: The network; by default a small one. Its first convolution or linear layer must see
            the images themselves, and no padding.
        inputs: Images for it.
        target: Class to explain; by default the prediction.
        shift: :math:`m`, added to every value.
        tolerance: Share of the largest importance.
        seed: Of network and images.

    Returns:
        The error is the largest difference of both maps, as a share of the largest importance. Not
        applicable if the shift cannot be undone.

    References:
        Kindermans et al., "The (Un)reliability of saliency methods", 2017, sec. 2.

    Example:
        >>> from captum.attr import InputXGradient, Saliency
        >>> input_shift(Saliency).holds, input_shift(InputXGradient).holds
        (True, False)
    """
    return judged(
        "input_shift",
        "share of the largest importance",
        tolerance,
        lambda: _difference(factory, case(model, inputs, target, seed), shift, seed),
    )


def _difference(factory: AttributionFactory, on: Case, shift: float, seed: int) -> Finding:
    moved, model = on.inputs + shift, _undoing(on, shift)
    before = explain(factory, on.model, on.inputs, on.target, data=on.data, seed=seed)
    after = explain(factory, model, moved, on.target, data=on.data + shift, seed=seed)
    errors = relative_difference(before, after)
    worst = int(errors.argmax())
    return Finding(
        float(errors[worst]),
        f"when {shift:g} is added to every pixel and the first bias undoes it, a map changes by "
        f"{100 * float(errors[worst]):.3g} % of the largest importance",
        {
            "model": on.model,
            "shifted_model": model,
            "image": on.inputs[worst],
            "shift": shift,
            "target": int(on.target[worst]),
            "maps": torch.stack([before[worst], after[worst]]),
        },
    )


def _undoing(on: Case, shift: float) -> nn.Module:
    """Return the network that sees shifted images and does the same."""
    model = copy.deepcopy(on.model)
    layers = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    if not layers:
        raise NotApplicableError("the network has no convolution or linear layer to undo a shift")
    with torch.no_grad():
        undone = -shift * layers[0].weight.flatten(1).sum(1)
        old = layers[0].bias
        layers[0].bias = nn.Parameter(undone if old is None else old + undone)
        scores = on.model(on.inputs)
        change = float((model(on.inputs + shift) - scores).abs().max())
    if change > 1e-5 * float(scores.abs().max()):
        raise NotApplicableError(
            "the first layer cannot undo a shift: it pads, or does not see the images themselves "
            f"(a score changes by {change:.3g})"
        )
    return model
