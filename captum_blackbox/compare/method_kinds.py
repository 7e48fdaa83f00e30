"""What a user may give as a method, made into one."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from captum.attr import GradientAttribution, LayerAttribution
from torch import Tensor, nn

from captum_blackbox._compat import select_targets
from captum_blackbox.artifacts import fingerprint
from captum_blackbox.black_box import BlackBox
from captum_blackbox.compare.attributions import Configured, without_settings
from captum_blackbox.compare.context import NotApplicableError
from captum_blackbox.compare.method import Explain, Method
from captum_blackbox.compare.names import check_known, check_texts
from captum_blackbox.compare.other_network import warn_of_another_network
from captum_blackbox.compare.ready_methods import READY
from captum_blackbox.compare.setup import Setup
from captum_blackbox.errors import InputError

_NEEDS_GRADIENTS = "needs gradients, and this model can only be called"


@dataclass(frozen=True)
class Plan:
    """A method that is yet to be made.

    Attributes:
        name: In tables.
        given: What the user gave.
        identity: What tells it from another, as far as can be seen.
    """

    name: str
    given: Any
    identity: str

    def made(self, setup: Setup) -> Method:
        """Make the method, which may take time where it is fitted.

        Raises:
            NotApplicableError: It makes no sense for this model.
        """
        method = as_method(self.name, self.opened(setup), setup)
        if _is_bound(self.given):
            return method
        return replace(method, remade=lambda model: self.made(setup.for_model(model)))

    def opened(self, setup: Setup) -> Any:  # noqa: ANN401
        """Return an attribution, a composite or a function of images and classes.

        Raises:
            NotApplicableError: It makes no sense for this model.
        """
        return _made(self.given, setup)


def planned(methods: Mapping[str, Any] | Sequence[str], *, has_data: bool) -> list[Plan]:
    """Return what has to be made of what a user gave, or refuse it before anything is spent.

    Args:
        methods: Names of :data:`~captum_blackbox.compare.ready_methods.READY`; or name → such a
            name, an attribution of Captum, Zennit or this library, a class or function that makes
            one of a model, or a function from images and classes to maps.
        has_data: Whether there are images to fit to.

    Raises:
        InputError: A name is unknown, stands twice or is no text, a method needs data, something is
            no method, or there is none.

    Example:
        >>> [plan.identity for plan in planned(["random", "rise"], has_data=False)]
        ['random', 'rise']
    """
    if isinstance(methods, str):
        raise InputError(f"methods is a list or a mapping, got {methods!r}; write [{methods!r}]")
    if not isinstance(methods, Mapping):
        unnamed = [each for each in methods if not isinstance(each, str)]
        if unnamed:
            raise InputError(
                f"a method that is no name needs one: write {{'mine': …}} instead of a list with a "
                f"{type(unnamed[0]).__name__}"
            )
        twice = [name for name in methods if list(methods).count(name) > 1]
        if twice:
            raise InputError(f"method {twice[0]!r} stands twice")
        methods = {name: name for name in methods}
    check_texts("method", methods)
    if not methods:
        raise InputError(f"there is no method; the ready ones are {', '.join(READY)}")
    return [_plan(name, given, has_data) for name, given in methods.items()]


def as_method(name: str, opened: Any, setup: Setup) -> Method:  # noqa: ANN401
    """Return an attribution, a composite or a function of images and classes as a method.

    Raises:
        NotApplicableError: It makes no sense for this model.
        InputError: It is something else.

    Warns:
        ExplanationWarning: It explains another network.
    """
    if isinstance(opened, Method):
        return replace(opened, name=name)
    explain, attribution = _explain(opened, setup)
    warn_of_another_network(attribution, setup.network)
    return Method(
        name,
        explain,
        networks=_networks(attribution, setup),
        boxes=_boxes(attribution, setup),
    )


def is_attributor(given: Any) -> bool:  # noqa: ANN401
    """Tell attributors of Zennit."""
    return hasattr(given, "composite") and hasattr(given, "model")


def is_composite(given: Any) -> bool:  # noqa: ANN401
    """Tell Zennit's composites, class or object."""
    return hasattr(given, "context") and hasattr(given, "register")


def _plan(name: str, given: Any, has_data: bool) -> Plan:  # noqa: ANN401
    if isinstance(given, str):
        check_known("method", given, READY)
        if READY[given].is_fitted and not has_data:
            raise InputError(
                f"{given!r} is fitted to images, best to others than those explained; give data=…"
            )
        return Plan(name, given, given)
    if _is_bound(given) or is_composite(given):
        return Plan(name, given, _identity(given))
    if not callable(given):
        raise InputError(
            f"method {name!r} is a {type(given).__name__}; give a name, an attribution, a class or "
            "function that makes one of a model, or a function of images and classes"
        )
    _positional(name, given)
    return Plan(name, given, _identity(given))


def _is_bound(given: Any) -> bool:  # noqa: ANN401
    """Tell objects that explain one model: attributions of Captum, attributors of Zennit."""
    if isinstance(given, type | str):
        return False
    return hasattr(given, "attribute") or is_attributor(given)


def _positional(name: str, given: Callable[..., Any]) -> int:
    """Return how many arguments a callable wants: 1, the model, or 2, images and classes."""
    wanted = [
        each.name
        for each in inspect.signature(given).parameters.values()
        if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}
        and each.default is each.empty
    ]
    most = 1 if isinstance(given, type) else 2
    if not 1 <= len(wanted) <= most:
        raise InputError(
            f"method {name!r} wants {wanted or 'no arguments'}; give a function of the model, such "
            "as lambda model: LayerGradCam(model, model.layer4), or one of images and classes"
        )
    return len(wanted)


def _made(given: Any, setup: Setup) -> Any:  # noqa: ANN401
    """Return an attribution, a composite or a function of images and classes."""
    if isinstance(given, str):
        ready = READY[given]
        if ready.needs_gradients and setup.model is None:
            raise NotApplicableError(_NEEDS_GRADIENTS)
        return ready.make(setup)
    if _is_bound(given):
        return given
    if is_composite(given):
        return given() if isinstance(given, type) else given
    if _positional("", given) == 2:
        return given
    if setup.model is None and isinstance(given, type) and issubclass(given, GradientAttribution):
        raise NotApplicableError(_NEEDS_GRADIENTS)
    return given(setup.box if setup.model is None else setup.model)


def _explain(method: Any, setup: Setup) -> tuple[Explain, Any]:  # noqa: ANN401
    """Return a function from images and classes to maps, and the attribution behind it."""
    inner = without_settings(method)
    is_white = isinstance(inner, GradientAttribution | LayerAttribution)
    if is_white and isinstance(inner.forward_func, BlackBox):
        raise NotApplicableError(_NEEDS_GRADIENTS)
    if hasattr(method, "attribute"):
        return lambda images, targets: method.attribute(images, target=targets), inner
    if is_attributor(method):
        return lambda images, targets: _by_attributor(method, images, targets), method
    if is_composite(method):
        model = setup.model
        if model is None:
            raise NotApplicableError(_NEEDS_GRADIENTS)
        return lambda images, targets: _by_composite(method, model, images, targets), None
    if not callable(method):
        raise InputError(
            f"expected an attribution with a method `attribute`, got {type(method).__name__}"
        )
    explain: Explain = method
    return explain, None


def _by_attributor(attributor: Any, images: Tensor, targets: Tensor) -> object:  # noqa: ANN401
    """Let Zennit send back the explained score, from its place."""
    return attributor(images, lambda scores: _explained_score(scores, targets))[1]


def _by_composite(
    composite: Any,  # noqa: ANN401 - Zennit is imported elsewhere
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
) -> object:
    with torch.enable_grad(), composite.context(model) as modified:
        leaf = images.requires_grad_()
        scores = modified(leaf)
        return torch.autograd.grad(scores, leaf, _explained_score(scores, targets))[0]


def _explained_score(scores: Tensor, targets: Tensor) -> Tensor:
    leaf = scores.detach().requires_grad_()
    with torch.enable_grad():
        (place,) = torch.autograd.grad(select_targets(leaf, targets).sum(), leaf)
    return place * leaf.detach()


def _parts(attribution: Any, setup: Setup) -> list[Any]:  # noqa: ANN401
    """Return the models that a method may run through."""
    names = ("forward_func", "model", "student", "box")
    return [setup.model, *(getattr(attribution, name, None) for name in names)]


def _networks(attribution: Any, setup: Setup) -> tuple[nn.Module, ...]:  # noqa: ANN401
    parts = [each.fn if isinstance(each, BlackBox) else each for each in _parts(attribution, setup)]
    return tuple(dict.fromkeys(each for each in parts if isinstance(each, nn.Module)))


def _boxes(attribution: Any, setup: Setup) -> tuple[BlackBox, ...]:  # noqa: ANN401
    """Return the black boxes whose answers no hook of a module sees."""
    boxes = [setup.box, *_parts(attribution, setup)]
    hidden = (b for b in boxes if isinstance(b, BlackBox) and not isinstance(b.fn, nn.Module))
    return tuple(dict.fromkeys(hidden))


def _identity(given: Any) -> str:  # noqa: ANN401
    """Name what was given: its kind, and the weights of a network that it brings along."""
    if isinstance(given, Configured):
        settings = {key: _shown(each) for key, each in given.settings.items()}
        return f"{_identity(given.attribution)} {settings}"
    kind = given if hasattr(given, "__qualname__") else type(given)
    name = f"{kind.__module__}.{kind.__qualname__}"
    student = getattr(given, "student", None)
    return f"{name} {fingerprint(student)}" if isinstance(student, nn.Module) else name


def _shown(setting: Any) -> Any:  # noqa: ANN401
    """Return a setting as any process shows it."""
    if isinstance(setting, tuple):
        return tuple(map(_shown, setting))
    return setting if isinstance(setting, str | int | float) else type(setting).__name__
