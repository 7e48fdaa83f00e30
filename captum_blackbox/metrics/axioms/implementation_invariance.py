"""Implementation invariance: networks that compute the same are explained the same."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from captum_blackbox.errors import InputError
from captum_blackbox.metrics.axioms.cases import Case, case
from captum_blackbox.metrics.axioms.explaining import (
    AttributionFactory,
    explain,
    relative_difference,
)
from captum_blackbox.metrics.axioms.result import AxiomResult, Finding, judged
from captum_blackbox.shapes import Target
from captum_blackbox.testing import equal_networks, shifted_relus, small_network


def implementation_invariance(
    factory: AttributionFactory,
    *,
    pairs: Mapping[str, tuple[nn.Module, nn.Module]] | None = None,
    inputs: Tensor | None = None,
    target: Target = None,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> AxiomResult:
    """Check that networks which compute the same function get the same maps.

    Args:
        factory: Model → explainer.
        pairs: What was done → two networks. By default a small network and itself with its units
            permuted, rescaled, split in two, with an identity layer more, and two networks with
            ReLUs at different places (:mod:`captum_blackbox.testing`).
        inputs: Images for them.
        target: Class to explain; by default the prediction.
        tolerance: Share of the largest importance.
        seed: Of networks and images.

    Returns:
        The error is the largest difference of two maps, as a share of the largest importance;
        ``details`` has it for each pair.

    Raises:
        InputError: The networks of a pair do not compute the same.

    References:
        Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, sec. 2.2.

    Example:
        >>> from captum.attr import DeepLift, Saliency
        >>> implementation_invariance(Saliency).holds
        True
        >>> result = implementation_invariance(DeepLift)
        >>> result.holds, max(result.details, key=result.details.get)
        (False, 'shifted ReLUs')
    """
    if pairs is None:
        network = small_network(seed)
        pairs = {name: (network, each) for name, each in equal_networks(network, seed).items()}
        pairs["shifted ReLUs"] = shifted_relus(seed)
    chosen = pairs

    def measure() -> Finding:
        found = {
            name: _difference(factory, name, case(pair[0], inputs, target, seed), pair[1], seed)
            for name, pair in chosen.items()
        }
        worst = max(found.values(), key=lambda each: each.error)
        details = {name: each.error for name, each in found.items()}
        return Finding(worst.error, worst.reason, worst.example, details)

    return judged(
        "implementation_invariance", "share of the largest importance", tolerance, measure
    )


def _difference(
    factory: AttributionFactory, name: str, on: Case, other: nn.Module, seed: int
) -> Finding:
    with torch.no_grad():
        scores = on.model(on.inputs)
        apart = float((other(on.inputs) - scores).abs().max())
    if apart > 1e-5 * float(scores.abs().max()):
        raise InputError(f"the networks of {name!r} differ by {apart:.3g}; they are not equal")
    first, second = (
        explain(factory, model, on.inputs, on.target, data=on.data, seed=seed)
        for model in (on.model, other)
    )
    errors = relative_difference(first, second)
    worst = int(errors.argmax())
    return Finding(
        float(errors[worst]),
        f"of two networks that compute the same ({name}), the maps differ by "
        f"{100 * float(errors[worst]):.3g} % of the largest importance",
        {
            "pair": name,
            "model": on.model,
            "other": other,
            "image": on.inputs[worst],
            "target": int(on.target[worst]),
            "maps": torch.stack([first[worst], second[worst]]),
        },
    )
