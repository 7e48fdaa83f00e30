"""The contributions of a layer's cells to a score."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captum_blackbox._compat import class_targets, select_targets
from captum_blackbox.dissection.local_explanation import LocalExplanation
from captum_blackbox.dissection.replacing import run_from_leaf, run_replaced
from captum_blackbox.shapes import Target


def explain_scores(
    model: nn.Module,
    layer: tuple[str, nn.Module],
    inputs: Tensor,
    target: Target,
    additional: tuple[object, ...],
    as_units: Callable[[Tensor], Tensor],
    concepts: tuple[str, ...],
) -> LocalExplanation:
    """Return what each unit of a layer contributed to the scores of ``inputs``.

    Args:
        model: The network; it is left as it was.
        layer: Name and module.
        inputs: ``(N, C, H, W)``.
        target: In any of Captum's forms; ``None`` for the prediction.
        additional: Passed to the model after the inputs.
        as_units: What the layer puts out → maps ``(N, units, h, w)``; linear.
        concepts: The concept of each unit.

    Raises:
        TargetError: The target does not fit the output.
        LayerError: The layer does not run once, or puts out no tensor.
    """
    name, module = layer
    with torch.inference_mode(mode=False):
        inputs = inputs.detach().clone()
        output, leaf = run_from_leaf(model, module, inputs, additional)
        is_classes = output.dim() == 2 and output.shape[1] > 1
        if target is None and is_classes:
            target = output.detach().argmax(1)
        scores = select_targets(output, target)
        (slopes,) = torch.autograd.grad(scores.sum(), leaf)
        with torch.no_grad():
            silent = run_replaced(model, module, torch.zeros_like, inputs, additional)
            bias = select_targets(silent, target)
        elsewhere, other_leaf = run_from_leaf(model, module, inputs, additional, _another)
        (other_slopes,) = torch.autograd.grad(select_targets(elsewhere, target).sum(), other_leaf)
    scores = scores.detach()
    cells = as_units(leaf.detach()) * as_units(slopes)
    # Not all adds up where the network jumps at 0, or where maps are not all that the layer gives.
    is_exact = _is_same(slopes, other_slopes) & _adds_up(cells, bias, scores)
    batch = len(inputs)
    targets = class_targets(target, batch, output.shape[1]) if is_classes else torch.zeros(batch)
    return LocalExplanation(
        layer=name,
        targets=targets.long().cpu(),
        scores=scores,
        bias=bias,
        cells=cells,
        concepts=concepts,
        is_exact=is_exact,
    )


def _another(activation: Tensor) -> Tensor:
    """Return an activation unlike the given one: where a network is linear, slopes are the same."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(activation.shape[1:], generator=generator).to(activation)
    largest = activation.abs().flatten(1).amax(1)
    return noise * (1 + largest.view(-1, *(1,) * (activation.dim() - 1)))


def _is_same(slopes: Tensor, others: Tensor) -> Tensor:
    """Return for which images slopes are the same up to rounding, ``(N,)`` bool."""
    difference = (slopes - others).abs().flatten(1).amax(1)
    largest = slopes.abs().flatten(1).amax(1)
    return difference <= _tolerance(slopes) * largest


def _adds_up(cells: Tensor, bias: Tensor, scores: Tensor) -> Tensor:
    """Return for which images cells and bias are the score up to rounding, ``(N,)`` bool."""
    missing = scores - bias - cells.flatten(1).sum(1)
    largest = scores.abs() + bias.abs() + cells.abs().flatten(1).sum(1)
    return missing.abs() <= _tolerance(scores) * largest


def _tolerance(values: Tensor) -> float:
    tolerance: float = torch.finfo(values.dtype).eps ** 0.5
    return tolerance
