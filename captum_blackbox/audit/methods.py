"""The methods that an audit knows by name, each with what it is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from captum_blackbox.audit.axioms import axioms_of
from captum_blackbox.audit.workplace import Workplace
from captum_blackbox.compare.attributions import BY_GRADIENT, Configured, RandomMaps, occlusion
from captum_blackbox.compare.method import Method
from captum_blackbox.compare.method_kinds import as_method
from captum_blackbox.student import RISE

RANDOM = "random"


@dataclass(frozen=True)
class AuditMethod:
    """What an audit knows of a method.

    Attributes:
        name: For the reader.
        make: Makes it: an attribution, a composite, or a function of images and classes.
        stem: Of the names of its files.
        axioms: Axiom → whether it is met; empty if that is not known.
        is_attacked: Whether an attack by its derivative is tried.
        is_fitted: Whether making it fits something first.
        may_have_student: Whether a student may stand behind it.
        floor: Which value of its maps means no importance.
    """

    name: str
    make: Callable[[Workplace], Any]
    stem: str
    axioms: Mapping[str, bool] = field(default_factory=dict)
    is_attacked: bool = True
    is_fitted: bool = False
    may_have_student: bool = False
    floor: Literal["zero", "minimum"] = "zero"

    def made(self, place: Workplace) -> Method:
        """Make it, ready to explain.

        Raises:
            NotApplicableError: It makes no sense for this model.
        """
        return as_method(self.name, self.make(place), place.setup)


def _ready(
    name: str, shown: str, make: Callable[[Workplace], Any], **more: Any
) -> tuple[str, AuditMethod]:
    return name, AuditMethod(shown, make, name, axioms_of(name), **more)


def _gradient(name: str, shown: str) -> tuple[str, AuditMethod]:
    return _ready(name, shown, lambda place: BY_GRADIENT[name](place.explained))


def _occlusion(place: Workplace) -> Configured:
    scores = place.box if place.model is None else place.model
    return occlusion(scores, place.example, images=place.batch_size)


METHODS: Mapping[str, AuditMethod] = dict([
    _gradient("gradient", "Gradient"),
    _gradient("input-x-gradient", "Gradient × input"),
    _gradient("ig", "Integrated gradients"),
    _gradient("deeplift", "DeepLIFT"),
    _gradient("smoothgrad", "SmoothGrad"),
    _gradient("guided-backprop", "Guided Backprop"),
    _gradient("deconvnet", "DeConvNet"),
    _gradient("grad-cam", "Grad-CAM"),
    _gradient("guided-grad-cam", "Guided Grad-CAM"),
    _gradient("layer-sum", "Layer sum"),
    _ready(
        "pattern-attribution", "PatternAttribution", Workplace.pattern_attribution, is_fitted=True
    ),
    _ready(
        "distilled",
        "Distilled layer sum",
        Workplace.distilled,
        is_fitted=True,
        may_have_student=True,
    ),
    _ready("occlusion", "Occlusion", _occlusion, is_attacked=False),
    _ready(
        "rise",
        "RISE",
        lambda place: RISE(place.box, masks=place.budget.masks, seed=place.seed),
        is_attacked=False,
        floor="minimum",
    ),
    _ready(RANDOM, "Random", lambda place: RandomMaps(place.seed), is_attacked=False),
])  # fmt: skip
"""Name → method. ``"random"`` is in every audit: it is what the others have to beat."""


def default_methods(*, is_open: bool, has_data: bool) -> tuple[str, ...]:
    """Return the methods of an audit that names none.

    Args:
        is_open: Whether the model is a network that can be looked into.
        has_data: Whether there are images to fit to.

    Example:
        >>> default_methods(is_open=False, has_data=False)
        ('distilled', 'rise', 'random')
    """
    if not is_open:
        return ("distilled", "rise", RANDOM)
    fitted = ("pattern-attribution",) if has_data else ()
    return ("gradient", "ig", "grad-cam", "layer-sum", *fitted, "rise", RANDOM)
