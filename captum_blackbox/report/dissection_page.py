"""The page of ``dissect``: what units detect, what chance gives, and what made predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from captum_blackbox.report.contributions import ContributionRow
from captum_blackbox.report.html import filled

_DOTS_PER_PIXEL = 1.6
TEMPLATE = "dissection.html.jinja"


@dataclass(frozen=True)
class CountRow:
    """How many units detect how many concepts, in one of the dissections compared.

    Attributes:
        name: Of the dissection.
        units: Of the layer.
        detectors: Units that detect something.
        unique: Different concepts that are detected.
        by_category: Category → the same, of it alone.
        mean_iou: Mean of the units' best IoU.
    """

    name: str
    units: int
    detectors: int
    unique: int
    by_category: Mapping[str, int]
    mean_iou: float


@dataclass(frozen=True)
class CategoryRow:
    """What of a category is detected.

    Attributes:
        name: Of the category.
        color: In the figures, as CSS.
        asked: How many concepts it has.
        concepts: Concept → units that detect it, most first.
    """

    name: str
    color: str
    asked: int
    concepts: Mapping[str, int]


@dataclass(frozen=True)
class UnitRow:
    """The concept that a unit matches best, and the images that it likes best, as PNG.

    Attributes:
        unit: Its number, from 0.
        label: The concept.
        category: Of the concept.
        iou: Intersection over union.
        is_detector: Whether that is enough.
        pictures: Dark where the unit is not active; empty for units outside the gallery.
    """

    unit: int
    label: str
    category: str
    iou: float
    is_detector: bool
    pictures: Sequence[bytes] = ()


@dataclass(frozen=True)
class ClassReason:
    """Why an image has the score that it has for one class.

    Attributes:
        class_name: The class.
        is_predicted: Whether it is the one with the highest score.
        probability: Of the class.
        logit: Its score, which the rows sum to.
        is_exact: Whether contributions are more than first-order parts.
        rows: The terms of the score.
        maps: What contributed → where, as PNG.
    """

    class_name: str
    is_predicted: bool
    probability: float
    logit: float
    is_exact: bool
    rows: Sequence[ContributionRow]
    maps: Mapping[str, bytes]

    @property
    def ends(self) -> tuple[float, float]:
        """Where the axis of the bars begins and ends; 0 lies between."""
        values = [0.0, *(row.value for row in self.rows)]
        low, high = min(values), max(values)
        return (low, high) if high > low else (0.0, 1.0)

    def bar(self, row: ContributionRow) -> tuple[float, float]:
        """Return where a bar begins and how long it is, in percent of the axis."""
        low, high = self.ends
        begin = 100 * (min(row.value, 0.0) - low) / (high - low)
        return begin, 100 * abs(row.value) / (high - low)


@dataclass(frozen=True)
class DissectedImage:
    """An image whose prediction is explained.

    Attributes:
        name: Of the file or the scene.
        picture: As PNG.
        truth: The true class, or ``None`` where unknown.
        reasons: For the predicted class, then for the true one where that is another.
    """

    name: str
    picture: bytes
    truth: str | None
    reasons: Sequence[ClassReason]


@dataclass(frozen=True)
class DissectionPage:
    """What the page shows.

    Attributes:
        title: Of the page.
        lead: What was found, in plain words.
        layer: The dissected layer.
        images_seen: How many images.
        iou_threshold: Above which a unit detects its concept.
        quantile: Share of the activations above a unit's threshold.
        asked: How many concepts were asked.
        count: Of the layer.
        categories: What is detected in each.
        bars: Units by concept, as PNG.
        controls: The layer and what chance gives; empty without controls.
        layers: The layers compared; empty where there is only one.
        pages: Layer → relative address of its page, where there are several.
        figures: Caption → PNG, of what is compared.
        units: All of them, the best first.
        images: Explained; may be empty.
        chance_iou: What the IoU of one unit in twenty exceeds with the labels of other images.
        notes: Doubts, shown on top.
        skipped: File → why it was left out.
        settings: What was run and with which versions.
        links: Text → relative address of a file beside the page.
    """

    title: str
    lead: str
    layer: str
    images_seen: int
    iou_threshold: float
    quantile: float
    asked: int
    count: CountRow
    categories: Sequence[CategoryRow]
    bars: bytes
    controls: Sequence[CountRow]
    layers: Sequence[CountRow]
    pages: Mapping[str, str]
    figures: Mapping[str, bytes]
    units: Sequence[UnitRow]
    images: Sequence[DissectedImage]
    chance_iou: float | None = None
    notes: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def bars_width(self) -> int:
        """Width of the bars on the page, in CSS pixels: letters as large as the text's."""
        width = int.from_bytes(self.bars[16:20])  # where a PNG has it
        return round(width / _DOTS_PER_PIXEL)

    @property
    def gallery(self) -> list[UnitRow]:
        """The units that are shown with images."""
        return [unit for unit in self.units if unit.pictures]


def render_dissection(page: DissectionPage) -> str:
    """Return the page as self-contained HTML: no request, all text escaped.

    A script of its own sorts the table of units; without it the best stand first.

    Example:
        >>> count = CountRow("this", 2, 0, 0, {}, 0.01)
        >>> page = DissectionPage(
        ...     "<b>", "A lead.", "conv", 9, 0.04, 0.005, 3, count, (), b"", (), (), {}, {}, (), ()
        ... )
        >>> "<title>&lt;b&gt;</title>" in render_dissection(page)
        True
    """
    return filled(TEMPLATE, page, [])
