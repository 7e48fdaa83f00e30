"""Sensitivity: what alone changes the score has some importance."""

import torch
from torch import Tensor, nn

from captum_blackbox.metrics.axioms.cases import FITTING, Case, case
from captum_blackbox.metrics.axioms.explaining import (
    AttributionFactory,
    NotApplicableError,
    by_pixel,
    explain,
    scores,
)
from captum_blackbox.metrics.axioms.result import AxiomResult, Finding, judged
from captum_blackbox.shapes import Target
from captum_blackbox.testing import saturating_network, some_images
from captum_blackbox.testing.networks import CLASSES

_VALUES = 16  # tried of each image
_NONE = 1e-9  # of the largest importance: no importance
_BRIGHT = 2.0


def sensitivity(
    factory: AttributionFactory,
    *,
    model: nn.Module | None = None,
    inputs: Tensor | None = None,
    target: Target = None,
    baseline: Tensor | None = None,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> AxiomResult:
    """Check that a value which alone changes the score has some importance: sensitivity (a).

    Each image fed is the baseline but for one channel of one pixel. In a map without channels its
    pixel is looked at.

    Args:
        factory: Model → explainer.
        model: The network; by default a small random one, and one that saturates
            (:func:`~captum_blackbox.testing.saturating_network`).
        inputs: Images for it, from which the values are taken.
        target: Class to explain; by default the prediction, and of the small network each class in
            turn.
        baseline: One image, black by default.
        tolerance: Share of the largest change.
        seed: Of network, images and places.

    Returns:
        The error is the largest change of the score by a value without importance, as a share of
        the largest change by any.

    References:
        Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, sec. 2.1.

    Example:
        >>> from captum.attr import IntegratedGradients, Saliency
        >>> sensitivity(IntegratedGradients).holds, sensitivity(Saliency).holds
        (True, False)
    """

    def measure() -> Finding:
        if model is not None:
            cases = [case(model, inputs, target, seed)]
        else:
            number = CLASSES if inputs is None else len(inputs)
            asked = [i % CLASSES for i in range(number)] if target is None else target
            cases = [case(None, inputs, asked, seed, count=CLASSES)]
            bright = torch.full_like(cases[0].inputs[:1], _BRIGHT)
            classes = torch.zeros_like(cases[0].target[:1])
            classes = classes if target is None else cases[0].target[:1]
            data = some_images(FITTING, seed + 1).abs()
            cases.append(Case(saturating_network(seed), bright, classes, data))
        found = [_unseen(factory, on, baseline, seed) for on in cases]
        return max(found, key=lambda each: each.error)

    return judged("sensitivity", "share of the largest change of the score", tolerance, measure)


def _unseen(factory: AttributionFactory, on: Case, baseline: Tensor | None, seed: int) -> Finding:
    size = on.inputs.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(size.numel(), generator=generator)[:_VALUES].to(on.inputs.device)
    black = torch.zeros_like(on.inputs[:1])
    black = black if baseline is None else black + baseline
    probes, target, place = _probes(on, black, places)
    before = scores(on.model, black.expand_as(probes), target)
    changes = (scores(on.model, probes, target) - before).abs()
    largest = changes.max()
    if largest == 0:
        raise NotApplicableError("no single value changes the score")
    maps = explain(factory, on.model, probes, target, data=on.data, seed=seed)
    values = maps if maps.shape == probes.shape else by_pixel(maps, probes)[:, None]
    importance = values.abs().expand_as(probes).flatten(1)
    rows = torch.arange(len(probes), device=places.device)
    seen = importance[rows, place] > _NONE * importance.amax(1)
    unseen = torch.where(seen, 0.0, changes / largest)
    worst = int(unseen.argmax())
    channel, row, column = (int(i) for i in torch.unravel_index(place[worst], size))
    reason = f"each of {int((changes > 0).sum())} values that alone change the score is important"
    if unseen[worst] > 0:
        reason = (
            f"channel {channel} of pixel ({row}, {column}) alone changes the score by "
            f"{float(changes[worst]):.3g}, and has no importance"
        )
    return Finding(
        float(unseen[worst]),
        reason,
        {
            "model": on.model,
            "image": probes[worst],
            "baseline": black[0],
            "target": int(target[worst]),
            "channel_and_pixel": [channel, row, column],
            "map": maps[worst],
        },
    )


def _probes(on: Case, black: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return baselines with one value of an image, the classes to explain, and the places."""
    size = on.inputs.shape[1:]
    chosen = torch.zeros(len(places), size.numel(), device=places.device, dtype=torch.bool)
    chosen[torch.arange(len(places)), places] = True
    probes = torch.where(chosen.view(1, -1, *size), on.inputs[:, None], black[:, None])
    return (
        probes.flatten(0, 1),
        on.target.repeat_interleave(len(places)),
        places.repeat(len(on.inputs)),
    )
