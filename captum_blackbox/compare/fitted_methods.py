"""Ready methods that are fitted to images first."""

from typing import Any

from captum_blackbox.compare.setup import Setup
from captum_blackbox.patterns import PatternAttribution, Patterns
from captum_blackbox.student import DistilledLayerSumGradCAM, student_network

_SMALL = 112  # pixels: below it a small student sees enough


def pattern_attribution(setup: Setup) -> Any:  # noqa: ANN401 - an attribution
    """Fit the patterns of the positive regime."""
    model: Any = setup.model
    patterns = Patterns.fit(model, setup.data, show_progress=False)
    return PatternAttribution(model, patterns)


def distilled_layer_sum(setup: Setup) -> Any:  # noqa: ANN401
    """Distil a student: a small network below 112 pixels, a SqueezeNet from there on."""
    channels, *size = setup.example.shape[1:]
    name = "small_cnn" if min(size) < _SMALL else "squeezenet1_1"
    student = student_network(name, setup.num_classes, channels).to(setup.example)
    explainer = DistilledLayerSumGradCAM(setup.box, student)
    explainer.distill(setup.data, seed=setup.seed, device=setup.example.device, show_progress=False)
    return explainer
