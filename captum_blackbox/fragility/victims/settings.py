"""What a user passes on to ``attribute``, checked against its signature."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError

OURS = ("inputs", "target", "additional_forward_args", "grad_kwargs", "return_convergence_delta")
"""Arguments of ``attribute`` that an attack sets itself."""


def settings_of(
    attribute: Callable[..., Any],
    given: Mapping[str, Any],
    name: str,
    *,
    also: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return every setting of a method: what is given, and the defaults of the rest.

    Args:
        attribute: The method of an attribution.
        given: By the user.
        name: Of the attribution.
        also: Further settings that are passed on, with their defaults.

    Raises:
        InputError: A setting is not known; the nearest one is offered.

    Example:
        >>> from captum.attr import Saliency
        >>> settings_of(Saliency.attribute, {}, "Saliency")
        {'abs': True}
    """
    known = dict(also or {})
    for parameter in inspect.signature(attribute).parameters.values():
        is_named = parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
        if is_named and parameter.name not in {"self", *OURS}:
            known[parameter.name] = parameter.default
    for key in given:
        if key in OURS:
            raise InputError(f"attribute_kwargs may not hold {key!r}: the attack sets it itself")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.3) or list(known)
            offer = f"did you mean {near[0]!r}?" if near else "it takes none"
            raise InputError(f"{name}.attribute takes no argument {key!r}; {offer}")
    return {**known, **given}


def baseline_for(images: Tensor, baselines: object) -> Tensor | float:
    """Return the baseline of each image, from any of Captum's forms for one input.

    Args:
        images: ``(N, C, H, W)``.
        baselines: ``None`` for 0, a number, a tensor ``(1, …)`` or with a row for each image, or a
            tuple of one of these.

    Raises:
        ShapeError: It fits no image.
    """
    only = baselines[0] if isinstance(baselines, tuple) and len(baselines) == 1 else baselines
    if only is None:
        return 0.0
    if isinstance(only, int | float):
        return only
    if not isinstance(only, Tensor) or only.shape[1:] != images.shape[1:]:
        got = tuple(only.shape) if isinstance(only, Tensor) else type(only).__name__
        raise ShapeError(
            f"baselines is a number or a tensor of the shape of the images "
            f"(1, {', '.join(map(str, images.shape[1:]))}), got {got}"
        )
    if len(images) % len(only):
        raise ShapeError(
            f"baselines has {len(only)} rows for {len(images)} images; give one row for all"
        )
    baseline = only.to(images)
    return baseline if len(only) == 1 else baseline.repeat_interleave(len(images) // len(only), 0)


def repeated(extra: tuple[Any, ...], times: int, count: int) -> tuple[Any, ...]:
    """Return further arguments of a network for its batch repeated as a whole.

    Args:
        extra: The arguments; tensors with a row for each image are repeated, others stay.
        times: How often.
        count: How many images there are.

    Example:
        >>> import torch
        >>> repeated((torch.tensor([1, 2]), torch.tensor([7, 8, 9]), "x"), 2, count=2)
        (tensor([1, 2, 1, 2]), tensor([7, 8, 9]), 'x')
    """
    return tuple(
        each.repeat(times, *[1] * (each.dim() - 1)) if _has_rows(each, count) else each
        for each in extra
    )


def interleaved(extra: tuple[Any, ...], times: int, count: int) -> tuple[Any, ...]:
    """Return further arguments of a network for its batch of ``count`` images, each repeated.

    Example:
        >>> import torch
        >>> interleaved((torch.tensor([1, 2]), torch.tensor([7, 8, 9])), 2, count=2)
        (tensor([1, 1, 2, 2]), tensor([7, 8, 9]))
    """
    return tuple(
        each.repeat_interleave(times, 0) if _has_rows(each, count) else each for each in extra
    )


def _has_rows(argument: object, count: int) -> bool:
    return isinstance(argument, Tensor) and argument.dim() > 0 and len(argument) == count
