"""Whether an explanation meets an axiom, and where it does not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from captum_blackbox.metrics.axioms.explaining import NotApplicableError


@dataclass(frozen=True)
class AxiomResult:
    """What one check found.

    Attributes:
        name: Of the axiom.
        holds: Whether the error is within the tolerance; ``None`` if the axiom says nothing about
            such a map.
        error: How far the explanation is from what the axiom demands, 0 or more; lower is better.
            ``None`` without a number.
        unit: Of the error.
        tolerance: Largest error at which the axiom counts as met.
        reason: What was seen, in words, at the place with the largest error.
        counter_example: What was fed and what came back there; empty if the axiom holds.
        details: More numbers, such as the similarity after each step of a cascade.
        raised: The error that the explainer raised, if it did; then ``holds`` is false.

    Example:
        >>> print(AxiomResult("dummy", True, 0.0, "share of the largest importance", 1e-6, "fine"))
        ✓ dummy: fine (error 0, tolerance 1e-06, share of the largest importance)
    """

    name: str
    holds: bool | None
    error: float | None
    unit: str
    tolerance: float
    reason: str
    counter_example: Mapping[str, Any] = field(default_factory=dict, repr=False)
    details: Mapping[str, float] = field(default_factory=dict)
    raised: str = ""

    @property
    def mark(self) -> str:
        """✓ met, ✗ not met, – not applicable, ! raised an error."""
        if self.raised:
            return "!"
        return {True: "✓", False: "✗", None: "–"}[self.holds]

    def __str__(self) -> str:
        """Say it in one line."""
        measured = ""
        if self.error is not None:
            measured = f" (error {self.error:.3g}, tolerance {self.tolerance:g}, {self.unit})"
        return f"{self.mark} {self.name}: {self.reason}{measured}"

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values: tensors as nested lists, networks as text."""
        return {
            "name": self.name,
            "holds": self.holds,
            "error": self.error,
            "unit": self.unit,
            "tolerance": self.tolerance,
            "reason": self.reason,
            "counter_example": {key: _plain(each) for key, each in self.counter_example.items()},
            "details": dict(self.details),
            "raised": self.raised,
        }


@dataclass(frozen=True)
class Finding:
    """What a check measured, before it is judged.

    Attributes:
        error: Largest error.
        reason: What was seen there.
        example: What was fed and what came back there.
        details: More numbers.
    """

    error: float
    reason: str
    example: Mapping[str, Any]
    details: Mapping[str, float] = field(default_factory=dict)


def judged(name: str, unit: str, tolerance: float, measure: Callable[[], Finding]) -> AxiomResult:
    """Return the result of a measurement, also where the axiom is not applicable."""
    try:
        found = measure()
    except NotApplicableError as reason:
        return AxiomResult(name, None, None, unit, tolerance, str(reason))
    holds = found.error <= tolerance
    example = {} if holds else found.example
    return AxiomResult(
        name, holds, found.error, unit, tolerance, found.reason, example, found.details
    )


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, nn.Module):
        return repr(value)
    return value
