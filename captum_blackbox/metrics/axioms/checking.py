"""All axioms for one explanation."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captum_blackbox.errors import InputError, check_choice
from captum_blackbox.metrics.axioms.cases import case
from captum_blackbox.metrics.axioms.class_sensitivity import class_sensitivity
from captum_blackbox.metrics.axioms.completeness import completeness
from captum_blackbox.metrics.axioms.dummy import dummy
from captum_blackbox.metrics.axioms.explaining import AttributionFactory
from captum_blackbox.metrics.axioms.implementation_invariance import implementation_invariance
from captum_blackbox.metrics.axioms.input_shift import input_shift
from captum_blackbox.metrics.axioms.linearity import linearity
from captum_blackbox.metrics.axioms.parameter_randomisation import parameter_randomisation
from captum_blackbox.metrics.axioms.result import AxiomResult
from captum_blackbox.metrics.axioms.sensitivity import sensitivity
from captum_blackbox.metrics.axioms.symmetry import symmetry
from captum_blackbox.metrics.axioms.table import AxiomTable
from captum_blackbox.shapes import Target

AXIOMS: dict[str, Callable[..., AxiomResult]] = {
    "completeness": completeness,
    "sensitivity": sensitivity,
    "dummy": dummy,
    "implementation_invariance": implementation_invariance,
    "linearity": linearity,
    "symmetry": symmetry,
    "input_shift": input_shift,
    "class_sensitivity": class_sensitivity,
    "parameter_randomisation": parameter_randomisation,
}
"""Name → check."""

_BUILT_ON_PURPOSE = ("dummy", "implementation_invariance", "symmetry")


def check_axioms(
    attribution_factory: AttributionFactory,
    *,
    axioms: Sequence[str] | None = None,
    model: nn.Module | None = None,
    inputs: Tensor | None = None,
    target: Target = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    name: str | None = None,
    seed: int = 0,
) -> AxiomTable:
    """Check which axioms an attribution method meets, on small networks.

    One line in a test-suite: ``assert not check_axioms(MyAttribution).failed``. No method meets all
    axioms, and some cannot be met together; name those that yours is meant to meet.

    Args:
        attribution_factory: Model → explainer: a class of Captum's kind, or any function of a model
            that returns an object with ``attribute(inputs, target=…)`` or such a function. If it
            has a parameter ``data``, that gets a tensor of images to fit to. Map and image have the
            same height and width, or axioms on pixels are not applicable.
        axioms: Names; by default all of them.
        model: Network to check on instead of small random ones. It is copied. Dummy, symmetry and
            implementation invariance need a network built for them, and keep theirs unless
            ``options`` says otherwise.
        inputs: Images for that model.
        target: Class to explain; by default the prediction.
        options: Axiom → what else its check takes, ``tolerance`` for instance.
        name: Of the method; by default that of the factory.
        seed: Of networks, images and explainers that draw.

    Returns:
        One result for each axiom. An error that the explainer raises is a result as well.

    Raises:
        InputError: An axiom is unknown, a check does not take an option or cannot use it, or a
            model came without images.
        TargetError: The target is no class of the model.

    Example:
        >>> from captum.attr import Saliency
        >>> table = check_axioms(Saliency, axioms=["dummy", "completeness"])
        >>> [result.name for result in table.failed]
        ['completeness']
    """
    wanted = list(AXIOMS) if axioms is None else list(axioms)
    chosen = {key: dict(value) for key, value in (options or {}).items()}
    for each in [*wanted, *chosen]:
        check_choice("an axiom", each, list(AXIOMS))
    given = {"model": model, "inputs": inputs, "target": target}
    given = {key: value for key, value in given.items() if value is not None}
    if given:
        case(model, inputs, target, seed)  # what is wrong with them is no result
    results = []
    for each in wanted:
        settings = {"seed": seed, **chosen.get(each, {})}
        if each not in _BUILT_ON_PURPOSE:
            known = inspect.signature(AXIOMS[each]).parameters
            settings = {**{k: v for k, v in given.items() if k in known}, **settings}
        results.append(_checked(each, attribution_factory, settings))
    return AxiomTable(name or _name(attribution_factory), tuple(results))


def _checked(axiom: str, factory: AttributionFactory, settings: Mapping[str, Any]) -> AxiomResult:
    check = AXIOMS[axiom]
    known = inspect.signature(check).parameters
    unknown = [key for key in settings if key not in known]
    if unknown:
        takes = ", ".join(key for key in known if key != "factory")
        raise InputError(f"the check of {axiom} takes {takes}; got {unknown[0]!r}")
    tolerance = _tolerance(axiom, settings.get("tolerance", known["tolerance"].default))
    try:
        return check(factory, **settings)
    except Exception as error:
        _refuse_bad_options(axiom, settings)
        raised = f"{type(error).__name__}: {error}"
        return AxiomResult(axiom, False, None, "", tolerance, f"raised {raised}", raised=raised)


def _tolerance(axiom: str, given: Any) -> float:  # noqa: ANN401 - what users give
    if isinstance(given, int | float) and given >= 0:
        return float(given)
    raise InputError(f"the tolerance of {axiom} must be a number from 0 on, got {given!r}")


def _refuse_bad_options(axiom: str, settings: Mapping[str, Any]) -> None:
    """Raise if the check also fails for an explainer that cannot fail."""
    try:
        AXIOMS[axiom](_zeros, **settings)
    except InputError:
        raise
    except Exception as error:
        given = ", ".join(
            f"{key}={each!r}"
            for key, each in settings.items()
            if key != "seed" and not isinstance(each, Tensor | nn.Module)
        )
        raise InputError(
            f"the check of {axiom} fails for any explainer with these options"
            f"{f' ({given})' if given else ''}: {type(error).__name__}: {error}"
        ) from error


def _zeros(model: nn.Module) -> Callable[..., Tensor]:  # noqa: ARG001 - an explainer's factory
    return lambda inputs, target: torch.zeros_like(inputs)  # noqa: ARG005


def _name(factory: AttributionFactory) -> str:
    inner = factory.func if isinstance(factory, functools.partial) else factory
    name = getattr(inner, "__name__", type(inner).__name__)
    return "explanation" if name == "<lambda>" else name
