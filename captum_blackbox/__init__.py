"""Explain any image model, also one you can only query, inside a Captum pipeline.

Every public name is imported from here, and only when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "BlackBox": "black_box",
    "DistillationReport": "student",
    "DistilledLayerSumGradCAM": "student",
    "LayerSumGradCAM": "student",
    "PatternAttribution": "patterns",
    "PatternAttributionComposite": "patterns",
    "PatternNet": "patterns",
    "PatternNetComposite": "patterns",
    "Patterns": "patterns",
    "RISE": "student",
    "metrics": "metrics",
    "signal_quality": "patterns",
}

if TYPE_CHECKING:
    from captum_blackbox import metrics as metrics
    from captum_blackbox.black_box import BlackBox as BlackBox
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
    "BlackBox",
    "DistillationReport",
    "DistilledLayerSumGradCAM",
    "LayerSumGradCAM",
    "PatternAttribution",
    "PatternAttributionComposite",
    "PatternNet",
    "PatternNetComposite",
    "Patterns",
    "metrics",
    "signal_quality",
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
