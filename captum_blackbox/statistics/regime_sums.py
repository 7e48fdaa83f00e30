"""Sums over samples, taken from a fixed shift, and the moments that they make."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Means and co-moments of each unit over the samples of one regime, in float64.

    Where there are no samples all but ``count`` is 0. Nothing is corrected for the degree of
    freedom that the mean takes: moments are means, over ``count``.

    Attributes:
        count: How many samples, ``(units,)``.
        mean_inputs: Mean of what the unit saw, ``(units, taps)``.
        mean_outputs: Mean of what it put out, ``(units,)``.
        covariance: Between each input and the output, ``(units, taps)``.
        variance_outputs: ``(units,)``, never negative.
        resolution: Rounding of one output, ``(units,)``: machine epsilon of the data times the
            root mean square. A standard deviation of a few of these is that of a constant.
    """

    count: Tensor
    mean_inputs: Tensor
    mean_outputs: Tensor
    covariance: Tensor
    variance_outputs: Tensor
    resolution: Tensor


@dataclass
class RegimeSums:
    """Sums over the samples of one regime; inputs x and outputs y are taken from their shift.

    Attributes:
        count: Samples, ``(units,)``, int64.
        outputs: Σ y, ``(units,)``.
        squares: Σ y², ``(units,)``.
        products: Σ x y, ``(units, taps)``; no taps where only outputs are gathered.
        inputs: Σ x over ``input_count`` of the samples, ``(units, taps)``, or one row for all the
            units that see the same.
        input_count: ``(units,)``, int64; less than ``count`` where Σ x is sampled.
    """

    count: Tensor
    outputs: Tensor
    squares: Tensor
    products: Tensor
    inputs: Tensor
    input_count: Tensor

    @classmethod
    def nothing(cls) -> "RegimeSums":
        """Return tensors without elements, of the right kinds."""
        return cls(*(torch.zeros(0) for _ in fields(cls))).widened()

    def widened(self) -> "RegimeSums":
        """Return them as counts in int64 and sums in float64, none shared with another."""
        kinds = {name: torch.int64 if "count" in name else torch.float64 for name in vars(self)}
        return RegimeSums(
            **{name: tensor.to(kinds[name], copy=True) for name, tensor in vars(self).items()}
        )

    def add(self, other: "RegimeSums") -> None:
        """Add sums that are taken from the same shift."""
        for field in fields(self):
            mine: Tensor = getattr(self, field.name)
            mine += getattr(other, field.name)

    def moved(self, inputs: Tensor, outputs: Tensor) -> "RegimeSums":
        """Return the same as if inputs and outputs had been larger by these.

        Args:
            inputs: ``(units, taps)``.
            outputs: ``(units,)``.
        """
        count, taps = self.count.double(), self.products.shape[1]
        inputs, rows = inputs[:, :taps], self.inputs.shape[0]
        each = len(count) // rows if rows else 1
        products = self.products + self.outputs[:, None] * inputs
        products += outputs[:, None] * (self.all_inputs() + count[:, None] * inputs)
        return RegimeSums(
            count=self.count,
            outputs=self.outputs + count * outputs,
            squares=self.squares + 2 * outputs * self.outputs + count * outputs**2,
            products=products,
            inputs=self.inputs + self.input_count[::each, None] * inputs[::each],
            input_count=self.input_count,
        )

    def all_inputs(self) -> Tensor:
        """Return Σ x over all samples, ``(units, taps)``; estimated where it is sampled."""
        inputs = self.inputs
        if len(inputs) != len(self.count):
            inputs = inputs.repeat_interleave(len(self.count) // len(inputs), 0)
        if torch.equal(self.count, self.input_count):
            return inputs
        return inputs * (self.count.double() / self.input_count.clamp(min=1))[:, None]

    def without(self, part: "RegimeSums") -> "RegimeSums":
        """Return the sums over the samples that are not in ``part``."""
        count = self.count - part.count
        return RegimeSums(
            count=count,
            outputs=self.outputs - part.outputs,
            squares=self.squares - part.squares,
            products=self.products - part.products,
            inputs=self.all_inputs() - part.all_inputs(),
            input_count=count,
        )

    def moments(self, inputs: Tensor, outputs: Tensor, epsilon: Tensor) -> Moments:
        """Return the moments.

        Args:
            inputs: The shift of the inputs, ``(units, taps)``.
            outputs: The shift of the outputs, ``(units,)``.
            epsilon: Relative rounding of one output.
        """
        known, count = self.count > 0, self.count.double().clamp(min=1)
        mean_inputs = self.all_inputs() / count[:, None]
        mean_outputs = self.outputs / count
        covariance = self.products / count[:, None]
        covariance -= mean_inputs * mean_outputs[:, None]
        variance = (self.squares / count - mean_outputs**2).clamp(min=0)
        mean_inputs += inputs
        mean_outputs += outputs
        # What remains of a difference of sums where nothing remains is rounding.
        for moment in (mean_inputs, mean_outputs, covariance, variance):
            moment[~known] = 0
        root_mean_square = (variance + mean_outputs**2).sqrt()
        return Moments(
            count=self.count.double(),
            mean_inputs=mean_inputs,
            mean_outputs=mean_outputs,
            covariance=covariance,
            variance_outputs=variance,
            resolution=epsilon * root_mean_square,
        )
