"""Linearity: a sum of scores is explained by the sum of their maps."""

from typing import Any

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

_FACTORS = (2.0, -1.0)


def linearity(
    factory: AttributionFactory,
    *,
    model: nn.Module | None = None,
    inputs: Tensor | None = None,
    classes: tuple[int, int] = (0, 1),
    factors: tuple[float, float] = _FACTORS,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> AxiomResult:
    r"""Check that a weighted sum of two scores gets the same weighted sum of their maps.

    .. math:: a(\alpha f_c + \beta f_d) = \alpha\, a(f_c) + \beta\, a(f_d)

    The sum is computed by a linear layer behind the network, whose parts keep their names.

    Args:
        factory: Model → explainer.
        model: The network; by default a small one.
        inputs: Images for it.
        classes: Of the two scores.
        factors: ``α`` and ``β``.
        tolerance: Share of the largest importance.
        seed: Of network and images.

    Returns:
        The error is the largest difference of both sides, as a share of the largest importance. Not
        applicable to a network with one score.

    References:
        Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, sec. 3.

    Example:
        >>> from captum.attr import InputXGradient, Saliency
        >>> linearity(InputXGradient).holds, linearity(Saliency).holds
        (True, False)
    """
    return judged(
        "linearity",
        "share of the largest importance",
        tolerance,
        lambda: _difference(factory, case(model, inputs, 0, seed), classes, factors, seed),
    )


def _difference(
    factory: AttributionFactory,
    on: Case,
    classes: tuple[int, int],
    factors: tuple[float, float],
    seed: int,
) -> Finding:
    mixture = _mixture(on, classes, factors)

    def maps(model: nn.Module, target: int) -> Tensor:
        targets = torch.full_like(on.target, target)
        return explain(factory, model, on.inputs, targets, data=on.data, seed=seed)

    parts = [maps(on.model, each) for each in classes]
    expected = factors[0] * parts[0] + factors[1] * parts[1]
    found = maps(mixture, 0)
    errors = relative_difference(found, expected)
    worst = int(errors.argmax())
    return Finding(
        float(errors[worst]),
        f"the map of {factors[0]:g} times score {classes[0]} and {factors[1]:g} times score "
        f"{classes[1]} is {100 * float(errors[worst]):.3g} % of the largest importance away from "
        "that sum of their maps",
        {
            "model": on.model,
            "image": on.inputs[worst],
            "classes": list(classes),
            "factors": list(factors),
            "map": found[worst],
            "expected": expected[worst],
        },
    )


def _mixture(on: Case, classes: tuple[int, int], factors: tuple[float, float]) -> nn.Module:
    """Return the network with a layer behind it that makes its first score the mixture."""
    with torch.no_grad():
        count = on.model(on.inputs).shape[1]
        if count < 2:
            raise NotApplicableError("the network has one score only, and none to add to it")
        mixing = nn.utils.skip_init(nn.Linear, count, count, bias=False)  # draws nothing
        nn.init.eye_(mixing.weight)
        mixing.weight[0] = 0
        for index, factor in zip(classes, factors, strict=True):
            mixing.weight[0, index] += factor
    return _Mixed(on.model, mixing.to(on.inputs)).eval()


class _Mixed(nn.Module):
    """A network with a layer behind it; what is asked of it beside that, the network is asked."""

    def __init__(self, network: nn.Module, mixing: nn.Module) -> None:
        super().__init__()
        self.mixed_network = network
        self.mixing_layer = mixing

    def forward(self, images: Tensor) -> Tensor:
        mixed: Tensor = self.mixing_layer(self.mixed_network(images))
        return mixed

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("mixed_network"), name)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - as of a Sequential
        network: Any = self.mixed_network
        return network[index]
