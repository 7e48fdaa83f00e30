"""Sensitivity: what alone changes the score is important."""

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

_PIXELS = 12  # tried of each image
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
    """Check that a pixel which alone changes the score has some importance: sensitivity (a).

    Each image fed is the baseline but for one pixel.

    Args:
        factory: Model → explainer.
        model: The network; by default a small random one, and one that saturates
            (:func:`~captum_blackbox.testing.saturating_network`).
        inputs: Images for it, from which the pixels are taken.
        target: Class to explain; by default the prediction.
        baseline: One image, black by default.
        tolerance: Share of the largest change.
        seed: Of network, images and pixels.

    Returns:
        The error is the largest change of the score by a pixel without importance, as a share of
        the largest change by any pixel.

    References:
        Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, sec. 2.1.

    Example:
        >>> from captum.attr import IntegratedGradients, Saliency
        >>> sensitivity(IntegratedGradients).holds, sensitivity(Saliency).holds
        (True, False)
    """

    def measure() -> Finding:
        cases = [case(model, inputs, target, seed)]
        if model is None:
            bright = torch.full_like(cases[0].inputs[:1], _BRIGHT)
            data = some_images(FITTING, seed + 1).abs()
            classes = torch.zeros(1, dtype=torch.long)
            cases.append(Case(saturating_network(seed), bright, classes, data))
        found = [_unseen(factory, on, baseline, seed) for on in cases]
        return max(found, key=lambda each: each.error)

    return judged("sensitivity", "share of the largest change of the score", tolerance, measure)


def _unseen(
    factory: AttributionFactory, on: Case, baseline: Tensor | None, seed: int
) -> Finding:
    height, width = on.inputs.shape[2:]
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(height * width, generator=generator)[:_PIXELS].to(on.inputs.device)
    black = torch.zeros_like(on.inputs[:1])
    black = black if baseline is None else black + baseline
    probes, target = _probes(on, black, places)
    before = scores(on.model, black.expand_as(probes), target)
    changes = (scores(on.model, probes, target) - before).abs()
    largest = changes.max()
    if largest == 0:
        raise NotApplicableError("no single pixel changes the score")
    maps = explain(factory, on.model, probes, target, data=on.data, seed=seed)
    importance = by_pixel(maps, probes).flatten(1)
    rows = torch.arange(len(probes), device=places.device)
    place = places.repeat(len(on.inputs))
    own = importance[rows, place] > _NONE * importance.amax(1)
    unseen = torch.where(own, 0.0, changes / largest)
    worst = int(unseen.argmax())
    row, column = divmod(int(place[worst]), width)
    what = "none" if unseen[worst] > 0 else "some, as has every such pixel"
    return Finding(
        float(unseen[worst]),
        f"pixel ({row}, {column}) alone changes the score by {float(changes[worst]):.3g}, and has "
        f"{what} of the importance",
        {
            "model": on.model,
            "image": probes[worst],
            "baseline": black[0],
            "target": int(target[worst]),
            "pixel": [row, column],
            "map": maps[worst],
        },
    )


def _probes(on: Case, black: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return the baseline with one pixel of an image each, and the classes to explain."""
    count, pixels = len(on.inputs), len(places)
    chosen = torch.zeros(pixels, on.inputs[0, 0].numel(), device=places.device, dtype=torch.bool)
    chosen[torch.arange(pixels), places] = True
    chosen = chosen.view(1, pixels, 1, *on.inputs.shape[2:])
    probes = torch.where(chosen, on.inputs[:, None], black[:, None]).flatten(0, 1)
    return probes, on.target.repeat_interleave(pixels).view(count * pixels)
