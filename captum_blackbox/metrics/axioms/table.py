"""The axioms that an explanation meets, as a table."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from captum_blackbox.errors import InputError
from captum_blackbox.metrics.axioms.result import AxiomResult


@dataclass(frozen=True)
class AxiomTable:
    """What the checks of one method found.

    Attributes:
        method: Its name.
        results: One for each axiom.
    """

    method: str
    results: tuple[AxiomResult, ...]

    def __getitem__(self, axiom: str) -> AxiomResult:
        """Return the result of one axiom.

        Raises:
            InputError: It was not checked.
        """
        for result in self.results:
            if result.name == axiom:
                return result
        checked = ", ".join(result.name for result in self.results)
        raise InputError(f"{axiom!r} was not checked; there are {checked}")

    def __iter__(self) -> Iterator[AxiomResult]:
        """Return the results one by one."""
        return iter(self.results)

    def __len__(self) -> int:
        """Return how many axioms were checked."""
        return len(self.results)

    @property
    def failed(self) -> tuple[AxiomResult, ...]:
        """The axioms that are not met, and those whose check raised an error."""
        return tuple(result for result in self.results if result.holds is False)

    def __str__(self) -> str:
        """Say it with one line for each axiom."""
        return "\n".join([self.method, *(f"  {result}" for result in self.results)])

    def to_markdown(self) -> str:
        """Return a Markdown table with one line for each axiom."""
        lines = [
            "| axiom | holds | error | tolerance | unit | what was seen |",
            "|---|---|---|---|---|---|",
        ]
        for each in self.results:
            error = "" if each.error is None else f"{each.error:.2g}"
            cells = (each.name, each.mark, error, f"{each.tolerance:g}", each.unit, each.reason)
            lines.append(f"| {' | '.join(map(_escaped, cells))} |")
        return "\n".join(lines) + "\n"

    def to_json(self) -> str:
        """Return everything, counter-examples included, as JSON."""
        content = {"method": self.method, "axioms": [each.as_json() for each in self.results]}
        return json.dumps(content, indent=1)


def side_by_side(tables: Iterable[AxiomTable]) -> str:
    """Return a Markdown table with one line for each method and one column for each axiom.

    Example:
        >>> met = AxiomResult("dummy", True, 0.0, "share", 1e-6, "fine")
        >>> print(side_by_side([AxiomTable("Mine", (met,))]), end="")
        | method | dummy |
        |---|:-:|
        | Mine | ✓ |
    """
    rows = list(tables)
    axioms = list(dict.fromkeys(result.name for table in rows for result in table))
    names = ["method", *(name.replace("_", " ") for name in axioms)]
    lines = [f"| {' | '.join(names)} |", f"|---|{':-:|' * len(axioms)}"]
    for table in rows:
        marks = {result.name: result.mark for result in table}
        cells = [_escaped(table.method), *(marks.get(name, "") for name in axioms)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")
