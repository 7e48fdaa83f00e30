"""Zennit rules that send a signal back through a pattern in place of a weight."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from zennit.core import Hook, RemovableHandle, RemovableHandleList

from captum_blackbox.errors import LayerError
from captum_blackbox.hooks import intercept_calls, on_output
from captum_blackbox.patterns.linear_layers import LinearLayer
from captum_blackbox.patterns.observation import at_sums

Signal: TypeAlias = Callable[[Tensor], Tensor]
"""What arrives at an output → what goes on to the input."""


class SignalRule(Hook, ABC):
    """Let the forward pass be, and send back something else than the gradient.

    The output's value is the module's own. In the backward pass, while the rule is active, what
    arrives is turned by :meth:`signal_of` and goes on to the input; the gradient of the module is
    never computed. Once the rule is removed, or under ``composite.inactive()``, the same graph
    gives the true gradient. So a map made with ``create_graph=True`` is differentiated rightly:
    its own backward pass was modified, the one through the activations it depends on is not.

    Other than Zennit's own hooks it overrides :meth:`register`, so that the signatures of
    ``forward`` and ``backward``, which differ between versions of Zennit, are not used.
    """

    @abstractmethod
    def copy(self) -> "SignalRule":
        """Return a rule of the same settings for another registration."""

    @abstractmethod
    def signal_of(self, _module: nn.Module, _inputs: Tensor, _output: Tensor) -> Signal:
        """Return how to turn what arrives; must not keep inputs or output alive."""

    def taken(self, inputs: Tensor) -> Tensor:
        """Return what the signal is sent back to."""
        return inputs

    def register(self, module: nn.Module) -> RemovableHandleList:
        """Set the rule on a module."""
        return RemovableHandleList([RemovableHandle(self), on_output(module, self._substitute)])

    def remove(self) -> None:
        """Switch the rule off; graphs that were made with it give the gradient from now on."""
        self.active = False
        super().remove()

    def _substitute(
        self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor
    ) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        if len(inputs) != 1:
            raise LayerError(
                f"{module} must be called with one positional tensor to have a rule, got "
                f"{len(inputs)} positional arguments"
            )
        if not inputs[0].requires_grad:
            return None
        taken = self.taken(inputs[0])
        signal = self.signal_of(module, taken, output.detach())
        substituted: Tensor = _Substituted.apply(taken, output, self, signal)
        return substituted


class PatternRule(SignalRule):
    """Send a signal back through patterns, or patterns times weights.

    Args:
        layer: Of the module.
        weight: What stands in place of the weight, in its shape, dtype and device.
        negative: The same for outputs up to 0; by default ``weight`` serves for all.
        affine: Scale and shift of the BatchNorm that decides an output's sign, ``(units,)`` each.
        rescale: Divide what goes on by its largest absolute value, image by image, as innvestigate
            does; maps keep their direction and lose their sum. Inputs without positions are left.
    """

    def __init__(
        self,
        layer: LinearLayer,
        weight: Tensor,
        *,
        negative: Tensor | None = None,
        affine: tuple[Tensor, Tensor] | None = None,
        rescale: bool = False,
    ) -> None:
        super().__init__()
        self.layer, self.weight, self.negative = layer, weight, negative
        self.affine, self.rescale = affine, rescale

    def copy(self) -> "PatternRule":
        """Return a rule with the same tensors."""
        return PatternRule(
            self.layer,
            self.weight,
            negative=self.negative,
            affine=self.affine,
            rescale=self.rescale,
        )

    def taken(self, inputs: Tensor) -> Tensor:
        """Return the inputs with the border that the kernel does not add."""
        return self.layer.bordered(inputs)

    def signal_of(self, _module: nn.Module, inputs: Tensor, output: Tensor) -> Signal:
        """Return the sum of patterns, each times what arrives at its unit."""
        put_back = partial(self._put_back, shape=tuple(inputs.shape), dtype=inputs.dtype)
        if self.negative is None:
            return partial(put_back, weight=self.weight)
        is_on = self._on(output)
        negative = self.negative

        def by_sign(arriving: Tensor) -> Tensor:
            return put_back(arriving * is_on, weight=self.weight) + put_back(
                arriving * ~is_on, weight=negative
            )

        return by_sign

    def _put_back(
        self, arriving: Tensor, *, shape: tuple[int, ...], dtype: torch.dtype, weight: Tensor
    ) -> Tensor:
        going = self.layer.put_back(arriving.to(weight), shape, weight)
        if self.rescale and going.dim() > 2:
            largest = going.abs().flatten(1).amax(1)
            largest = torch.where(largest > 0, largest, torch.ones_like(largest))
            going = going / largest.view(-1, *[1] * (going.dim() - 1))
        return going.to(dtype)

    def _on(self, output: Tensor) -> Tensor:
        if self.affine is None:
            return output > 0
        axis = output.dim() - 1 if self.layer.is_dense else 1
        scale, shift = (_along(each, output, axis) for each in self.affine)
        return output * scale + shift > 0


class ChannelRule(SignalRule):
    """Multiply what arrives by a number for each channel, or pass it as it is.

    For a BatchNorm whose scale is in the patterns of the layer before it, local response
    normalization, and a softmax at the end: all pass. For one that stands alone, PatternNet
    divides by its scale.

    Args:
        factor: ``(channels,)``; ``None`` to pass.
    """

    def __init__(self, factor: Tensor | None = None) -> None:
        super().__init__()
        self.factor = factor

    def copy(self) -> "ChannelRule":
        """Return a rule with the same factor."""
        return ChannelRule(self.factor)

    def signal_of(self, module: nn.Module, _inputs: Tensor, _output: Tensor) -> Signal:
        """Return the multiplication.

        Raises:
            LayerError: A BatchNorm uses the statistics of the batch.
        """
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001
        if is_norm and module.training:
            raise LayerError(
                f"{module} uses the statistics of the batch, and patterns are defined for the "
                "trained ones; call model.eval()"
            )
        factor = self.factor
        return lambda arriving: (
            arriving if factor is None else arriving * _along(factor, arriving, 1)
        )


class SumRule(Hook):
    """Divide what arrives at an addition between the two summands, by their learned shares.

    It is set on the whole network, whose additions are found by their place and number.

    Args:
        shares: Addition → ``(2, channels)``.
    """

    def __init__(self, shares: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.shares = dict(shares)
        self._met: set[str] = set()

    def copy(self) -> "SumRule":
        """Return a rule with the same shares."""
        return SumRule(self.shares)

    def register(self, module: nn.Module) -> RemovableHandleList:
        """Set the rule on a network."""
        names: Collection[str] = self.shares
        handles = intercept_calls(module, lambda: at_sums(names, self._add))
        end = on_output(module, self._check_all_met)
        return RemovableHandleList([RemovableHandle(self), *handles, end])

    def remove(self) -> None:
        """Switch the rule off."""
        self.active = False
        super().remove()

    def _check_all_met(self, module: nn.Module, _inputs: object, _output: object) -> None:
        missing = [name for name in self.shares if name not in self._met]
        self._met.clear()
        if missing:
            raise LayerError(
                f"the addition {missing[0]!r} is not made by {type(module).__name__} any more, "
                "though the patterns have its shares; leave out canonizers that replace additions, "
                "such as ResNetCanonizer, or use residual='gradient'"
            )

    def _add(
        self, name: str, function: Callable[..., Any], first: Tensor, second: Tensor
    ) -> Tensor:
        self._met.add(name)
        one, two = (_along(share, first, 1) for share in self.shares[name])
        if torch.is_grad_enabled() and first.requires_grad:
            # An addition in place goes on to change the tensor that the network holds.
            in_place = function.__name__ in {"add_", "__iadd__"}
            first = (_ScaledInPlace if in_place else _Scaled).apply(first, self, one)
        if torch.is_grad_enabled() and second.requires_grad:
            second = _Scaled.apply(second, self, two)
        total: Tensor = function(first, second)
        return total


class _Substituted(torch.autograd.Function):
    """The output of a module, with a backward pass of its own while a rule is active."""

    @staticmethod
    def forward(ctx: Any, _inputs: Tensor, output: Tensor, rule: Hook, signal: Signal) -> Tensor:  # noqa: ANN401
        ctx.rule, ctx.signal = rule, signal
        # The same memory as a tensor of its own, that a following layer may overwrite.
        return output.detach()

    @staticmethod
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        if ctx.rule.active:
            return ctx.signal(arriving), None, None, None
        return None, arriving, None, None


class _Scaled(torch.autograd.Function):
    """A tensor whose gradient is multiplied while a rule is active."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rule: Hook, factor: Tensor) -> Tensor:  # noqa: ANN401
        ctx.rule, ctx.factor = rule, factor
        return tensor.detach()

    @staticmethod
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return (arriving * ctx.factor if ctx.rule.active else arriving), None, None


class _ScaledInPlace(_Scaled):
    """The same, for a tensor that is about to be changed in place."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rule: Hook, factor: Tensor) -> Tensor:  # noqa: ANN401
        ctx.rule, ctx.factor = rule, factor
        ctx.mark_dirty(tensor)
        return tensor


def _along(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """Return values, one for each entry of an axis, shaped and typed to go with ``like``."""
    shape = [1] * like.dim()
    shape[axis] = -1
    return values.to(like).view(shape)
