"""What each unit stands for, and how many units of a layer stand for something."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

from captum_blackbox.errors import InputError, check_choice

Convention: TypeAlias = Literal["per_category", "best_only"]

IOU_THRESHOLD = 0.04


class Score(NamedTuple):
    """How well a unit matches the label of a category that it matches best.

    Attributes:
        label: Name of the label; empty where the category has none.
        truth: Pixels that have the label.
        activation: Pixels where the unit is active, on images that carry the category.
        intersection: Pixels of both.
    """

    label: str
    truth: int
    activation: int
    intersection: int

    @property
    def iou(self) -> float:
        """Intersection over union, in [0, 1]; higher is better, 0 without a pixel."""
        return self.intersection / max(1, self.truth + self.activation - self.intersection)


@dataclass(frozen=True)
class Unit:
    """A unit and the concepts it matches best.

    Attributes:
        unit: Its number in the layer, from 0.
        category: The one that it matches best.
        scores: Category → its best label there.

    Example:
        >>> scores = {"object": Score("car", 60, 50, 10), "part": Score("wheel", 30, 50, 20)}
        >>> unit = Unit(7, "part", scores)
        >>> unit.label, unit.iou
        ('wheel', 0.3333333333333333)
    """

    unit: int
    category: str
    scores: Mapping[str, Score]

    @property
    def label(self) -> str:
        """The concept that it matches best."""
        return self.scores[self.category].label

    @property
    def iou(self) -> float:
        """How well it matches that concept, in [0, 1]; higher is better."""
        return self.scores[self.category].iou


@dataclass(frozen=True)
class DetectorCount:
    """Which concepts the units of a layer detect.

    Attributes:
        units: How many units the layer has.
        iou_threshold: What an IoU must exceed.
        concepts: Category → label → its detectors, numbered from 0. Labels with more detectors
            come first, of equals the one with the higher IoU.
    """

    units: int
    iou_threshold: float
    concepts: Mapping[str, Mapping[str, tuple[int, ...]]]

    @property
    def detectors(self) -> dict[str, int]:
        """Category → units that detect one of its concepts."""
        return {
            category: sum(len(units) for units in labels.values())
            for category, labels in self.concepts.items()
        }

    @property
    def unique(self) -> dict[str, int]:
        """Category → concepts that some unit detects: its unique detectors."""
        return {category: len(labels) for category, labels in self.concepts.items()}

    @property
    def total_unique(self) -> int:
        """Unique detectors of all categories together; higher is more interpretable."""
        return sum(self.unique.values())

    @property
    def units_with_any(self) -> int:
        """Units that detect at least one concept."""
        found = (units for labels in self.concepts.values() for units in labels.values())
        return len(set().union(*found))


def count_detectors(
    units: Iterable[Unit],
    iou_threshold: float = IOU_THRESHOLD,
    convention: Convention = "per_category",
) -> DetectorCount:
    """Count the units that detect a concept, and the concepts that are detected.

    Args:
        units: The units of a layer.
        iou_threshold: A unit detects a concept if their IoU is above it.
        convention: ``"per_category"``, the published figures': a unit may detect a concept in each
            category; or ``"best_only"``, the published pages': only the concept that it matches
            best.

    Raises:
        InputError: There is no such convention, or the threshold is no IoU below 1.

    References:
        Bau et al., "Network Dissection", CVPR 2017, sec. 2.3 and 3.2; Zhou et al., "Interpreting
        deep visual representations via Network Dissection", TPAMI 2018.

    Example:
        >>> scores = {"object": Score("car", 60, 50, 10), "part": Score("wheel", 30, 50, 20)}
        >>> count_detectors([Unit(7, "part", scores)]).concepts
        {'object': {'car': (7,)}, 'part': {'wheel': (7,)}}
        >>> count_detectors([Unit(7, "part", scores)], convention="best_only").unique
        {'object': 0, 'part': 1}
    """
    check_choice("convention", convention, get_args(Convention))
    if not 0 <= iou_threshold < 1:
        raise InputError(f"iou_threshold must lie in [0, 1), got {iou_threshold}")
    units = list(units)
    found: dict[str, dict[str, list[Unit]]] = {each: {} for unit in units for each in unit.scores}
    for unit in units:
        for category, score in unit.scores.items():
            counts = convention == "per_category" or category == unit.category
            if counts and score.iou > iou_threshold:
                found[category].setdefault(score.label, []).append(unit)
    concepts = {category: _most_first(category, labels) for category, labels in found.items()}
    return DetectorCount(len(units), iou_threshold, concepts)


def _most_first(category: str, labels: Mapping[str, list[Unit]]) -> dict[str, tuple[int, ...]]:
    def rank(label: str) -> tuple[int, float]:
        return -len(labels[label]), -max(unit.scores[category].iou for unit in labels[label])

    return {label: tuple(unit.unit for unit in labels[label]) for label in sorted(labels, key=rank)}
