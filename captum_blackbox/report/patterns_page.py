"""The page of ``patterns attribute``: signals, attributions, and how fast the score falls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from captum_blackbox.report.comparison import Difference
from captum_blackbox.report.html import filled

TEMPLATE = "patterns.html.jinja"


@dataclass(frozen=True)
class DegradationSummary:
    """How fast the score falls when patches go in the order of a method, over all images.

    Attributes:
        name: For the reader.
        aopc: Mean area over the curve; higher is better.
        difference: To the reference method, or ``None`` for itself.
    """

    name: str
    aopc: float
    difference: Difference | None = None


@dataclass(frozen=True)
class PatternsMap:
    """One method on one image, as PNG, and the area over its curve where it takes part."""

    name: str
    png: bytes
    aopc: float | None = None


@dataclass(frozen=True)
class PatternsImage:
    """All that the page shows of one image.

    Attributes:
        name: Of the file or the scene.
        picture: What the network saw, before normalisation, as PNG.
        predicted: The class with the highest score, which is the class explained.
        probability: Of that class.
        logit: Its score.
        attributed: Sum of PatternAttribution's map.
        truth: The true class, or ``None`` where unknown.
        signals: In the colours of the image.
        attributions: Signed.
    """

    name: str
    picture: bytes
    predicted: str
    probability: float
    logit: float
    attributed: float
    truth: str | None
    signals: Sequence[PatternsMap]
    attributions: Sequence[PatternsMap]


@dataclass(frozen=True)
class PatternsPage:
    """What the page shows.

    Attributes:
        title: Of the page.
        lead: What was done, in plain words.
        reference: The method that the others are compared with.
        images_judged: How many images were explained and degraded.
        images_fitted: How many images the patterns were fitted to.
        layers: How many layers have patterns.
        degenerate: Units without a pattern, and of how many.
        unstable: Units whose pattern is not to be trusted.
        patch: Height and width of a patch, in pixels.
        methods: A row of the table each.
        degradation: The curves as PNG.
        images: In the order of the page.
        left_out: Method → why it has no column.
        notes: Doubts, shown on top.
        skipped: File → why it was left out.
        settings: What was run and with which versions.
        links: Text → relative address of a file beside the page.
    """

    title: str
    lead: str
    reference: str | None
    images_judged: int
    images_fitted: int
    layers: int
    degenerate: tuple[int, int]
    unstable: int
    patch: int
    methods: Sequence[DegradationSummary]
    degradation: bytes
    images: Sequence[PatternsImage]
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def render_patterns(page: PatternsPage) -> str:
    """Return the page as self-contained HTML: no script, no request, all text escaped.

    Example:
        >>> page = PatternsPage("<b>", "A lead.", None, 1, 9, 2, (0, 8), 0, 9, (), b"", ())
        >>> "<title>&lt;b&gt;</title>" in render_patterns(page)
        True
    """
    return filled(TEMPLATE, page, [method.name for method in page.methods])
