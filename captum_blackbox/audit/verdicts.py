"""What to believe of a method, in plain words that follow from its numbers and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from captum_blackbox.audit.axioms import SANITY
from captum_blackbox.report.comparison import FEW_IMAGES


class Grade(StrEnum):
    """How far a method's maps can be trusted here, best first."""

    SUPPORTED = "supported as far as tested"
    CARE = "believe with care"
    UNSUPPORTED = "do not rely on it here"
    FAILED = "gave no maps"
    CONTROL = "knows nothing, on purpose"


ORDER = tuple(Grade)


@dataclass(frozen=True)
class Gain:
    """A metric of faithfulness against random maps, paired by image.

    Attributes:
        name: For the reader.
        gain: How much better than random, above 0 is better, whatever the metric's direction.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    name: str
    gain: float
    low: float
    high: float

    @property
    def is_better(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0

    @property
    def is_worse(self) -> bool:
        """Whether the whole interval is below 0."""
        return self.high < 0


@dataclass(frozen=True)
class Attacks:
    """What attacks did to a method's maps.

    Attributes:
        breaks_at: The smallest radius tried at which at least half of the images lose more than
            half of their most important pixels; ``None`` if there is none.
        radius: That radius, or else the largest tried.
        left: Mean share of the most important pixels left at that radius, by the strongest aim.
        chance: The same by random signs; ``None`` if they were not tried.
        broken: Images broken there.
        images: Of how many.
        is_aimed: Whether there was an attack, or random signs only.
        by_signs: Mean share that random signs of the largest radius leave; ``None`` if unknown.
    """

    breaks_at: str | None
    radius: str
    left: float
    chance: float | None
    broken: int
    images: int
    is_aimed: bool = True
    by_signs: float | None = None


@dataclass(frozen=True)
class Evidence:
    """All numbers that a verdict follows from.

    Attributes:
        method: For the reader.
        images: How many images have a map.
        tests: Against random maps.
        attacks: ``None`` if there is no number.
        not_attacked: Why there was no attack that aims.
        axioms: Axiom → whether it is met; empty if unknown.
        located: Mean share of the most important pixels, as many as the true cause has, that lie on
            it; ``None`` where the cause is unknown.
        area: Mean share of the image that is the true cause.
        failure: Why there is no map; empty if there is one.
        is_control: Whether these are the random maps.
        agreement: Of a student with the black box, in [0, 1]; ``None`` without a student.
    """

    method: str
    images: int = 0
    tests: Sequence[Gain] = ()
    attacks: Attacks | None = None
    not_attacked: str = ""
    axioms: Mapping[str, bool] = field(default_factory=dict)
    located: float | None = None
    area: float | None = None
    failure: str = ""
    is_control: bool = False
    agreement: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What to believe of a method.

    Attributes:
        grade: In a few words.
        because: The numbers, in sentences.
        believe: What follows from them.
    """

    grade: Grade
    because: str
    believe: str


def verdict(evidence: Evidence) -> Verdict:
    """Return what follows from the numbers.

    ``SUPPORTED`` needs all of: better than random by more than half of the tests and worse by none,
    on ten images at least; an attack that aims and does not break it; both sanity axioms, where
    they are known; a student, if there is one, that agrees on 70 % of the images. So a method that
    nobody could attack is not supported: it may be as fragile as the others. A method that is
    better by no test, or worse by as many as better, is ``UNSUPPORTED``. The rest is ``CARE``.

    Example:
        >>> tests = [Gain("deletion", 0.2, 0.1, 0.3), Gain("insertion", 0.1, 0.05, 0.2)]
        >>> verdict(Evidence("Mine", 12, tests)).grade.value
        'believe with care'
        >>> held = Attacks(None, "8/255", left=0.8, chance=0.9, broken=1, images=12)
        >>> verdict(Evidence("Mine", 12, tests, attacks=held)).grade.value
        'supported as far as tested'
    """
    if evidence.failure:
        return Verdict(
            Grade.FAILED, f"No map was made: {evidence.failure}.", "There is nothing to believe."
        )
    if evidence.is_control:
        return Verdict(
            Grade.CONTROL,
            "Random maps are the floor: a method that does no better has shown nothing.",
            "Nothing; it is here to be compared with.",
        )
    doubts = _doubts(evidence)
    grade = _grade(evidence, doubts)
    because = [_tested(evidence), *_located(evidence), *_attacked(evidence), *_sane(evidence)]
    return Verdict(grade, " ".join(because), _believe(grade, doubts))


def in_order(verdicts: Mapping[str, Verdict], evidence: Mapping[str, Evidence]) -> list[str]:
    """Return the methods, those to be trusted most first.

    By grade, then by the tests passed. Of equals those stand first that withstood an attack, by
    what it leaves. Those that broke and those that nobody could attack follow, by what random signs
    of the largest radius leave, which all of them were put to: so it is no merit that no attack can
    follow a method, nor that it broke at a small radius.
    """

    def key(method: str) -> tuple[int, int, int, float, float]:
        found = evidence[method]
        net = sum(test.is_better - test.is_worse for test in found.tests)
        return (ORDER.index(verdicts[method].grade), -net, *_movable(found.attacks))

    return sorted(verdicts, key=key)


def _movable(attacks: Attacks | None) -> tuple[int, float, float]:
    """Return numbers that are larger, the first that differs, for a map that is easier to move."""
    if attacks is None:
        return (1, 0.0, 0.0)
    if attacks.is_aimed and attacks.breaks_at is None:
        return (0, -attacks.left, 0.0)
    known = (attacks.by_signs, attacks.chance, attacks.left)
    return (1, -next(each for each in known if each is not None), -attacks.left)


def _grade(evidence: Evidence, doubts: Sequence[str]) -> Grade:
    better = sum(test.is_better for test in evidence.tests)
    worse = sum(test.is_worse for test in evidence.tests)
    if better == 0 or worse >= better:
        return Grade.UNSUPPORTED
    return Grade.CARE if doubts else Grade.SUPPORTED


def _doubts(evidence: Evidence) -> list[str]:
    """Return what stands against trusting a method that passed a test."""
    found = []
    better = sum(test.is_better for test in evidence.tests)
    if any(test.is_worse for test in evidence.tests) or 2 * better <= len(evidence.tests):
        found.append(_ONLY_SOME)
    attacks = evidence.attacks
    if attacks is not None and attacks.breaks_at is not None:
        found.append(
            "somebody who changes an image invisibly can move what it marks"
            if attacks.is_aimed
            else "even random changes that nobody sees move what it marks"
        )
    elif attacks is None or not attacks.is_aimed:
        found.append("how easily it can be fooled on purpose was not tested")
    if _insane(evidence):
        found.append("it may show the image more than the model")
    if evidence.agreement is not None and evidence.agreement < _ENOUGH_AGREEMENT:
        found.append("its student answers too often otherwise than the model")
    if evidence.images < FEW_IMAGES:
        found.append(f"{_images(evidence.images)} cannot show much")
    return found


_ENOUGH_AGREEMENT = 0.7
_ONLY_SOME = "only some of the tests say so"


def _believe(grade: Grade, doubts: Sequence[str]) -> str:
    if grade is Grade.UNSUPPORTED:
        return "Nothing here shows that its maps say more about this model than noise does."
    if grade is Grade.SUPPORTED:
        return "The places it marks matter to the model, on images like these."
    matter = "may matter" if _ONLY_SOME in doubts else "matter"
    *before, last = doubts
    but = f"{', '.join(before)}, and {last}" if before else last
    return f"The places it marks {matter} to the model, but {but}."


def _tested(evidence: Evidence) -> str:
    tests, count = evidence.tests, _images(evidence.images)
    better = [test.name for test in tests if test.is_better]
    worse = [test.name for test in tests if test.is_worse]
    if not tests:
        return "No test of faithfulness gave a number."
    if len(better) == len(tests):
        every = f"all {len(tests)} tests" if len(tests) > 1 else "the only test"
        return f"Better than random maps by {every} ({_joined(better)}), on {count}."
    parts = [f"Better than random maps by {len(better)} of {len(tests)} tests"]
    if better:
        parts[0] += f" ({_joined(better)})"
    if worse:
        parts.append(f"worse by {_joined(worse)}")
    unclear = len(tests) - len(better) - len(worse)
    if unclear:
        parts.append(f"no different by {'the other' if unclear == 1 else f'the other {unclear}'}")
    return f"{', '.join(parts)}, on {count}."


def _located(evidence: Evidence) -> list[str]:
    if evidence.located is None or evidence.area is None:
        return []
    return [
        f"{_share(evidence.located)} of its most important pixels lie on the true cause, which "
        f"fills {_share(evidence.area)} of the image."
    ]


def _attacked(evidence: Evidence) -> list[str]:
    found = evidence.attacks
    if found is None:
        return [f"Not attacked: {evidence.not_attacked}."] if evidence.not_attacked else []
    leaves = (
        f"{_share(found.left)} of its most important pixels, and fewer than half on "
        f"{found.broken} of {_images(found.images)}"
    )
    if not found.is_aimed:
        return [
            f"Random signs of {found.radius} leave {leaves}. Not attacked: {evidence.not_attacked}."
        ]
    says = "An invisible change" if found.breaks_at is not None else "No change broke it: one"
    text = f"{says} of at most {found.radius} leaves {leaves}"
    if found.chance is not None:
        text += f"; random signs of that size leave {_share(found.chance)}"
    return [text + "."]


def _sane(evidence: Evidence) -> list[str]:
    if not evidence.axioms:
        return ["Its axioms were not checked."]
    met = sum(evidence.axioms.values())
    text = f"Meets {met} of {len(evidence.axioms)} axioms"
    insane = _insane(evidence)
    return [text + (f", but not {' or '.join(insane)}." if insane else ".")]


def _insane(evidence: Evidence) -> list[str]:
    return [name for name in SANITY if not evidence.axioms.get(name, True)]


def _joined(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _share(value: float) -> str:
    return f"{100 * value:.0f}\N{NO-BREAK SPACE}%"
