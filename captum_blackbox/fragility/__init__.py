"""How easily can an explanation be moved while the prediction stays?"""

from captum_blackbox.fragility.attack import InterpretationAttack
from captum_blackbox.fragility.criteria import center_moved, correlation_below, topk_below
from captum_blackbox.fragility.curvature import explanation_curvature
from captum_blackbox.fragility.curvature_plane import CurvaturePlane, curvature_plane
from captum_blackbox.fragility.curvature_result import Curvature
from captum_blackbox.fragility.curves import fragility_curves
from captum_blackbox.fragility.curves_result import FragilityCurves
from captum_blackbox.fragility.influence_attack import InfluenceAttack
from captum_blackbox.fragility.influence_result import InfluenceAttackResult
from captum_blackbox.fragility.objectives import Objective, Task, normalised
from captum_blackbox.fragility.result import AttackResult, Measures
from captum_blackbox.fragility.surrogate import GrowingBeta, RelativeBeta, softened
from captum_blackbox.fragility.victims import Victim, derivative_error, victim_of

__all__ = [
    "AttackResult",
    "Curvature",
    "CurvaturePlane",
    "FragilityCurves",
    "GrowingBeta",
    "InfluenceAttack",
    "InfluenceAttackResult",
    "InterpretationAttack",
    "Measures",
    "Objective",
    "RelativeBeta",
    "Task",
    "Victim",
    "center_moved",
    "correlation_below",
    "curvature_plane",
    "derivative_error",
    "explanation_curvature",
    "fragility_curves",
    "normalised",
    "softened",
    "topk_below",
    "victim_of",
]
