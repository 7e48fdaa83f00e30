"""What a prediction's score is the sum of, concept by concept."""

from typing import NamedTuple

from captum_blackbox.dissection.local_explanation import NO_CONCEPT, ConceptShare, LocalExplanation
from captum_blackbox.errors import InputError
from captum_blackbox.report.figure import figure_png, name_axes, new_axes
from captum_blackbox.report.units import shown_name

_SUPPORTS, _OPPOSES, _REST = "#0072b2", "#d55e00", "#9aa3ac"
_INK = "#33383e"
_NEGLIGIBLE = 1e-4  # of the largest term, which rounding stays below


class ContributionRow(NamedTuple):
    """A term of a score.

    Attributes:
        name: A concept, or what else adds to the score.
        value: What it adds; all rows sum to the score.
        units: How many units it stands for, 0 for none.
        is_concept: Whether it is one single concept.
    """

    name: str
    value: float
    units: int
    is_concept: bool

    @property
    def color(self) -> str:
        """Of its bar: concepts for the class, concepts against it, the rest."""
        if not self.is_concept:
            return _REST
        return _SUPPORTS if self.value > 0 else _OPPOSES


def contribution_rows(
    explanation: LocalExplanation, image: int = 0, *, count: int = 5
) -> list[ContributionRow]:
    """Return what a score is the sum of: concepts by what they add, then all the rest.

    Args:
        explanation: Of one or more images.
        image: Which of them.
        count: Most concepts that support the class, and most that oppose it; the others are one
            row.

    Raises:
        InputError: There is no such image.

    Example:
        >>> import torch
        >>> explanation = LocalExplanation(
        ...     "conv", torch.tensor([0]), torch.tensor([3.5]), torch.tensor([0.5]),
        ...     torch.tensor([4.0, -2.0, 1.0]).view(1, 3, 1, 1),
        ...     ("wheel", "sky", "(no concept)"), torch.tensor([True]),
        ... )
        >>> [(row.name, row.value) for row in contribution_rows(explanation)]
        [('wheel', 4.0), ('sky', -2.0), ('units without a concept', 1.0), ('bias', 0.5)]
    """
    if not 0 <= image < len(explanation.scores):
        raise InputError(f"there is no image {image} among the {len(explanation.scores)} explained")
    ranked = explanation.ranked(image)
    shown = [
        *explanation.supporting(image, count),
        *explanation.opposing(image, count)[::-1],
    ]
    others = [each for each in ranked if each not in shown and each.concept != NO_CONCEPT]
    unnamed = [each for each in ranked if each.concept == NO_CONCEPT]
    rows = [
        ContributionRow(shown_name(each.concept), each.contribution, len(each.units), True)
        for each in shown
    ]
    named = "1 other concept" if len(others) == 1 else f"{len(others)} other concepts"
    for name, shares in ((named, others), ("units without a concept", unnamed)):
        if shares:
            rows.append(_together(name, shares))
    rows.append(ContributionRow("bias", float(explanation.bias[image]), 0, False))
    residual = float(explanation.residual[image])
    # Below it is what rounding leaves.
    if abs(residual) > _NEGLIGIBLE * max(1.0, *(abs(row.value) for row in rows)):
        rows.append(ContributionRow("beyond first order", residual, 0, False))
    return rows


def contributions_png(
    explanation: LocalExplanation, image: int = 0, *, class_name: str = "", count: int = 5
) -> bytes:
    """Draw what a score is the sum of as horizontal bars: right for the class, left against it.

    Args:
        explanation: Of one or more images.
        image: Which of them.
        class_name: Of the explained class.
        count: As for :func:`contribution_rows`.

    Returns:
        A PNG.

    Raises:
        InputError: There is no such image.

    References:
        Zhou, Bau, Oliva, Torralba, "Interpreting Deep Visual Representations via Network
        Dissection", TPAMI 2018, fig. 18.

    Example:
        >>> import torch
        >>> explanation = LocalExplanation(
        ...     "conv", torch.tensor([0]), torch.tensor([3.5]), torch.tensor([0.5]),
        ...     torch.tensor([4.0, -1.0]).view(1, 2, 1, 1), ("wheel", "sky"), torch.tensor([True]),
        ... )
        >>> contributions_png(explanation, class_name="car")[1:4]
        b'PNG'
    """
    rows = contribution_rows(explanation, image, count=count)
    figure, axes = new_axes(5.4, 0.9 + 0.24 * len(rows), long_labels=True)
    values = [row.value for row in rows]
    axes.barh(range(len(rows)), values, color=[row.color for row in rows], height=0.72)
    for place, value in enumerate(values):
        axes.annotate(
            f"{value:+.2f}", (value, place), (4 if value >= 0 else -4, 0),
            textcoords="offset points", ha="left" if value >= 0 else "right", va="center",
            fontsize=8, color=_INK,
        )  # fmt: skip
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [_with_units(row) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.18)
    axes.grid(visible=False, axis="y")
    score = f"{float(explanation.scores[image]):.2f}"
    name_axes(axes, f"contribution to the score of {class_name or 'the class'}, {score}", "")
    return figure_png(figure)


def _together(name: str, shares: list[ConceptShare]) -> ContributionRow:
    total = sum(each.contribution for each in shares)
    return ContributionRow(name, total, sum(len(each.units) for each in shares), False)


def _with_units(row: ContributionRow) -> str:
    return f"{row.name} ({row.units})" if row.units else row.name
