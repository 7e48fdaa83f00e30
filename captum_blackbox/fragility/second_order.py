"""A network made ready for second derivatives: enough digits, gradients, no dropout."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from captum_blackbox._compat import format_additional_forward_args
from captum_blackbox.errors import InputError
from captum_blackbox.hooks import evaluating, unwrapped
from captum_blackbox.shapes import Images
from captum_blackbox.statistics.covariance import full_precision

_HALF = (torch.float16, torch.bfloat16)


@contextmanager
def second_order(
    model: nn.Module, images: Images, additional_forward_args: object
) -> Iterator[tuple[Callable[..., Any], Images, tuple[Any, ...]]]:
    """Make ready for second derivatives: evaluation mode, gradients, at least float32 everywhere.

    Yields:
        The forward pass, the images and the additional arguments.

    Raises:
        InputError: ``model`` is no module, or not in the dtype and on the device of the images.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"second derivatives need an nn.Module, got {type(model).__name__}; a model that can "
            "only be called has no gradient"
        )
    network = unwrapped(model)
    weight = next(network.parameters(), images)
    if (weight.dtype, weight.device) != (images.dtype, images.device):
        raise InputError(
            f"the model has {weight.dtype} weights on {weight.device}, and the inputs are "
            f"{images.dtype} on {images.device}; move them there with inputs.to(...)"
        )
    extra = format_additional_forward_args(additional_forward_args) or ()
    with ExitStack() as undo:
        undo.enter_context(torch.inference_mode(mode=False))
        undo.enter_context(torch.enable_grad())
        undo.enter_context(full_precision(images.device))
        undo.enter_context(evaluating(network))
        if images.dtype in _HALF:
            yield _widened(network), images.detach().float(), tuple(map(_wide, extra))
        else:
            yield network, images.detach().clone(), extra


def _widened(network: nn.Module) -> Callable[..., Any]:
    """Return the forward pass with the weights in float32; those of the module stay."""
    tensors = chain(network.named_parameters(), network.named_buffers())
    wide = {name: _wide(each.detach()) for name, each in tensors}
    return lambda *given: functional_call(network, wide, given)


def _wide(value: Any) -> Any:  # noqa: ANN401 - additional arguments are anything
    return value.float() if isinstance(value, Tensor) and value.dtype in _HALF else value
