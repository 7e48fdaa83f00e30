"""How easily can an explanation be moved while the prediction stays?"""

from captum_blackbox.fragility.attack import InterpretationAttack
from captum_blackbox.fragility.criteria import center_moved, correlation_below, topk_below
from captum_blackbox.fragility.objectives import Objective, Task, normalised
from captum_blackbox.fragility.result import AttackResult, Measures
from captum_blackbox.fragility.surrogate import GrowingBeta, softened

__all__ = [
    "AttackResult",
    "GrowingBeta",
    "InterpretationAttack",
    "Measures",
    "Objective",
    "Task",
    "center_moved",
    "correlation_below",
    "normalised",
    "softened",
    "topk_below",
]
