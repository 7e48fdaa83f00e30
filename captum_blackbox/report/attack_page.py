"""The page of ``attack``: which explanations break, at which change of the image, how visibly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from captum_blackbox.report.comparison import Difference
from captum_blackbox.report.html import filled
from captum_blackbox.statistics.bootstrap import Estimate

TEMPLATE = "attack.html.jinja"


@dataclass(frozen=True)
class AttackVerdict:
    """What the attacks say about a method.

    Attributes:
        name: Of the method, for the reader.
        breaks_at: The smallest radius at which it breaks, or ``None`` if it did not.
        radius: The radius that the numbers are of: that one, or the largest.
        sentence: What happened, in plain words.
        broken: Images on which it broke, and all of them.
        aimed: Share of the most important pixels left by the strongest aim; lower is more fragile.
        chance: The same by random signs; ``None`` if they were not tried.
        rank_correlation: With the clean explanation; lower is more fragile.
        center_shift: In pixels; higher is more fragile.
        ssim: With the clean image; 1 is the same.
    """

    name: str
    breaks_at: str | None
    radius: str
    sentence: str
    broken: tuple[int, int]
    aimed: float
    chance: float | None
    rank_correlation: float
    center_shift: float
    ssim: float | None


@dataclass(frozen=True)
class AttackRow:
    """The means of one attack over all images.

    Attributes:
        method: For the reader.
        mode: What was aimed at, for the reader.
        radius: As it was written.
        intersection: Share of the most important pixels left, with its interval.
        difference: To random signs, paired by image; ``None`` for these.
        rank_correlation: Spearman's, with the clean explanation.
        center_shift: In pixels.
        region_mass: Share of the importance in the region before and after, ``None`` without one.
        confidence: In the prediction, before and after.
        ssim: With the clean image.
        moved: Images whose explanation moved with the prediction kept, and all of them.
    """

    method: str
    mode: str
    radius: str
    intersection: Estimate
    difference: Difference | None
    rank_correlation: float
    center_shift: float
    region_mass: tuple[float, float] | None
    confidence: tuple[float, float]
    ssim: float | None
    moved: tuple[int, int]


@dataclass(frozen=True)
class AttackView:
    """One attack on one image, in pictures and numbers.

    Attributes:
        method: For the reader.
        mode: What was aimed at, for the reader.
        radius: As it was written.
        intersection: Share of the most important pixels left.
        rank_correlation: With the clean explanation.
        center_shift: In pixels.
        ssim: With the clean image.
        confidence: In the prediction, after the attack.
        factor: By which the picture of the change is amplified.
        attacked: The attacked image as PNG.
        change: The amplified change.
        clean_map: The explanation before.
        attacked_map: The explanation after.
        region_mass: Share of the importance in the region before and after, ``None`` without one.
        reason: Why it was not moved; empty if it was.
    """

    method: str
    mode: str
    radius: str
    intersection: float
    rank_correlation: float
    center_shift: float
    ssim: float | None
    confidence: float
    factor: str
    attacked: bytes
    change: bytes
    clean_map: bytes
    attacked_map: bytes
    region_mass: tuple[float, float] | None = None
    reason: str = ""


@dataclass(frozen=True)
class AttackedImage:
    """All that the page shows of one image.

    Attributes:
        name: Of the file or the scene.
        picture: What the network saw, before normalisation, as PNG.
        predicted: The clean prediction, which is kept and explained.
        probability: Of it; ``None`` where every attack raised.
        truth: The true class, or ``None`` where unknown.
        views: The strongest attack on each method, where it did not raise.
    """

    name: str
    picture: bytes
    predicted: str
    probability: float | None
    truth: str | None
    views: Sequence[AttackView]


@dataclass(frozen=True)
class AttackPage:
    """What the page shows.

    Attributes:
        title: Of the page.
        lead: What was done, in plain words.
        images_judged: How many images were attacked.
        k: How many pixels count as most important.
        pixels: Of an image.
        radius_means: What a radius measures, in plain words.
        steps: Of an attack.
        verdicts: A sentence and a row for each method.
        visibility: The largest radius, and the least mean SSIM of its aimed attacks.
        confidence: In the prediction before, and the least after aimed attacks, as means.
        rows: All attacks.
        curves: Over the radii, as PNG; ``None`` for one radius, or lengths.
        images: In the order of the page.
        hidden: How many further images were attacked and are only in the files.
        region: Where importance was to go, as PNG; ``None`` if nowhere.
        left_out: Method → why it was not attacked.
        notes: Doubts, shown on top.
        skipped: File → why it was left out.
        settings: What was run and with which versions.
        links: Text → relative address of a file beside the page.
    """

    title: str
    lead: str
    images_judged: int
    k: int
    pixels: int
    radius_means: str
    steps: int
    verdicts: Sequence[AttackVerdict]
    visibility: tuple[str, float | None]
    confidence: tuple[float, float]
    rows: Sequence[AttackRow]
    curves: bytes | None
    images: Sequence[AttackedImage]
    hidden: int = 0
    region: bytes | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def render_attack(page: AttackPage) -> str:
    """Return the page as self-contained HTML: no script, no request, all text escaped.

    Example:
        >>> nothing = ((), ("8/255", None), (1.0, 1.0), (), None, ())
        >>> page = AttackPage("<b>", "A lead.", 1, 2, 64, "size", 9, *nothing)
        >>> "<title>&lt;b&gt;</title>" in render_attack(page)
        True
    """
    return filled(TEMPLATE, page, [verdict.name for verdict in page.verdicts])
