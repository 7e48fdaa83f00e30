"""Which methods an audit judges: ready ones by name, others as they are given."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from torch import nn

from captum_blackbox.audit.axioms import axioms_of
from captum_blackbox.audit.methods import METHODS, RANDOM, AuditMethod
from captum_blackbox.audit.workplace import Workplace
from captum_blackbox.compare.attributions import without_settings
from captum_blackbox.compare.method_kinds import Plan, planned
from captum_blackbox.compare.names import check_known, check_texts
from captum_blackbox.errors import InputError
from captum_blackbox.fragility.description import describe
from captum_blackbox.student import RISE
from captum_blackbox.student.distillation.random_state import (
    number_from,
    random_state_kept,
    seed_everything,
)

Methods: TypeAlias = Mapping[str, Any] | Sequence[str | Mapping[str, Any]]
"""Names of ready methods; name → such a name or what ``compare`` takes; or a list of both."""

_LONGEST = 40  # letters of a name in the names of files
_PATTERNS = "pattern-attribution"


def chosen_methods(
    methods: Methods, network: nn.Module | None = None, *, regime_centering: bool = False
) -> dict[str, AuditMethod]:
    """Return name → method: ready ones in the order of :data:`METHODS`, others, random maps.

    Args:
        methods: What a user gave.
        network: The module explained, if there is one, whose layers a method may name.
        regime_centering: Whether patterns are centred: then they meet other axioms.

    Raises:
        InputError: A name is not known (the nearest are offered) or stands twice, or something is
            no method.

    Example:
        >>> list(chosen_methods(["rise", {"mine": lambda images, classes: images}, "ig"]))
        ['ig', 'rise', 'mine', 'random']
    """
    found: dict[str, AuditMethod] = {}
    for name, given in _entries(methods):
        if name in found:
            raise InputError(f"method {name!r} stands twice")
        found[name] = _method(name, given, network)
        if regime_centering and given == _PATTERNS:
            found[name] = _centred(found[name])
    if set(found) <= {RANDOM}:
        others = ", ".join(name for name in METHODS if name != RANDOM)
        raise InputError(f"an audit judges methods against random maps; name one of {others}")
    found[RANDOM] = METHODS[RANDOM]
    _check_shown(found)
    places = {name: place for place, name in enumerate(METHODS) if name != RANDOM}
    own = len(METHODS)
    ordered = sorted(found, key=lambda name: (name == RANDOM, places.get(name, own)))
    return {name: found[name] for name in ordered}


def _entries(methods: Methods) -> Iterator[tuple[str, Any]]:
    if isinstance(methods, str):
        raise InputError(f"methods is a list or a mapping, got {methods!r}; write [{methods!r}]")
    for each in [methods] if isinstance(methods, Mapping) else methods:
        if isinstance(each, str):
            yield each, each
        elif isinstance(each, Mapping):
            check_texts("method", each)
            yield from each.items()
        else:
            raise InputError(
                "a method that is no name needs one: write {'mine': …} instead of a list with a "
                f"{type(each).__name__}"
            )


def _method(name: str, given: Any, network: nn.Module | None) -> AuditMethod:  # noqa: ANN401
    if isinstance(given, str):
        check_known("method", given, METHODS)
        if RANDOM in {name, given} and name != given:
            raise InputError(f"{RANDOM!r} names the random maps, which are in every audit")
        if name == given:
            return METHODS[name]
        return replace(METHODS[given], name=name, stem=_stem(name, given, network))
    if name == RANDOM:
        raise InputError(f"{RANDOM!r} names the random maps, which are in every audit")
    (plan,) = planned({name: given}, has_data=True)
    inner = without_settings(given)
    return AuditMethod(
        name,
        _made_once(plan),
        _stem(name, given, network),
        may_have_student=True,
        floor="minimum" if isinstance(inner, RISE) else "zero",
    )


def _made_once(plan: Plan) -> Callable[[Workplace], Any]:
    """Return what makes a method, from the same random numbers in every run of one seed.

    What is judged is attacked, too, so it is made only once.
    """
    made: list[Any] = []

    def make(place: Workplace) -> Any:  # noqa: ANN401
        if not made:
            device = place.example.device
            with random_state_kept(device):
                seed_everything(device, number_from(place.seed))
                made.append(plan.opened(place.setup))
        return made[0]

    return make


def _centred(method: AuditMethod) -> AuditMethod:
    """Return the method of patterns with the name and the axioms of centred ones."""
    shown = METHODS[_PATTERNS].name
    name = f"{shown}, centred" if method.name == shown else method.name
    return replace(method, name=name, axioms=axioms_of(f"{_PATTERNS}, centred"))


def _stem(name: str, given: Any, network: nn.Module | None) -> str:  # noqa: ANN401
    """Return a harmless name of files that is another one for another method."""
    identity = [name, describe(given, nn.Identity() if network is None else network)]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST]
    return f"{words}-{digest}"


def _check_shown(methods: Mapping[str, AuditMethod]) -> None:
    shown: dict[str, str] = {}
    for name, method in methods.items():
        other = shown.setdefault(method.name, name)
        if other != name:
            raise InputError(
                f"methods {other!r} and {name!r} would both be shown as {method.name!r}; call one "
                "of them otherwise"
            )
