"""What a linear unit sees: one patch of the layer's input for each number it puts out."""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

PATTERN_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
"""The layers that have patterns."""

Rows: TypeAlias = Float[Tensor, "units taps"]
"""A weight, or a pattern, with one row for each unit: what a unit multiplies its patch by."""


@dataclass(frozen=True)
class LinearLayer:
    """How a layer cuts patches out of its input, and the two kernels that work on them.

    All samples of a layer are taken alike: batch, positions and tokens are samples; axis 1 of the
    input holds channels, axis 1 of the output units. Patches are never formed: the kernel for the
    gradient of a weight *is* the sum over patches times a coefficient, the kernel for the gradient
    of an input puts patches back. Both are right for every stride, padding, dilation and grouping.

    Attributes:
        weight_shape: Of the layer's weight.
        stride: Per spatial axis; empty for ``Linear``.
        padding: Zeros that the kernel itself adds.
        dilation: Per spatial axis.
        output_padding: Of a transposed convolution.
        groups: Into which channels and units are divided.
        transposed: Whether it is a transposed convolution.
        border: What ``F.pad`` has to add so that the kernel needs no padding.
        border_mode: How.
    """

    weight_shape: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    border: tuple[int, ...] = ()
    border_mode: str = "constant"

    @classmethod
    def of(cls, module: nn.Module) -> "LinearLayer":
        """Return the description of a ``Linear``, a convolution or a transposed convolution.

        Example:
            >>> LinearLayer.of(nn.Conv2d(3, 8, 3, stride=2, padding=1)).border
            (1, 1, 1, 1)
        """
        layer: Any = module
        shape = tuple(layer.weight.shape)
        if isinstance(module, nn.Linear):
            return cls(shape)
        padding = _padding(layer)
        if layer.transposed:
            both = tuple(left for left, _ in padding)
            return cls(
                shape,
                layer.stride,
                both,
                layer.dilation,
                layer.output_padding,
                layer.groups,
                transposed=True,
            )
        border = tuple(size for pair in reversed(padding) for size in pair)
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        by_kernel = mode == "constant" and all(left == right for left, right in padding)
        return cls(
            shape,
            layer.stride,
            tuple(left if by_kernel else 0 for left, _ in padding),
            layer.dilation,
            (0,) * len(padding),
            layer.groups,
            border=border,
            border_mode=mode,
        )

    @property
    def is_dense(self) -> bool:
        """Whether it is a ``Linear``."""
        return not self.stride

    @property
    def units(self) -> int:
        """How many numbers it puts out for a patch."""
        return self.weight_shape[1] * self.groups if self.transposed else self.weight_shape[0]

    def rows(self, weight: Tensor) -> Rows:
        """Return a weight as one row of taps for each unit."""
        if self.transposed:
            split = weight.unflatten(0, (self.groups, -1))  # groups, channels, units, *kernel
            weight = split.transpose(1, 2).flatten(0, 1)
        return weight.reshape(self.units, -1)

    def weight_of(self, rows: Rows) -> Tensor:
        """Return rows in the shape of the layer's weight; the inverse of :meth:`rows`."""
        if not self.transposed:
            return rows.reshape(self.weight_shape)
        channels, units, *kernel = self.weight_shape
        split = rows.reshape(self.groups, units, channels // self.groups, *kernel)
        return split.transpose(1, 2).reshape(self.weight_shape)

    def samples(self, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return input ``(n, channels, …)`` with its border, and output ``(n, units, …)``."""
        if self.is_dense:
            return inputs.reshape(-1, inputs.shape[-1]), outputs.reshape(-1, outputs.shape[-1])
        return self.bordered(inputs, always=True), outputs

    def bordered(self, inputs: Tensor, *, always: bool = False) -> Tensor:
        """Return ``inputs`` with the border that the kernel does not add; ``always``: all of it."""
        by_kernel = not always and any(self.padding)
        if by_kernel or self.transposed or not any(self.border):
            return inputs
        if self.border_mode == "constant" and not inputs.requires_grad:
            return _with_zeros(inputs, self.border)
        return F.pad(inputs, self.border, self.border_mode)

    def patch_sums(self, inputs: Tensor, coefficients: Tensor) -> Rows:
        """Return for each unit the sum over samples of its patch times its coefficient.

        Args:
            inputs: From :meth:`samples`.
            coefficients: One for each number that the layer puts out, ``(n, units, …)``.
        """
        if self.is_dense:
            return coefficients.T @ inputs
        nothing = inputs.new_empty(self.weight_shape)
        padding = self.padding if self.transposed else (0,) * len(self.stride)
        sums: Tensor = self._kernel(coefficients, inputs, nothing, padding, [False, True, False])[1]
        return self.rows(sums)

    def put_back(self, coefficients: Tensor, shape: tuple[int, ...], weight: Tensor) -> Tensor:
        """Return the sum over units of coefficient times ``weight``, where each patch was.

        With the layer's own weight it is the gradient with respect to the input.

        Args:
            coefficients: One for each number that the layer puts out, in the layer's own shape.
            shape: Of the input, with the border of :meth:`bordered`.
            weight: In the shape of the layer's weight.
        """
        if self.is_dense:
            return coefficients @ weight
        # Never read, but an expanded tensor would be copied by the kernel.
        nothing = coefficients.new_empty(shape)
        back: Tensor = self._kernel(
            coefficients, nothing, weight, self.padding, [True, False, False]
        )[0]
        return back

    def spread(self, channels: Float[Tensor, " channels"]) -> Rows:
        """Return a number for each channel as rows: what a unit sees where all positions agree."""
        if self.is_dense:
            return channels.expand(self.units, -1)
        by_group = channels.reshape(self.groups, 1, -1, 1)
        taps = math.prod(self.weight_shape[2:])
        spread = by_group.expand(-1, self.units // self.groups, -1, taps)
        return spread.reshape(self.units, -1)

    def patches(self, inputs: Tensor) -> Tensor:
        """Return all patches, ``(n, *positions, channels, *kernel)``, as a view where possible.

        Args:
            inputs: From :meth:`samples`.
        """
        if self.is_dense:
            return inputs
        stride: tuple[int, ...] = self.stride
        if self.transposed:
            inputs, stride = self._stretched(inputs), (1,) * len(self.stride)
        axes = len(stride)
        for axis, kernel in enumerate(self.weight_shape[2:]):
            reach = self.dilation[axis] * (kernel - 1) + 1
            inputs = inputs.unfold(2 + axis, reach, stride[axis])[..., :: self.dilation[axis]]
        if self.transposed:  # its kernel runs backwards
            inputs = inputs.flip(tuple(range(-axes, 0)))
        return inputs.movedim(1, 1 + axes)

    def _stretched(self, inputs: Tensor) -> Tensor:
        """Return the input of the plain convolution that a transposed one equals."""
        sizes = [
            (size - 1) * step + 1 for size, step in zip(inputs.shape[2:], self.stride, strict=True)
        ]
        stretched = inputs.new_zeros(*inputs.shape[:2], *sizes)
        inner: Any = (..., *(slice(None, None, step) for step in self.stride))
        stretched[inner] = inputs
        border: list[int] = []
        for axis in reversed(range(len(self.stride))):
            margin = self.dilation[axis] * (self.weight_shape[2 + axis] - 1) - self.padding[axis]
            border += [margin, margin + self.output_padding[axis]]
        return F.pad(stretched, border)

    def _kernel(
        self,
        coefficients: Tensor,
        inputs: Tensor,
        weight: Tensor,
        padding: tuple[int, ...],
        wanted: list[bool],
    ) -> tuple[Any, ...]:
        gradients: tuple[Any, ...] = torch.ops.aten.convolution_backward(
            coefficients,
            inputs,
            weight,
            None,
            self.stride,
            padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
            wanted,
        )
        return gradients


def _with_zeros(inputs: Tensor, border: tuple[int, ...]) -> Tensor:
    """Return ``F.pad(inputs, border)``, without filling the inside first: half of its time."""
    sizes = list(inputs.shape)
    pairs = list(zip(border[::2], border[1::2], strict=True))[::-1]
    for axis, (left, right) in enumerate(pairs, start=2):
        sizes[axis] += left + right
    bordered = inputs.new_empty(sizes)
    inside = bordered
    for axis, (left, right) in enumerate(pairs, start=2):
        bordered.narrow(axis, 0, left).zero_()
        bordered.narrow(axis, sizes[axis] - right, right).zero_()
        inside = inside.narrow(axis, left, inputs.shape[axis])
    inside.copy_(inputs)
    return bordered


def _padding(layer: Any) -> list[tuple[int, int]]:  # noqa: ANN401 - any convolution
    if layer.padding == "valid":
        return [(0, 0)] * len(layer.stride)
    if layer.padding == "same":
        totals = [
            step * (kernel - 1)
            for step, kernel in zip(layer.dilation, layer.kernel_size, strict=True)
        ]
        return [(total // 2, total - total // 2) for total in totals]
    return [(size, size) for size in layer.padding]
