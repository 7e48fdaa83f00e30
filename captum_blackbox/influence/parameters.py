"""A network as a function of the parameters that influence is measured through."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn import functional as F

from captum_blackbox.errors import InputError, LayerError, ShapeError, TargetError
from captum_blackbox.hooks import evaluating, find_layers, first_parameter, out_of_place, unwrapped

LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Outputs ``(B, …)`` and targets ``(B, …)`` → a loss per point ``(B,)``."""

Gradients: TypeAlias = Float[Tensor, "batch parameters"]


class ParameterFunction:
    """Outputs, losses and their derivatives as functions of chosen parameters, ``p`` of them.

    It keeps the weights as they are when it is made, in float32 or wider, so half-precision
    networks are differentiated in float32. The module runs in evaluation mode and stays as it is.

    Args:
        model: Inputs ``(B, …)`` → outputs ``(B, …)``; points of a batch do not see each other.
        layers: Modules or their names; all of their parameters count. ``None`` is all of the model.
        loss_fn: A loss per point; cross-entropy of logits and class numbers by default.

    Raises:
        LayerError: A layer is not part of the model, or there is no parameter.
        InputError: ``loss_fn`` has a ``reduction`` that is not ``"none"``.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> function = ParameterFunction(model, ["2"])
        >>> function.names, function.count
        (('2.weight', '2.bias'), 8)
        >>> function.gradients(torch.zeros(5, 2), torch.zeros(5).long()).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[nn.Module | str] | nn.Module | str | None = None,
        loss_fn: LossFunction | None = None,
    ) -> None:
        reduction = getattr(loss_fn, "reduction", "none")
        if reduction != "none":
            raise InputError(
                f"loss_fn gives a loss per point, got one with reduction={reduction!r}; "
                "give reduction='none'"
            )
        self.model = unwrapped(model)
        self._loss_fn = loss_fn
        chosen = _chosen(self.model, layers)
        dtype = torch.promote_types(first_parameter(self.model).dtype, torch.float32)
        with torch.inference_mode(False):
            kept = {
                name: _kept(tensor, dtype)
                for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]
            }
            self.names = tuple(name for name in kept if name in chosen)
            self._shapes = [kept[name].shape for name in self.names]
            self.values = torch.cat([kept.pop(name).flatten() for name in self.names])
        self._others = kept
        self._at_once = True

    @property
    def count(self) -> int:
        """How many parameters there are."""
        return len(self.values)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Put the network in evaluation mode, and allow derivatives, for a block."""
        with (
            evaluating(self.model),
            out_of_place(self.model),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(self.values.device.type, enabled=False),
        ):
            yield

    def outputs(self, values: Tensor, inputs: Tensor) -> Tensor:
        """Return the outputs ``(B, …)`` that the parameters ``values (p,)`` would give."""
        sizes = [math.prod(shape) for shape in self._shapes]
        parts = zip(self.names, values.split(sizes), self._shapes, strict=True)
        weights = {name: part.view(shape) for name, part, shape in parts}
        outputs: Any = functional_call(self.model, self._others | weights, (inputs,))
        if not isinstance(outputs, Tensor):
            raise ShapeError(
                f"expected a network that puts out one tensor, got {type(outputs).__name__}"
            )
        return outputs

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each point, ``(B,)``.

        Raises:
            TargetError: A class number is out of range.
            ShapeError: The loss is not one number per point.
        """
        if self._loss_fn is None:
            return F.cross_entropy(outputs, targets, reduction="none")
        losses = self._loss_fn(outputs, targets)
        if losses.shape != targets.shape[:1]:
            raise ShapeError(
                f"loss_fn gives a loss per point, ({len(targets)},), got shape "
                f"{tuple(losses.shape)}; sum what is left of each point"
            )
        return losses

    def check(self, inputs: Tensor, targets: Tensor) -> None:
        """Run some points once, and refuse targets that do not fit the outputs.

        Raises:
            TargetError: There is not a target per point, or a class number is out of range.
            ShapeError: The loss is not one number per point.
        """
        with torch.no_grad():
            outputs = self.outputs(self.values, inputs)
        if self._loss_fn is None:
            _check_classes(outputs, targets)
        self.losses(outputs, targets)

    def gradients(self, inputs: Tensor, targets: Tensor) -> Gradients:
        """Return the gradient of each point's loss, ``(B, p)``; on the graph of the inputs."""
        each = vmap(grad(self._loss), in_dims=(None, 0, 0))
        return self._tried(
            lambda: each(self.values, inputs, targets),
            lambda: self._gradients_one_by_one(inputs, targets),
        )

    def jacobians(self, inputs: Tensor) -> Tensor:
        """Return the derivatives of each point's outputs, ``(B, outputs, p)``."""
        each = vmap(jacrev(self._output), in_dims=(None, 0))
        return self._tried(
            lambda: each(self.values, inputs), lambda: self._jacobians_one_by_one(inputs)
        )

    def leaf(self) -> Tensor:
        """Return the parameters as a leaf of a new graph."""
        return self.values.clone().requires_grad_()

    def _tried(self, at_once: Callable[[], Any], one_by_one: Callable[[], Tensor]) -> Tensor:
        """Take the points at once if the network lets vmap do it."""
        if self._at_once:
            # Branches on values, or operations unknown to vmap; a real mistake comes again below.
            with suppress(RuntimeError, NotImplementedError):
                result: Tensor = at_once()
                return result
        result = one_by_one()
        self._at_once = False
        return result

    def _output(self, values: Tensor, point: Tensor) -> Tensor:
        return self.outputs(values, point[None]).flatten()

    def _loss(self, values: Tensor, point: Tensor, target: Tensor) -> Tensor:
        return self.losses(self.outputs(values, point[None]), target[None])[0]

    def _gradients_one_by_one(self, inputs: Tensor, targets: Tensor) -> Tensor:
        gradients: list[Tensor] = []
        for point, target in zip(inputs, targets, strict=True):
            values = self.leaf()
            loss = self._loss(values, point, target)
            gradients += torch.autograd.grad(
                loss, values, create_graph=inputs.requires_grad, materialize_grads=True
            )
        return torch.stack(gradients)

    def _jacobians_one_by_one(self, inputs: Tensor) -> Tensor:
        jacobians = []
        for point in inputs:
            values = self.leaf()
            rows = [
                torch.autograd.grad(output, values, retain_graph=True, materialize_grads=True)[0]
                for output in self._output(values, point)
            ]
            jacobians.append(torch.stack(rows))
        return torch.stack(jacobians)


def _chosen(
    model: nn.Module, layers: Sequence[nn.Module | str] | nn.Module | str | None
) -> frozenset[str]:
    """Return the names of the parameters of some layers."""
    modules = [model] if layers is None else find_layers(model, layers).values()
    wanted = {id(parameter) for module in modules for parameter in module.parameters()}
    chosen = [name for name, parameter in model.named_parameters() if id(parameter) in wanted]
    if not chosen:
        raise LayerError(
            f"the layers {layers!r} of {type(model).__name__} have no parameters, so no training "
            "point has an influence through them; name layers with weights"
        )
    return frozenset(chosen)


def _kept(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    copy = tensor.detach().clone()
    return copy.to(dtype) if copy.is_floating_point() else copy


def _check_classes(outputs: Tensor, targets: Tensor) -> None:
    if outputs.dim() != 2 or outputs.shape[1] < 2:
        raise ShapeError(
            "cross-entropy needs logits (N, classes), got outputs of shape "
            f"{tuple(outputs.shape)}; give a loss_fn of your own"
        )
    if targets.shape != outputs.shape[:1] or targets.is_floating_point():
        raise TargetError(
            f"expected {len(outputs)} class numbers, one per point, got {targets.dtype} of shape "
            f"{tuple(targets.shape)}"
        )
    wrong = targets[(targets < 0) | (targets >= outputs.shape[1])]
    if len(wrong) > 0:
        raise TargetError(
            f"target {int(wrong[0])} is out of range for {outputs.shape[1]} classes "
            f"(0 … {outputs.shape[1] - 1})"
        )
