"""Pictures, figures and pages of results; the only package that draws."""

from captum_blackbox.report.comparison import Difference, paired_difference
from captum_blackbox.report.curves import game_png, layers_png, loss_png
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

__all__ = [
    "Difference",
    "ExplainedImage",
    "ExplanationPage",
    "LayerResult",
    "MethodResult",
    "MethodSummary",
    "StudentSummary",
    "game_png",
    "heat_png",
    "layers_png",
    "loss_png",
    "overlay_png",
    "paired_difference",
    "picture_png",
    "render",
]
