"""Explain any image model, also one you can only query, inside a Captum pipeline.

Every public name is imported from here, and only when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AttackResult": "fragility",
    "BlackBox": "black_box",
    "BrodenConcepts": "concepts",
    "ColorConcepts": "concepts",
    "Comparison": "compare",
    "Concepts": "concepts",
    "Dissection": "dissection",
    "DistillationReport": "student",
    "DistilledLayerSumGradCAM": "student",
    "FragilityCurves": "fragility",
    "InfluenceAttack": "fragility",
    "InfluenceFunction": "influence",
    "InterpretationAttack": "fragility",
    "LayerSumGradCAM": "student",
    "LocalExplanation": "dissection",
    "MaskConcepts": "concepts",
    "NetworkDissection": "dissection",
    "PanopticConcepts": "concepts",
    "PatternAttribution": "patterns",
    "PatternAttributionComposite": "patterns",
    "PatternNet": "patterns",
    "PatternNetComposite": "patterns",
    "Patterns": "patterns",
    "RISE": "student",
    "SceneConcepts": "concepts",
    "ShuffledConcepts": "concepts",
    "SubsetConcepts": "concepts",
    "TorchvisionConcepts": "concepts",
    "check_axioms": "metrics.axioms",
    "compare": "compare",
    "compare_checkpoints": "dissection",
    "compare_layers": "dissection",
    "compare_networks": "dissection",
    "compare_quantiles": "dissection",
    "compare_rotations": "dissection",
    "detectors_against_others": "dissection",
    "explanation_curvature": "fragility",
    "fragility_curves": "fragility",
    "metrics": "metrics",
    "quantus": "quantus",
    "run_audit": "audit",
    "signal_quality": "patterns",
    "unit_effects": "dissection",
}

if TYPE_CHECKING:
    from captum_blackbox import metrics as metrics
    from captum_blackbox import quantus as quantus
    from captum_blackbox.audit import run_audit as run_audit
    from captum_blackbox.black_box import BlackBox as BlackBox
    from captum_blackbox.compare import Comparison as Comparison
    from captum_blackbox.compare import compare as compare
    from captum_blackbox.concepts import BrodenConcepts as BrodenConcepts
    from captum_blackbox.concepts import ColorConcepts as ColorConcepts
    from captum_blackbox.concepts import Concepts as Concepts
    from captum_blackbox.concepts import MaskConcepts as MaskConcepts
    from captum_blackbox.concepts import PanopticConcepts as PanopticConcepts
    from captum_blackbox.concepts import SceneConcepts as SceneConcepts
    from captum_blackbox.concepts import ShuffledConcepts as ShuffledConcepts
    from captum_blackbox.concepts import SubsetConcepts as SubsetConcepts
    from captum_blackbox.concepts import TorchvisionConcepts as TorchvisionConcepts
    from captum_blackbox.dissection import Dissection as Dissection
    from captum_blackbox.dissection import LocalExplanation as LocalExplanation
    from captum_blackbox.dissection import NetworkDissection as NetworkDissection
    from captum_blackbox.dissection import compare_checkpoints as compare_checkpoints
    from captum_blackbox.dissection import compare_layers as compare_layers
    from captum_blackbox.dissection import compare_networks as compare_networks
    from captum_blackbox.dissection import compare_quantiles as compare_quantiles
    from captum_blackbox.dissection import compare_rotations as compare_rotations
    from captum_blackbox.dissection import detectors_against_others as detectors_against_others
    from captum_blackbox.dissection import unit_effects as unit_effects
    from captum_blackbox.fragility import AttackResult as AttackResult
    from captum_blackbox.fragility import FragilityCurves as FragilityCurves
    from captum_blackbox.fragility import InfluenceAttack as InfluenceAttack
    from captum_blackbox.fragility import InterpretationAttack as InterpretationAttack
    from captum_blackbox.fragility import explanation_curvature as explanation_curvature
    from captum_blackbox.fragility import fragility_curves as fragility_curves
    from captum_blackbox.influence import InfluenceFunction as InfluenceFunction
    from captum_blackbox.metrics.axioms import check_axioms as check_axioms
    from captum_blackbox.patterns import PatternAttribution as PatternAttribution
    from captum_blackbox.patterns import PatternAttributionComposite as PatternAttributionComposite
    from captum_blackbox.patterns import PatternNet as PatternNet
    from captum_blackbox.patterns import PatternNetComposite as PatternNetComposite
    from captum_blackbox.patterns import Patterns as Patterns
    from captum_blackbox.patterns import signal_quality as signal_quality
    from captum_blackbox.student import RISE as RISE
    from captum_blackbox.student import DistillationReport as DistillationReport
    from captum_blackbox.student import DistilledLayerSumGradCAM as DistilledLayerSumGradCAM
    from captum_blackbox.student import LayerSumGradCAM as LayerSumGradCAM

__all__ = [
    "RISE",
    "AttackResult",
    "BlackBox",
    "BrodenConcepts",
    "ColorConcepts",
    "Comparison",
    "Concepts",
    "Dissection",
    "DistillationReport",
    "DistilledLayerSumGradCAM",
    "FragilityCurves",
    "InfluenceAttack",
    "InfluenceFunction",
    "InterpretationAttack",
    "LayerSumGradCAM",
    "LocalExplanation",
    "MaskConcepts",
    "NetworkDissection",
    "PanopticConcepts",
    "PatternAttribution",
    "PatternAttributionComposite",
    "PatternNet",
    "PatternNetComposite",
    "Patterns",
    "SceneConcepts",
    "ShuffledConcepts",
    "SubsetConcepts",
    "TorchvisionConcepts",
    "check_axioms",
    "compare",
    "compare_checkpoints",
    "compare_layers",
    "compare_networks",
    "compare_quantiles",
    "compare_rotations",
    "detectors_against_others",
    "explanation_curvature",
    "fragility_curves",
    "metrics",
    "quantus",
    "run_audit",
    "signal_quality",
    "unit_effects",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOME[name]}")
    value = module if name == _HOME[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
