"""What each unit of a network stands for, and which concepts made a prediction."""

from captum_blackbox.dissection.comparing import (
    DissectionComparison,
    compare_checkpoints,
    compare_layers,
    compare_networks,
    compare_quantiles,
    compare_rotations,
)
from captum_blackbox.dissection.local_explanation import (
    NO_CONCEPT,
    ConceptShare,
    LocalExplanation,
)
from captum_blackbox.dissection.network_dissection import NetworkDissection
from captum_blackbox.dissection.paired_silencing import (
    PairedSilencing,
    detectors_against_others,
)
from captum_blackbox.dissection.result import Dissection
from captum_blackbox.dissection.silencing import UnitEffects, unit_effects
from captum_blackbox.dissection.unit_files import read_units, write_units
from captum_blackbox.dissection.units import DetectorCount, Score, Unit, count_detectors

__all__ = [
    "NO_CONCEPT",
    "ConceptShare",
    "DetectorCount",
    "Dissection",
    "DissectionComparison",
    "LocalExplanation",
    "NetworkDissection",
    "PairedSilencing",
    "Score",
    "Unit",
    "UnitEffects",
    "compare_checkpoints",
    "compare_layers",
    "compare_networks",
    "compare_quantiles",
    "compare_rotations",
    "count_detectors",
    "detectors_against_others",
    "read_units",
    "unit_effects",
    "write_units",
]
