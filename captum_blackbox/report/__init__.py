"""Pictures, figures and pages of results; the only package that draws."""

from captum_blackbox.report.comparison import Difference, paired_difference
from captum_blackbox.report.curves import degradation_png, game_png, layers_png, loss_png
from captum_blackbox.report.overlay import heat_png, overlay_png, picture_png
from captum_blackbox.report.page import (
    ExplainedImage,
    ExplanationPage,
    LayerResult,
    MethodResult,
    MethodSummary,
    StudentSummary,
    render,
)
from captum_blackbox.report.patterns_page import (
    DegradationSummary,
    PatternsImage,
    PatternsMap,
    PatternsPage,
    render_patterns,
)
from captum_blackbox.report.quality import quality_png
from captum_blackbox.report.signals import attribution_png, montage_png, signal_png

__all__ = [
    "DegradationSummary",
    "Difference",
    "ExplainedImage",
    "ExplanationPage",
    "LayerResult",
    "MethodResult",
    "MethodSummary",
    "PatternsImage",
    "PatternsMap",
    "PatternsPage",
    "StudentSummary",
    "attribution_png",
    "degradation_png",
    "game_png",
    "heat_png",
    "layers_png",
    "loss_png",
    "montage_png",
    "overlay_png",
    "paired_difference",
    "picture_png",
    "quality_png",
    "render",
    "render_patterns",
    "signal_png",
]
