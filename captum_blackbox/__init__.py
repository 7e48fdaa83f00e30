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
    "RISE": "student",
    "metrics": "metrics",
}

if TYPE_CHECKING:
    from captum_blackbox import metrics as metrics
    from captum_blackbox.black_box import BlackBox as BlackBox
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
    "metrics",
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
