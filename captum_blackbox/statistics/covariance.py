"""How the inputs of linear units go together with their outputs, in one pass over the data."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError, check_choice
from captum_blackbox.statistics.patch_source import PatchSource
from captum_blackbox.statistics.regime_sums import Moments, RegimeSums
from captum_blackbox.statistics.running import Statistic, check_names

Regime: TypeAlias = Literal["all", "positive", "negative"]
Centre: TypeAlias = Literal["exact", "sampled"]
"""Where the mean input of the positive regime comes from: all samples, or some of them."""

_REGIMES: tuple[Regime, ...] = ("all", "positive", "negative")
_NOTHING = RegimeSums.nothing()


class RegimeCovariance(Statistic):
    """Means and covariances of what linear units see with what they put out, by regime.

    A unit turns a patch x into y = wᵀx + b. In the regime ``"positive"`` are the samples with
    y > 0, in ``"negative"`` those with y ≤ 0. These are the numbers that signal estimators need
    (Kindermans et al., "Learning how to explain neural networks: PatternNet and
    PatternAttribution", ICLR 2018, eq. 4-8).

    Patches are never formed: a sum of patches times coefficients is what the kernel for the
    gradient of a weight returns. ``"all"`` costs one such kernel, ``"positive"`` two, anything
    with ``"negative"``, which is the rest, three. They run in float32, or float64 if the data are,
    after a shift that is fixed by the first batch: one number for each channel and unit, near
    their mean; sums are kept in float64. Transposed layers run in float64, for want of a shift.
    On a GPU convolutions are kept from TF32; a matrix product is, unless PyTorch was told else.

    Memory: (units · taps · 8) bytes for each kernel, and while a batch is taken in half of that
    for each of two; and at most ``max_temporary_bytes``, but for what the kernel itself takes.

    Args:
        patches: The layer.
        regimes: Which of ``"all"``, ``"positive"``, ``"negative"`` to gather.
        centre: ``"exact"``; or ``"sampled"``: the mean input of the positive regime comes from
            every ``sample_every``-th batch only, which saves one kernel for all others. Then
            ``mean_inputs`` and ``covariance`` are estimates in the positive and the negative
            regime. What a₊ is made of, E₊[xy] - E₊[x] E[y], is off by (E₊[x] - m) (E[y] - s) only,
            where m is the estimate and s the mean of y in the first part of the first batch.
        sample_every: Batches; the first is always taken.
        max_temporary_bytes: A batch is taken in parts along axis 0, of one sample at least, so
            that what is made of inputs and outputs stays below this.

    Raises:
        InputError: A setting cannot be used.

    Example:
        >>> from captum_blackbox.patterns.linear_layers import LinearLayer
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> statistic = RegimeCovariance(LinearLayer.of(layer), ["positive"])
        >>> x = torch.tensor([[3.0, 0.0], [1.0, 2.0], [0.0, -2.0]])
        >>> statistic.update(x, x.sum(1, keepdim=True))
        >>> statistic.compute()["positive"].mean_inputs
        tensor([[2., 1.]], dtype=torch.float64)
        >>> statistic.mean_outputs
        tensor([1.3333], dtype=torch.float64)
    """

    def __init__(
        self,
        patches: PatchSource,
        regimes: Sequence[Regime] = _REGIMES,
        *,
        centre: Centre = "exact",
        sample_every: int = 8,
        max_temporary_bytes: int = 128 * 2**20,
    ) -> None:
        if not regimes:
            raise InputError("expected at least one of 'all', 'positive', 'negative' as regimes")
        for regime in regimes:
            check_choice("each of regimes", regime, _REGIMES)
        check_choice("centre", centre, ("exact", "sampled"))
        if sample_every < 1:
            raise InputError(f"sample_every is a number of batches, 1 or more, got {sample_every}")
        self.patches = patches
        self.regimes = tuple(regimes)
        self.centre = centre
        self.sample_every = sample_every
        self.max_temporary_bytes = max_temporary_bytes
        self._gathered = ("all",) if set(self.regimes) == {"all"} else ("all", "positive")
        self._batches = torch.zeros((), dtype=torch.int64)
        self._epsilon = torch.zeros((), dtype=torch.float64)
        self._shift_inputs = self._shift_outputs = torch.zeros(0, dtype=torch.float64)
        self._sums: dict[str, RegimeSums] = {}

    def empty(self) -> "RegimeCovariance":
        """Return a statistic of the same layer and settings that has seen nothing."""
        return RegimeCovariance(
            self.patches,
            self.regimes,
            centre=self.centre,
            sample_every=self.sample_every,
            max_temporary_bytes=self.max_temporary_bytes,
        )

    def update(self, inputs: Tensor, outputs: Tensor) -> None:
        """Take in one batch.

        Args:
            inputs: What the layer got, ``(N, channels, …)`` or, for a dense layer,
                ``(…, channels)``; floating-point, half precision is widened.
            outputs: What it put out, before the activation, in the layer's shape.

        Raises:
            ShapeError: The two do not fit each other or the layer; nothing was taken in.
            InputError: Some value is NaN or infinite; nothing was taken in.
        """
        # Tensors that are made in inference mode could not be added to outside of it.
        with torch.inference_mode(False), torch.no_grad(), full_precision(inputs.device):
            if inputs.dim() == 1:
                inputs, outputs = inputs[None], outputs[None]
            self._check(inputs, outputs)
            if len(inputs) == 0:
                return
            self._move(inputs.device)
            epsilon = max(torch.finfo(each.dtype).eps for each in (inputs, outputs))
            self._epsilon.clamp_(min=epsilon)
            for x, y in self._parts(inputs, outputs):
                for regime, sums in self._gather(x, y):
                    if regime in self._sums:
                        self._sums[regime].add(sums)
                    else:
                        self._sums[regime] = sums.widened()
            self._batches += 1

    def merge(self, other: "RegimeCovariance") -> None:
        """Take in what ``other`` has seen, exactly but for rounding in float64.

        With ``centre="sampled"`` sums are moved to this one's shift with the estimate. ``other``
        must be of the same layer and settings.
        """
        theirs = other.state()
        if theirs["batches"] == 0:
            return
        if not self._sums:
            self.load_state(theirs)
            return
        theirs = {name: tensor.to(self._shift_outputs.device) for name, tensor in theirs.items()}
        inputs = self.patches.spread(theirs["shift_inputs"] - self._shift_inputs)
        outputs = theirs["shift_outputs"] - self._shift_outputs
        for regime, sums in self._sums.items():
            sums.add(_sums_of(theirs, regime).moved(inputs, outputs))
        self._epsilon = torch.maximum(self._epsilon, theirs["epsilon"])
        self._batches += theirs["batches"]

    def state(self) -> dict[str, Tensor]:
        """Return all that was gathered as tensors, which the next update may overwrite."""
        state = {
            "batches": self._batches,
            "epsilon": self._epsilon,
            "shift_inputs": self._shift_inputs,
            "shift_outputs": self._shift_outputs,
        }
        for regime in self._gathered:
            sums = self._sums.get(regime, _NOTHING)
            state |= {f"{regime}.{name}": tensor for name, tensor in vars(sums).items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state` in place of what was gathered; its tensors are copied.

        Raises:
            ArtifactError: It is the state of a statistic with other settings.
        """
        check_names(state, self.state())
        self._batches = state["batches"].clone()
        self._epsilon = state["epsilon"].clone()
        self._shift_inputs = state["shift_inputs"].clone()
        self._shift_outputs = state["shift_outputs"].clone()
        self._sums = {}
        if self._batches > 0:
            self._sums = {each: _sums_of(state, each).widened() for each in self._gathered}

    @property
    def mean_outputs(self) -> Tensor:
        """The mean output over all samples, whatever the regimes, ``(units,)`` in float64.

        Raises:
            InputError: No batch was seen.
        """
        self._check_seen()
        sums = self._sums["all"]
        return sums.outputs / sums.count + self._shift_outputs

    def compute(self, regimes: Sequence[Regime] | None = None) -> dict[str, Moments]:
        """Return the moments of each regime that was asked for, or of some of these.

        Raises:
            InputError: No batch was seen.
        """
        self._check_seen()
        inputs = self.patches.spread(self._shift_inputs)
        moments: dict[str, Moments] = {}
        for regime in self.regimes if regimes is None else regimes:
            if regime == "negative":
                sums = self._sums["all"].without(self._sums["positive"])
            else:
                sums = self._sums[regime]
            moments[regime] = sums.moments(inputs, self._shift_outputs, self._epsilon)
        return moments

    def _check_seen(self) -> None:
        if not self._sums:
            raise InputError("there are no statistics yet: no batch was seen; call update first")

    def _check(self, inputs: Tensor, outputs: Tensor) -> None:
        if len(inputs) != len(outputs) or inputs.device != outputs.device:
            raise ShapeError(
                f"expected inputs and outputs of one batch on one device, got "
                f"{tuple(inputs.shape)} on {inputs.device} and "
                f"{tuple(outputs.shape)} on {outputs.device}"
            )
        if not (inputs.is_floating_point() and outputs.is_floating_point()):
            raise ShapeError(
                f"expected floating-point inputs and outputs, got {inputs.dtype} and "
                f"{outputs.dtype}"
            )
        for what, values in (("inputs", inputs), ("outputs", outputs)):
            # A sum is much cheaper than a look at each; it may also overflow.
            if not values.sum().isfinite() and not values.isfinite().all():
                raise InputError(
                    f"{what} of the layer are not finite: they contain NaN or infinity"
                )

    def _move(self, device: torch.device) -> None:
        """Bring what was gathered to the data."""
        if self._batches.device != device:
            self.load_state({name: tensor.to(device) for name, tensor in self.state().items()})

    def _parts(self, inputs: Tensor, outputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield samples in parts, in the precision of the kernels; inputs from their shift."""
        wide = self.patches.transposed or torch.float64 in (inputs.dtype, outputs.dtype)
        dtype = torch.float64 if wide else torch.float32
        x, y = self.patches.samples(inputs[:1], outputs[:1])
        if y.shape[1] != self.patches.units:
            raise ShapeError(
                f"expected outputs of {self.patches.units} units, got {tuple(outputs.shape)}"
            )
        # Inputs with a border, and from the shift; outputs from the shift, and space as large.
        one = (2 * x.numel() + 3 * y.numel()) * dtype.itemsize
        size = max(1, self.max_temporary_bytes // one)
        for part, out in zip(inputs.split(size), outputs.split(size), strict=True):
            x, y = self.patches.samples(part, out)
            x, y = x.to(dtype), y.to(dtype)
            if not self._sums:
                self._fix_shifts(x, y)
            shift = _along_channels(self._shift_inputs, x)
            is_copy = x.untyped_storage().data_ptr() != part.untyped_storage().data_ptr()
            yield (x.sub_(shift) if is_copy else x - shift), y

    def _fix_shifts(self, x: Tensor, y: Tensor) -> None:
        """Choose numbers near the means that float32 holds, so that a difference is exact."""
        self._shift_outputs = _mean(y)
        shift = _mean(x)
        self._shift_inputs = torch.zeros_like(shift) if self.patches.transposed else shift

    def _gather(self, x: Tensor, y: Tensor) -> Iterator[tuple[str, RegimeSums]]:
        """Yield the sums over samples for each regime, in the precision of the kernels.

        Args:
            x: From the shift.
            y: As it was put out, for its sign counts.
        """
        above = y - _along_channels(self._shift_outputs, y)
        space = torch.empty_like(above)  # large tensors cost more to get than to fill
        outputs, count = _sum(above), torch.full_like(self._shift_outputs, y[:, 0].numel()).long()
        if "all" in self.regimes or "negative" in self.regimes:
            squares = _sum(torch.mul(above, above, out=space))
            products, inputs = self.patches.patch_sums(x, above), self._tap_sums(x)
        else:
            squares = torch.zeros_like(outputs)
            products = inputs = x.new_zeros(self.patches.units, 0)
        yield "all", RegimeSums(count, outputs, squares, products, inputs, count)
        if "positive" not in self._gathered:
            return
        mask = torch.gt(y, 0, out=space)
        count, above = _count(mask), above.mul_(mask)
        products, outputs = self.patches.patch_sums(x, above), _sum(above)
        if self.centre == "exact" or self._batches % self.sample_every == 0:
            inputs, input_count = self.patches.patch_sums(x, mask), count
        else:
            inputs, input_count = torch.zeros_like(products), torch.zeros_like(count)
        squares = _sum(torch.mul(above, above, out=space))
        yield "positive", RegimeSums(count, outputs, squares, products, inputs, input_count)

    def _tap_sums(self, x: Tensor) -> Tensor:
        """Return Σ patch, ``(groups, taps)``."""
        taps = self.patches.spread(self._shift_inputs).shape[1]
        patches = self.patches.patches(x.sum(0, keepdim=True).double())
        return patches.sum(tuple(range(x.dim() - 1))).reshape(-1, taps)


def _sums_of(state: Mapping[str, Tensor], regime: str) -> RegimeSums:
    return RegimeSums(**{name: state[f"{regime}.{name}"] for name in vars(_NOTHING)})


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keep autocast and TF32 away from the kernels."""
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        # The newer switch; mixed with the older one it raises.
        kernels: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
        before = kernels.fp32_precision
        kernels.fp32_precision = "ieee"
        try:
            yield
        finally:
            kernels.fp32_precision = before


def _but_channels(values: Tensor) -> tuple[int, ...]:
    return (0, *range(2, values.dim()))


def _sum(values: Tensor) -> Tensor:
    return values.sum(_but_channels(values))


def _count(mask: Tensor) -> Tensor:
    """Return how many are 1; float32 adds ones exactly, and fast, up to 2²⁴."""
    many = mask[:, 0].numel() >= 2**24
    return mask.sum(_but_channels(mask), dtype=torch.float64 if many else None).long()


def _mean(values: Tensor) -> Tensor:
    return values.mean(_but_channels(values)).float().double()


def _along_channels(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).reshape(-1, *(1,) * (like.dim() - 2))
