"""Compare attribution methods by metrics, on images."""

import sys
from types import ModuleType
from typing import Any

from captum_blackbox.compare.attributions import Configured
from captum_blackbox.compare.comparing import compare
from captum_blackbox.compare.context import Context, NotApplicableError
from captum_blackbox.compare.cost import Cost
from captum_blackbox.compare.faithfulness import DegradationArea, Deletion, Infidelity, Insertion
from captum_blackbox.compare.localisation import Localisation
from captum_blackbox.compare.method import Method
from captum_blackbox.compare.metric import FunctionMetric, Metric
from captum_blackbox.compare.metric_names import METRICS
from captum_blackbox.compare.quantus_metric import QuantusMetric
from captum_blackbox.compare.ranks import Estimate
from captum_blackbox.compare.ready_methods import READY
from captum_blackbox.compare.result import Comparison, Failure
from captum_blackbox.compare.stability import SensitivityMax

__all__ = [
    "METRICS",
    "READY",
    "Comparison",
    "Configured",
    "Context",
    "Cost",
    "DegradationArea",
    "Deletion",
    "Estimate",
    "Failure",
    "FunctionMetric",
    "Infidelity",
    "Insertion",
    "Localisation",
    "Method",
    "Metric",
    "NotApplicableError",
    "QuantusMetric",
    "SensitivityMax",
    "compare",
]


class _Callable(ModuleType):
    """The function and this package have one name in ``captum_blackbox``: both can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Comparison:
        return compare(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
