"""Everything taken from Captum that is not part of its public interface.

The rest of the library imports these names from here, so that a move inside Captum is repaired in
one place.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from captum._utils.common import (
    _format_additional_forward_args as format_additional_forward_args,
)
from captum._utils.common import _select_targets
from captum.attr._utils.approximation_methods import approximation_parameters
from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError, TargetError, check_choice
from captum_blackbox.shapes import Target

__all__ = [
    "captum_notices_ignored",
    "class_targets",
    "format_additional_forward_args",
    "format_like_inputs",
    "is_zennit_attributor",
    "one_tensor",
    "path_integral",
    "select_targets",
    "zennit_default_output",
    "zennit_noise",
]

_PATH_METHODS = (
    "gausslegendre",
    "riemann_left",
    "riemann_middle",
    "riemann_right",
    "riemann_trapezoid",
)


@contextmanager
def captum_notices_ignored() -> Iterator[None]:
    """Let Captum set hooks and require gradients without a warning on each call; it undoes both.

    Example:
        >>> with captum_notices_ignored():
        ...     warnings.warn("Input Tensor 0 did not already require gradients, …")
    """
    with warnings.catch_warnings():
        for start in (
            "Setting backward hooks",
            "Setting forward, backward hooks",
            r"Input Tensor \d+ did not already require gradients",
        ):
            warnings.filterwarnings("ignore", message=start)
        yield


def select_targets(output: Tensor, target: Target) -> Tensor:
    """Return the entries of ``output`` that ``target`` names, one per sample.

    Args:
        output: Model output ``(N, …)``.
        target: In any of Captum's forms; ``None`` is allowed if there is one number per sample.

    Raises:
        TargetError: The target does not fit the output.

    Example:
        >>> select_targets(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 0])
        tensor([2., 3.])
    """
    if target is None:
        if output[0].numel() != 1:
            raise TargetError(
                f"target is None, but the model gives {tuple(output.shape[1:])} numbers per "
                "sample; name the class to explain"
            )
        return output.flatten()
    if output.dim() == 2 and not _names_several_dimensions(target):
        indices = class_targets(target, len(output), output.shape[1], output.device)
        return output.gather(1, indices[:, None])[:, 0]
    try:
        selected: Tensor = _select_targets(output, target)
    except (AssertionError, IndexError, RuntimeError, TypeError) as error:
        raise TargetError(
            f"target {target!r} does not fit an output of shape {tuple(output.shape)}: {error}"
        ) from error
    if selected.dim() != 1:
        raise TargetError(
            f"target {target!r} leaves {tuple(selected.shape[1:])} numbers per sample of an output "
            f"of shape {tuple(output.shape)}; name one number per sample"
        )
    return selected


def class_targets(
    target: Target, batch: int, num_classes: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Return one class index per sample, ``(N,)`` int64, from any of Captum's forms for 2-D output.

    Raises:
        TargetError: Wrong type, wrong length, or a class outside ``0 … num_classes - 1``.

    Example:
        >>> class_targets(3, batch=2, num_classes=10)
        tensor([3, 3])
    """
    indices = _as_indices(target)
    if indices.numel() == 1:
        indices = indices.reshape(1).expand(batch)
    if indices.shape != (batch,):
        raise TargetError(
            f"expected one target or {batch} of them, one per sample, got shape "
            f"{tuple(indices.shape)}"
        )
    wrong = indices[(indices < 0) | (indices >= num_classes)]
    if len(wrong) > 0:
        raise TargetError(
            f"target {int(wrong[0])} is out of range for {num_classes} classes "
            f"(0 … {num_classes - 1})"
        )
    return indices.to(device)


def one_tensor(inputs: Tensor | tuple[Tensor, ...], name: str) -> tuple[Tensor, bool]:
    """Return the only tensor of ``inputs`` and whether it came in a tuple.

    Raises:
        ShapeError: There is not exactly one tensor.
    """
    is_tuple = isinstance(inputs, tuple)
    tensors = inputs if is_tuple else (inputs,)
    if len(tensors) != 1 or not isinstance(tensors[0], Tensor):
        got = ", ".join(type(each).__name__ for each in tensors)
        raise ShapeError(f"{name} explains one tensor of images, got ({got})")
    return tensors[0], is_tuple


def format_like_inputs(result: Tensor, is_tuple: bool) -> Any:  # noqa: ANN401 - Captum's rule
    """Return a tuple for a tuple, a tensor for a tensor."""
    return (result,) if is_tuple else result


def path_integral(method: str, steps: int) -> tuple[list[float], list[float]]:
    """Return weights and places in ``[0, 1]`` of Captum's approximations of an integral.

    Raises:
        InputError: The method is not known, or there are too few steps.

    Example:
        >>> path_integral("riemann_right", 2)
        ([0.5, 0.5], [0.5, 1.0])
    """
    check_choice("method", method, _PATH_METHODS)
    least = 1 if method == "gausslegendre" else 2
    if type(steps) is not int or steps < least:
        raise InputError(f"n_steps is at least {least} for {method}, got {steps!r}")
    weights, places = approximation_parameters(method)
    return list(weights(steps)), list(places(steps))


def is_zennit_attributor(attribution: object) -> bool:
    """Return whether something is an attributor of Zennit, without importing Zennit for it."""
    module = sys.modules.get("zennit.attribution")
    return module is not None and isinstance(attribution, module.Attributor)


def zennit_default_output(attributor: Any) -> bool:  # noqa: ANN401 - Zennit has no types
    """Return whether an attributor of Zennit was given nothing to send back."""
    from zennit.attribution import identity

    return attributor.attr_output_fn is identity


def zennit_noise(attributor: Any) -> tuple[float, int] | None:  # noqa: ANN401
    """Return noise level and number of passes of Zennit's SmoothGrad, ``None`` for others."""
    from zennit.attribution import SmoothGrad

    if not isinstance(attributor, SmoothGrad):
        return None
    return attributor.noise_level, attributor.n_iter


def _names_several_dimensions(target: Target) -> bool:
    first = target[0] if isinstance(target, list) and target else target
    return isinstance(first, tuple) and len(first) != 1


def _as_indices(target: Target) -> Tensor:
    entries: Any = target
    if isinstance(target, tuple):
        entries = target[0] if len(target) == 1 else target
    elif isinstance(target, list):
        entries = [e[0] if isinstance(e, tuple) and len(e) == 1 else e for e in target]
    flat = entries if isinstance(entries, Sequence) else [entries]
    if not isinstance(entries, Tensor) and not all(type(each) is int for each in flat):
        raise TargetError(
            f"a target is an int, a list of ints or a tensor of ints, got {target!r} "
            f"of type {type(target).__name__}"
        )
    if isinstance(entries, tuple):
        raise TargetError(f"target {target!r} names {len(entries)} dimensions, the output has one")
    indices = torch.as_tensor(entries)
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise TargetError(f"a target holds class numbers, got a tensor of {indices.dtype}")
    return indices.long()
