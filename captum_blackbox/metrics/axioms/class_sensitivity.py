"""Class sensitivity: another class has another map."""

import torch
from torch import Tensor, nn

from captum_blackbox.metrics.axioms.cases import Case, case
from captum_blackbox.metrics.axioms.explaining import (
    AttributionFactory,
    NotApplicableError,
    explain,
)
from captum_blackbox.metrics.axioms.resemblance import resemblance
from captum_blackbox.metrics.axioms.result import AxiomResult, Finding, judged

_UNITS, _COUNT = 32, 8


def class_sensitivity(
    factory: AttributionFactory,
    *,
    model: nn.Module | None = None,
    inputs: Tensor | None = None,
    tolerance: float = 0.6,
    seed: int = 0,
) -> AxiomResult:
    """Check that the most and the least likely class have different maps.

    Args:
        factory: Model → explainer.
        model: The network; by default a small one, whose classes have independent random weights.
        inputs: Images for it.
        tolerance: Of the resemblance.
        seed: Of network and images.

    Returns:
        The error is the mean resemblance of both maps, the absolute rank correlation of all their
        values in [0, 1]: a map with opposite signs shows the same. Where classes share their
        evidence, as related ones do, some resemblance is right. Not applicable to a network with
        one score.

    References:
        Nie, Zhang, Patel, "A Theoretical Explanation for Perplexing Behaviors of
        Backpropagation-based Visualizations", ICML 2018: GuidedBackprop restores the image whatever
        the class.

    Example:
        >>> from captum.attr import GuidedBackprop, Saliency
        >>> class_sensitivity(Saliency).holds, class_sensitivity(GuidedBackprop).holds
        (True, False)
    """
    return judged(
        "class_sensitivity",
        "mean absolute rank correlation",
        tolerance,
        lambda: _resemblance(
            factory, case(model, inputs, None, seed, units=_UNITS, count=_COUNT), seed
        ),
    )


def _resemblance(factory: AttributionFactory, on: Case, seed: int) -> Finding:
    with torch.no_grad():
        found = on.model(on.inputs)
    if found.shape[1] < 2:
        raise NotApplicableError("the network has one score only, and no other class to explain")
    unlikely = found.argmin(1)
    first, second = (
        explain(factory, on.model, on.inputs, target, data=on.data, seed=seed)
        for target in (on.target, unlikely)
    )
    each = resemblance(first, second)
    worst = int(each.argmax())
    return Finding(
        float(each.mean()),
        f"the maps of the most and the least likely class have a rank correlation of "
        f"{float(each.mean()):.2f} in the mean, whatever its sign",
        {
            "model": on.model,
            "image": on.inputs[worst],
            "targets": [int(on.target[worst]), int(unlikely[worst])],
            "maps": torch.stack([first[worst], second[worst]]),
        },
    )
