"""Parameter randomisation: what the network has learned shows in its maps."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_blackbox.errors import LayerError
from captum_blackbox.hooks import find_layers
from captum_blackbox.metrics.axioms.cases import Case, case
from captum_blackbox.metrics.axioms.explaining import AttributionFactory, explain
from captum_blackbox.metrics.axioms.resemblance import resemblance
from captum_blackbox.metrics.axioms.result import AxiomResult, Finding, judged
from captum_blackbox.shapes import Target

_UNITS, _COUNT = 32, 8


def parameter_randomisation(
    factory: AttributionFactory,
    *,
    model: nn.Module | None = None,
    inputs: Tensor | None = None,
    target: Target = None,
    layers: Sequence[str] | None = None,
    tolerance: float = 0.6,
    seed: int = 0,
) -> AxiomResult:
    """Check that random weights give other maps, layer after layer from the scores down.

    The weights of one layer more are replaced in each step, and stay so. Each tensor of weights is
    drawn anew, normally distributed with its mean and deviation.

    Args:
        factory: Model → explainer. What is fitted, is fitted to each network anew.
        model: The network; by default a small one. It is copied.
        inputs: Images for it.
        target: Class to explain; by default the prediction of the network as it was.
        layers: Names of layers with weights, from the scores down; by default all, in the opposite
            order of ``named_modules``.
        tolerance: Of the resemblance.
        seed: Of network, images and weights.

    Returns:
        The error is the largest resemblance that a step leaves, the absolute rank correlation of
        all values of both maps in [0, 1], in the mean over images; ``details`` has it after each
        layer.

    Raises:
        LayerError: A layer does not exist or has no weights.

    References:
        Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, sec. 3 (cascading
        randomisation). They report correlations with and without signs; here signs count, up to
        that of a whole map.

    Example:
        >>> from captum.attr import GuidedBackprop, Saliency
        >>> parameter_randomisation(Saliency).holds
        True
        >>> result = parameter_randomisation(GuidedBackprop)
        >>> result.holds, list(result.details)
        (False, ['head.0', 'features.2', 'features.0'])
    """
    on = case(model, inputs, target, seed, units=_UNITS, count=_COUNT)
    names = _layers(on.model) if layers is None else list(find_layers(on.model, layers))
    for name in names:
        if not list(on.model.get_submodule(name).parameters(recurse=False)):
            raise LayerError(f"layer {name!r} has no weights of its own to randomise")
    return judged(
        "parameter_randomisation",
        "mean absolute rank correlation",
        tolerance,
        lambda: _cascade(factory, on, names, seed),
    )


def _layers(model: nn.Module) -> list[str]:
    """Return the layers with weights of their own, the last one first."""
    names = [name for name, part in model.named_modules() if list(part.parameters(recurse=False))]
    if not names:
        raise LayerError(f"{type(model).__name__} has no weights to randomise")
    return names[::-1]


def _cascade(factory: AttributionFactory, on: Case, names: list[str], seed: int) -> Finding:
    generator = torch.Generator().manual_seed(seed)
    changed = copy.deepcopy(on.model)
    before = explain(factory, on.model, on.inputs, on.target, data=on.data, seed=seed)
    details, worst = {}, Finding(-1.0, "", {})
    for name in names:
        _randomise(changed.get_submodule(name), generator)
        after = explain(
            factory, copy.deepcopy(changed), on.inputs, on.target, data=on.data, seed=seed
        )
        each = resemblance(before, after)
        details[name] = float(each.mean())
        if details[name] > worst.error:
            image = int(each.argmax())
            example = {
                "model": on.model,
                "randomised_down_to": name,
                "image": on.inputs[image],
                "target": int(on.target[image]),
                "maps": torch.stack([before[image], after[image]]),
            }
            reason = (
                f"with random weights from the scores down to {name!r}, maps still have a rank "
                f"correlation of {details[name]:.2f} with those before, whatever its sign"
            )
            worst = Finding(details[name], reason, example)
    return Finding(worst.error, worst.reason, worst.example, details)


def _randomise(layer: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for weights in layer.parameters(recurse=False):
            drawn = torch.randn(weights.shape, generator=generator, dtype=torch.float64)
            spread = weights.double().std(correction=0)
            weights.copy_(drawn.to(weights.device) * spread + weights.double().mean())
