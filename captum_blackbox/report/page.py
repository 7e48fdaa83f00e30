"""The page of an explanation: one HTML file that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from captum_blackbox.report.comparison import Difference
from captum_blackbox.report.html import filled

TEMPLATE = "explanation.html.jinja"


@dataclass(frozen=True)
class StudentSummary:
    """How well the student imitates the black box.

    Attributes:
        agreement: Share of images with the same prediction, in [0, 1]; higher is better.
        kl: Mean divergence from the black box's probabilities, in nats; lower is better.
        r2: Variance of the centred logits explained, at most 1, higher is better; ``None`` where
            unknown.
        evaluated_on: What the numbers were measured on.
        min_fidelity: Agreement below which the page warns.
        loss: The loss curve as PNG.
    """

    agreement: float
    kl: float
    r2: float | None
    evaluated_on: str
    min_fidelity: float
    loss: bytes | None = None

    @property
    def is_doubtful(self) -> bool:
        """Whether the student disagrees too often to speak for the black box."""
        return self.agreement < self.min_fidelity


@dataclass(frozen=True)
class MethodSummary:
    """What the games say about a method, over all images.

    Attributes:
        name: For the reader.
        deletion: Mean area under the deletion curve; lower is better.
        insertion: Mean area under the insertion curve; higher is better.
        deletion_difference: To the reference method, or ``None`` for itself.
        insertion_difference: To the reference method, or ``None`` for itself.
        object_share: Mean share of the map on the true object; higher is better.
    """

    name: str
    deletion: float
    insertion: float
    deletion_difference: Difference | None = None
    insertion_difference: Difference | None = None
    object_share: float | None = None


@dataclass(frozen=True)
class MethodResult:
    """One method on one image: its map as PNG and its areas under the two curves."""

    name: str
    overlay: bytes
    deletion: float
    insertion: float
    object_share: float | None = None


@dataclass(frozen=True)
class LayerResult:
    """One layer on one image: its map as PNG and its share of the sum, in [0, 1]."""

    name: str
    heat: bytes
    share: float


@dataclass(frozen=True)
class ExplainedImage:
    """All that the page shows of one image; pictures and curves are PNG.

    Attributes:
        name: Of the file or the scene.
        picture: What the model saw, before normalisation.
        predicted: The black box's class, which is the class explained.
        probability: That the black box gives to it.
        student_predicted: The student's class, or ``None`` if the model explains itself.
        truth: The true class, or ``None`` where unknown.
        methods: In the order of the page.
        deletion: The deletion curves of all methods.
        insertion: The insertion curves.
        layers: In the order in which they run.
    """

    name: str
    picture: bytes
    predicted: str
    probability: float
    student_predicted: str | None
    truth: str | None
    methods: Sequence[MethodResult]
    deletion: bytes
    insertion: bytes
    layers: Sequence[LayerResult]


@dataclass(frozen=True)
class ExplanationPage:
    """What the page shows.

    Attributes:
        title: Of the page.
        lead: What was done, in plain words.
        reference: The method that the others are compared with, if it was played.
        images_judged: How many images the games were played on.
        methods: A row of the table each.
        deletion: Mean deletion curves as PNG.
        insertion: Mean insertion curves as PNG.
        images: The images shown, some of those judged.
        queries: Images that the black box was asked about, for everything on the page.
        object_area: Mean share of the image that is the object, which is what a map without a clue
            reaches as ``object_share``.
        layers: Caption → bars of layer importance as PNG.
        student: ``None`` if the model explains itself.
        notes: Further doubts, shown with the warnings.
        skipped: File → why it was left out.
        settings: What was run and with which versions.
        links: Text → relative address of a file beside the page.
    """

    title: str
    lead: str
    reference: str | None
    images_judged: int
    methods: Sequence[MethodSummary]
    deletion: bytes
    insertion: bytes
    images: Sequence[ExplainedImage]
    queries: int | None = None
    object_area: float | None = None
    layers: Mapping[str, bytes] = field(default_factory=dict)
    student: StudentSummary | None = None
    notes: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def render(page: ExplanationPage) -> str:
    """Return the page as self-contained HTML: no script, no request, all text escaped.

    Example:
        >>> page = ExplanationPage("<b>", "A lead.", "Random", 1, (), b"", b"", ())
        >>> "<title>&lt;b&gt;</title>" in render(page)
        True
    """
    return filled(TEMPLATE, page, [method.name for method in page.methods])
