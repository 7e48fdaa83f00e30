"""Ready methods that are fitted to images first."""

from typing import Any

from torch import Tensor, nn

from captum_blackbox.compare.setup import Setup
from captum_blackbox.patterns import PatternAttribution, Patterns
from captum_blackbox.student import DistilledLayerSumGradCAM, student_network

_SMALL = 112  # pixels: below it a small student sees enough


def pattern_attribution(setup: Setup, *, regime_centering: bool = False) -> Any:  # noqa: ANN401
    """Fit the patterns of the positive regime, as published or centred within it."""
    model: Any = setup.model
    patterns = Patterns.fit(
        model, setup.data, regime_centering=regime_centering, show_progress=False
    )
    return PatternAttribution(model, patterns)


def distilled_layer_sum(setup: Setup) -> Any:  # noqa: ANN401
    """Distil a student: a small network below 112 pixels, a SqueezeNet from there on."""
    student = student_for(setup.example, setup.num_classes).to(setup.example)
    explainer = DistilledLayerSumGradCAM(setup.box, student)
    explainer.distill(setup.data, seed=setup.seed, device=setup.example.device, show_progress=False)
    return explainer


def student_for(example: Tensor, num_classes: int, name: str | None = None) -> nn.Module:
    """Return a student with random weights; by default one that suits the size of an image."""
    channels, *size = example.shape[1:]
    suited = "small_cnn" if min(size) < _SMALL else "squeezenet1_1"
    return student_network(name or suited, num_classes, channels)
