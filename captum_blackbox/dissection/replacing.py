"""Run a network with another activation in the place of a layer's own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from captum_blackbox.dissection.options import Rotation
from captum_blackbox.errors import InputError, LayerError
from captum_blackbox.hooks import evaluating, on_output, out_of_place

Replacement = Callable[[Tensor], Tensor]
"""A layer's output → what takes its place."""


@contextmanager
def replaced(module: nn.Module, replacement: Replacement) -> Iterator[None]:
    """Put something else in the place of a module's output while the block runs.

    Example:
        >>> module = nn.Identity()
        >>> with replaced(module, torch.zeros_like):
        ...     module(torch.ones(1))
        tensor([0.])
    """
    handle = on_output(module, lambda _, __, output: replacement(output))
    try:
        yield
    finally:
        handle.remove()


def run_replaced(
    model: nn.Module,
    module: nn.Module,
    replacement: Replacement,
    inputs: Tensor,
    additional: tuple[object, ...],
) -> Tensor:
    """Return the model's output with another activation in the place of a layer's."""
    with evaluating(model), out_of_place(model), replaced(module, replacement):
        output: Tensor = model(inputs, *additional)
    return output


def checked_units(units: object) -> Tensor:
    """Return unit numbers as a tensor.

    Raises:
        InputError: There are none, or they are no numbers.
    """
    numbers = torch.as_tensor(units).flatten()
    if numbers.numel() == 0 or numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise InputError(f"expected numbers of units, got {units!r}")
    return numbers.long()


def check_units(units: Tensor, count: int, layer: str) -> None:
    """Check that a layer of ``count`` units has all of these.

    Raises:
        InputError: It has not.
    """
    outside = units[(units < 0) | (units >= count)].tolist()
    if outside:
        raise InputError(f"layer {layer!r} has units 0 ... {count - 1}, got {outside[0]}")


def silenced(groups: Sequence[Tensor], rotation: Rotation | None, layer: str) -> Replacement:
    """Return what sets groups of units, along the second axis of a layer's output, to 0.

    Args:
        groups: Numbers of units, int64. One group is silenced in all images; several make as many
            copies of the output of one image, each without one group.
        rotation: What made the units of the layer's own, if something did.
        layer: Its name, for the message.

    Raises:
        InputError: When it runs: the layer has no such unit.
    """

    def silence(output: Tensor) -> Tensor:
        count = output.shape[1]
        kept = output.new_ones(len(groups), count)
        for row, units in zip(kept, groups, strict=True):
            check_units(units, count, layer)
            row[units.to(output.device)] = 0
        kept = kept.view(*kept.shape, *(1,) * (output.dim() - 2))
        if rotation is None:
            return output * kept
        matrix = rotation(count).to(output)
        turned = torch.einsum("uv,nv...->nu...", matrix, output) * kept
        return torch.einsum("vu,nv...->nu...", matrix, turned)

    return silence


def run_from_leaf(
    model: nn.Module,
    module: nn.Module,
    inputs: Tensor,
    additional: tuple[object, ...],
    change: Replacement = torch.clone,
) -> tuple[Tensor, Tensor]:
    """Return the model's output and the activation it follows from: the layer's own, changed.

    Raises:
        LayerError: The layer does not run exactly once, or puts out no tensor.
    """
    leaves: list[Tensor] = []

    def replacement(output: Tensor) -> Tensor:
        if not isinstance(output, Tensor) or leaves:
            raise LayerError("only a layer that runs once and puts out a tensor can be explained")
        leaves.append(change(output.detach()).requires_grad_())
        return leaves[0].clone()

    with torch.enable_grad():
        output = run_replaced(model, module, replacement, inputs, additional)
    if not leaves:
        raise LayerError("the layer did not run in the model's forward pass")
    return output, leaves[0]
