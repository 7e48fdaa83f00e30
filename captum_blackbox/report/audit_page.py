"""The page of an audit: one HTML file that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from captum_blackbox.report.comparison import Difference
from captum_blackbox.report.contributions import ContributionRow
from captum_blackbox.report.html import filled

TEMPLATE = "audit.html.jinja"


@dataclass(frozen=True)
class MethodVerdict:
    """What to believe of a method.

    Attributes:
        name: For the reader.
        grade: In a few words.
        tone: Of its colour.
        because: The numbers, in sentences.
        believe: What follows from them.
        passed: Tests of faithfulness passed, and how many there are; ``None`` for the control.
        left: Share of its most important pixels that the attack leaves; ``None`` if not attacked.
        radius: Of that attack.
        axioms: How many it meets, and how many there are; ``None`` if unknown.
        rank: Mean rank over images and metrics, 1 is best; ``None`` if unknown.
        passes: Images that networks passed forward and back for one map; ``None`` if unknown.
    """

    name: str
    grade: str
    tone: Literal["good", "care", "bad", "none"]
    because: str
    believe: str
    passed: tuple[int, int] | None = None
    left: float | None = None
    radius: str = ""
    axioms: tuple[int, int] | None = None
    rank: float | None = None
    passes: tuple[float, float] | None = None


@dataclass(frozen=True)
class MetricColumn:
    """A metric: its name for the reader, and its direction."""

    name: str
    higher_is_better: bool


@dataclass(frozen=True)
class MetricCell:
    """A method by a metric.

    Attributes:
        mean: Over the images; ``None`` without a number.
        difference: To random maps, paired by image.
        verdict: ``"better"``, ``"worse"``, or empty where the difference may be chance.
    """

    mean: float | None
    difference: Difference | None = None
    verdict: str = ""


@dataclass(frozen=True)
class FragilityRow:
    """What attacks did to a method.

    Attributes:
        name: For the reader.
        breaks_at: Smallest radius that breaks it; ``None`` if none does.
        radius: That radius, or the largest tried; empty if it was not attacked.
        left: Share of the most important pixels left by the strongest aim.
        chance: By random signs.
        rank_correlation: With the clean map, by the strongest aim.
        center_shift: Of the centre of mass, in pixels.
        broken: Images broken, and how many were attacked.
        reason: Why it was not attacked; empty if it was. The rest is by random signs then, if there
            is a radius.
    """

    name: str
    breaks_at: str | None = None
    radius: str = ""
    left: float | None = None
    chance: float | None = None
    rank_correlation: float | None = None
    center_shift: float | None = None
    broken: tuple[int, int] = (0, 0)
    reason: str = ""


@dataclass(frozen=True)
class AttackedMap:
    """One image before and after an attack on one explanation, as PNG.

    Attributes:
        method: For the reader.
        clean_map: The explanation before.
        attacked_map: The explanation after.
        attacked: The attacked image.
        change: The change, amplified.
        factor: By how much.
        left: Share of the most important pixels left.
        links: ``"explanation"``, ``"after"``, ``"image"`` and ``"change"`` → relative address.
    """

    method: str
    clean_map: bytes
    attacked_map: bytes
    attacked: bytes
    change: bytes
    factor: str
    left: float
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AxiomRow:
    """Which axioms a method meets, in the order of the columns; empty if that is not known."""

    name: str
    met: Sequence[bool]


@dataclass(frozen=True)
class AuditMap:
    """One method on one image.

    Attributes:
        method: For the reader.
        picture: The map as PNG; ``None`` if there is none.
        numbers: What was measured → as text.
        reason: Why there is no map.
        links: Text → relative address of a file with it.
    """

    method: str
    picture: bytes | None
    numbers: Mapping[str, str]
    reason: str = ""
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ConceptTerms:
    """What the score of an image is the sum of.

    Attributes:
        rows: Its terms.
        score: Their sum.
        is_exact: Whether the terms are more than first-order parts.
        units: Unit, its concept, and what it added; those that added most first.
    """

    rows: Sequence[ContributionRow]
    score: float
    is_exact: bool
    units: Sequence[tuple[int, str, float]]

    def bar(self, row: ContributionRow) -> tuple[float, float]:
        """Return where a bar begins and how long it is, in percent of the axis.

        Example:
            >>> rows = [ContributionRow("a", 3.0, 1, True), ContributionRow("b", -1.0, 1, True)]
            >>> terms = ConceptTerms(rows, 2.0, True, ())
            >>> [terms.bar(row) for row in rows], terms.zero
            ([(25.0, 75.0), (0.0, 25.0)], 25.0)
        """
        low, high = self._ends
        begin, length = min(row.value, 0.0) - low, abs(row.value)
        return 100 * begin / (high - low), 100 * length / (high - low)

    @property
    def zero(self) -> float:
        """Where 0 lies, in percent of the axis."""
        low, high = self._ends
        return -100 * low / (high - low)

    @property
    def _ends(self) -> tuple[float, float]:
        values = [0.0, *(row.value for row in self.rows)]
        return (min(values), max(values)) if max(values) > min(values) else (0.0, 1.0)


@dataclass(frozen=True)
class AuditedImage:
    """All that the page shows of one image.

    Attributes:
        name: Of the file or the scene.
        picture: What the model saw, before normalisation, as PNG.
        predicted: The class explained.
        probability: Of it.
        truth: The true class, or ``None`` where unknown.
        maps: By every method.
        concepts: What carried the prediction; ``None`` where that was not asked.
    """

    name: str
    picture: bytes
    predicted: str
    probability: float
    truth: str | None
    maps: Sequence[AuditMap]
    concepts: ConceptTerms | None = None


@dataclass(frozen=True)
class AuditPage:
    """What the page shows.

    Attributes:
        title: Of the page.
        lead: What was done, in plain words.
        images_judged: How many images have numbers.
        verdicts: Of the methods, those to be trusted most first.
        metrics: Columns of the table of faithfulness.
        faithful: Method → its cells.
        ranks: Ranks by metric, as PNG; ``None`` if there is none.
        fragility: A row for each method.
        attacked: Pictures of attacks on one image.
        attacked_name: Of that image.
        axioms: Axiom → what it demands, in the order of the columns.
        axiom_rows: A row for each method.
        images: Those shown.
        layer: Whose units concepts belong to.
        detectors: Units of that layer that detect something, and all of them.
        area: Mean share of an image that is the true cause; ``None`` where unknown.
        failures: Method or model, images, and why there is no number.
        hidden: How many further images were judged and are only in the files.
        notes: Doubts, shown on top.
        skipped: File → why it was left out.
        settings: What was run and with which versions.
        links: Text → relative address of a file beside the page.
    """

    title: str
    lead: str
    images_judged: int
    verdicts: Sequence[MethodVerdict]
    metrics: Sequence[MetricColumn]
    faithful: Mapping[str, Sequence[MetricCell]]
    ranks: bytes | None
    fragility: Sequence[FragilityRow]
    attacked: Sequence[AttackedMap]
    attacked_name: str
    axioms: Mapping[str, str]
    axiom_rows: Sequence[AxiomRow]
    images: Sequence[AuditedImage]
    layer: str = ""
    detectors: tuple[int, int] = (0, 0)
    area: float | None = None
    failures: Sequence[tuple[str, str, str]] = ()
    hidden: int = 0
    notes: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def render_audit(page: AuditPage) -> str:
    """Return the page as self-contained HTML: no request, all text escaped.

    A script of its own sorts the tables; without it they stand in the order of the verdicts.

    Example:
        >>> page = AuditPage("<b>", "A lead.", 1, (), (), {}, None, (), (), "", {}, (), ())
        >>> "<title>&lt;b&gt;</title>" in render_audit(page)
        True
    """
    return filled(TEMPLATE, page, [])
