"""Pictures, figures and pages of results; the only package that draws."""

from captum_blackbox.report.attack_page import (
    AttackedImage,
    AttackPage,
    AttackRow,
    AttackVerdict,
    AttackView,
    render_attack,
)
from captum_blackbox.report.attacked import Moved, attacked_png, change_png, importance_png
from captum_blackbox.report.compare import metric_png, ranks_png
from captum_blackbox.report.comparison import Difference, paired_difference
from captum_blackbox.report.contributions import (
    ContributionRow,
    contribution_rows,
    contributions_png,
)
from captum_blackbox.report.curvature import curvature_png, plane_png
from captum_blackbox.report.curves import degradation_png, game_png, layers_png, loss_png
from captum_blackbox.report.dissection_page import (
    CategoryRow,
    ClassReason,
    CountRow,
    DissectedImage,
    DissectionPage,
    UnitRow,
    render_dissection,
)
from captum_blackbox.report.dissections import comparison_bars_png, comparison_lines_png
from captum_blackbox.report.exemplars import exemplars_png
from captum_blackbox.report.fragility import fragility_png
from captum_blackbox.report.lit_picture import lit_png
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
from captum_blackbox.report.units import (
    category_colors,
    detector_bars_png,
    shown_name,
    unit_gallery_png,
)

__all__ = [
    "AttackPage",
    "AttackRow",
    "AttackVerdict",
    "AttackView",
    "AttackedImage",
    "CategoryRow",
    "ClassReason",
    "ContributionRow",
    "CountRow",
    "DegradationSummary",
    "Difference",
    "DissectedImage",
    "DissectionPage",
    "ExplainedImage",
    "ExplanationPage",
    "LayerResult",
    "MethodResult",
    "MethodSummary",
    "Moved",
    "PatternsImage",
    "PatternsMap",
    "PatternsPage",
    "StudentSummary",
    "UnitRow",
    "attacked_png",
    "attribution_png",
    "category_colors",
    "change_png",
    "comparison_bars_png",
    "comparison_lines_png",
    "contribution_rows",
    "contributions_png",
    "curvature_png",
    "degradation_png",
    "detector_bars_png",
    "exemplars_png",
    "fragility_png",
    "game_png",
    "heat_png",
    "importance_png",
    "layers_png",
    "lit_png",
    "loss_png",
    "metric_png",
    "montage_png",
    "overlay_png",
    "paired_difference",
    "picture_png",
    "plane_png",
    "quality_png",
    "ranks_png",
    "render",
    "render_attack",
    "render_dissection",
    "render_patterns",
    "shown_name",
    "signal_png",
    "unit_gallery_png",
]
