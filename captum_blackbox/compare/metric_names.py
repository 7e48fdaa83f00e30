"""The metrics that have a name, and how users name them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from captum_blackbox.compare.faithfulness import DegradationArea, Deletion, Infidelity, Insertion
from captum_blackbox.compare.localisation import Localisation
from captum_blackbox.compare.metric import Metric
from captum_blackbox.compare.names import check_known
from captum_blackbox.compare.quantus_metric import PREFIX, QuantusMetric
from captum_blackbox.compare.stability import SensitivityMax
from captum_blackbox.errors import InputError

METRICS: Mapping[str, Callable[[], Metric]] = {
    "deletion": Deletion,
    "insertion": Insertion,
    "degradation": DegradationArea,
    "infidelity": Infidelity,
    "sensitivity_max": SensitivityMax,
    "pointing_game": lambda: Localisation("pointing_game"),
    "relevance_mass": lambda: Localisation("relevance_mass"),
    "relevance_rank": lambda: Localisation("relevance_rank"),
}
"""Name → a metric with its default settings."""


def named_metrics(metrics: Sequence[str | Any], *, has_masks: bool) -> list[Metric]:
    """Return the metrics that a user names or gives.

    Args:
        metrics: Names of :data:`METRICS`, ``"quantus:NAME"``, and metrics themselves.
        has_masks: Whether the truth is known.

    Raises:
        InputError: A name is unknown, stands twice, or needs masks; something is no metric; or
            there is none.
        MissingExtraError: Quantus is not installed.

    Example:
        >>> [metric.name for metric in named_metrics(["deletion"], has_masks=False)]
        ['deletion']
    """
    if isinstance(metrics, str):
        raise InputError(f"metrics is a list, got {metrics!r}; write [{metrics!r}]")
    found = [_metric(each) for each in metrics]
    if not found:
        raise InputError(f"there is no metric; the known ones are {', '.join(METRICS)}")
    names = [metric.name for metric in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two metrics are called {name!r}; give one of them another name")
    needy = [metric.name for metric in found if metric.needs_masks]
    if needy and not has_masks:
        raise InputError(
            f"{', '.join(needy)} need to know where the truth lies; give masks=…, (N, H, W), not 0 "
            "inside, or leave these metrics out"
        )
    return found


def _metric(given: Any) -> Metric:  # noqa: ANN401 - what users give
    if isinstance(given, str):
        if given.startswith(PREFIX):
            return QuantusMetric(given.removeprefix(PREFIX))
        check_known("metric", given, METRICS)
        return METRICS[given]()
    if isinstance(given, Metric) and not isinstance(given, type):
        return given
    name = getattr(given, "__name__", type(given).__name__)
    raise InputError(
        f"{name} is no metric: it has no name, no direction and no needs_masks; wrap a function as "
        "FunctionMetric(name, function, higher_is_better=…)"
    )
