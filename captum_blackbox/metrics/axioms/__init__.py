"""Axioms that an explanation can be demanded to meet, as checks with counter-examples."""

from captum_blackbox.metrics.axioms.checking import AXIOMS, check_axioms
from captum_blackbox.metrics.axioms.class_sensitivity import class_sensitivity
from captum_blackbox.metrics.axioms.completeness import completeness
from captum_blackbox.metrics.axioms.dummy import dummy
from captum_blackbox.metrics.axioms.implementation_invariance import implementation_invariance
from captum_blackbox.metrics.axioms.input_shift import input_shift
from captum_blackbox.metrics.axioms.linearity import linearity
from captum_blackbox.metrics.axioms.parameter_randomisation import parameter_randomisation
from captum_blackbox.metrics.axioms.result import AxiomResult
from captum_blackbox.metrics.axioms.sensitivity import sensitivity
from captum_blackbox.metrics.axioms.symmetry import symmetry
from captum_blackbox.metrics.axioms.table import AxiomTable, side_by_side

__all__ = [
    "AXIOMS",
    "AxiomResult",
    "AxiomTable",
    "check_axioms",
    "class_sensitivity",
    "completeness",
    "dummy",
    "implementation_invariance",
    "input_shift",
    "linearity",
    "parameter_randomisation",
    "sensitivity",
    "side_by_side",
    "symmetry",
]
