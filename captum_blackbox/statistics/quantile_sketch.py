"""Quantiles of streams that are too long to keep, most exact among the largest values."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from captum_blackbox.errors import ArtifactError, InputError, ShapeError
from captum_blackbox.statistics.running import Statistic, check_names

_NAMES = ("settings", "count", "extremes", "values", "filled", "generator")
_UNITS_AT_A_TIME = 64  # whose values are sorted for a quantile


class QuantileSketch(Statistic):
    """Quantiles of each unit from a sample that is thinned out from below.

    Values wait in a buffer of ``resolution``. When it is full, the smaller half is sorted, every
    second value of it goes on to the next buffer, where it stands for two, and the larger half
    stays; so on with the next. Sketches of this kind are those of Karnin, Lang, Liberty, "Optimal
    quantile approximation in streams", FOCS 2016; keeping the larger half is the step of Cormode
    et al., "Relative error streaming quantiles", PODS 2021, which makes the error small where
    activations are thresholded. A random bit, the same for all units, says which of two goes on.

    Up to ``resolution`` values, quantiles are exact, and those among the largest
    ``resolution / 2`` always. Beyond, the rank of the result at ``1 - t`` misses by about
    ``sqrt(t) / resolution`` of all values (standard deviation; it does not grow with the stream).
    At ``t = 0.005`` and the default resolution that is 1.7 × 10⁻⁵; measured over 10⁶ values: 10⁻⁵,
    and 2.1 × 10⁻⁵ at most in 48 units. Memory for each unit: at most ``resolution`` values for
    each doubling of the stream beyond that many, such as 113 kB of 10⁶ values.

    However the data are divided into batches, the state is the same. Merging gives another sample
    within the same error; statistics that are to be merged have the best of different seeds.

    Args:
        units: How many.
        resolution: Length of a buffer, at least 4.
        seed: Of the random bits.
        dtype: In which values are kept. They lie on the device of the first batch.

    Raises:
        InputError: There are no units, or the resolution is below 4.

    Example:
        >>> sketch = QuantileSketch(2)
        >>> sketch.update(torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.0, 1.0]]))
        >>> sketch.quantile(0.75)
        tensor([2.5000, 0.5000], dtype=torch.float64)
    """

    def __init__(
        self,
        units: int,
        *,
        resolution: int = 4096,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if units < 1 or resolution < 4:
            raise InputError(
                "a quantile sketch has at least 1 unit and a resolution of at least 4, got "
                f"{units} units and a resolution of {resolution}"
            )
        self.units, self.resolution, self.seed, self.dtype = units, resolution, seed, dtype
        self.count = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._levels = [torch.empty(units, 0, dtype=dtype)]  # a value at level i stands for 2 ** i
        infinity = torch.full((units,), torch.inf, dtype=dtype)
        self._extremes = torch.stack([infinity, -infinity])

    @property
    def minimum(self) -> Tensor:
        """The smallest value of each unit, exactly, ``(units,)``; inf before any was seen."""
        return self._extremes[0]

    @property
    def maximum(self) -> Tensor:
        """The largest value of each unit, exactly, ``(units,)``; -inf before any was seen."""
        return self._extremes[1]

    def empty(self) -> "QuantileSketch":
        """Return one with these settings that has seen nothing."""
        return QuantileSketch(
            self.units, resolution=self.resolution, seed=self.seed, dtype=self.dtype
        )

    def update(self, values: Tensor) -> None:
        """Take in values ``(units, n)``: ``n`` of each unit.

        Raises:
            ShapeError: There are values of another number of units.
            InputError: A value is not a finite number; the unit is named. Nothing is taken in.
        """
        if values.dim() != 2 or len(values) != self.units:
            raise ShapeError(f"expected values ({self.units}, n), got shape {tuple(values.shape)}")
        if values.shape[1] == 0:
            return
        values = values.detach().to(self.dtype)
        ends = torch.stack(values.aminmax(dim=1))
        broken = (~ends.isfinite().all(0)).nonzero().flatten().tolist()
        if broken:
            raise InputError(
                f"unit {broken[0]} has a value that is NaN or infinite in {self.dtype}"
            )
        self._move(values.device)
        self._widen(ends)
        self.count += values.shape[1]
        while values.shape[1]:
            if self._levels[0].shape[1] >= self.resolution:
                self._compact(0)
            room = self.resolution - self._levels[0].shape[1]
            self._append(0, values[:, :room])
            values = values[:, room:]

    def merge(self, other: "QuantileSketch") -> None:
        """Take in what ``other``, of the same settings but the seed, has seen."""
        if other.count == 0:
            return
        if self.count == 0:
            self._move(other._extremes.device)  # noqa: SLF001 - of the same class
        place = self._extremes.device
        self._widen(other._extremes.to(place))  # noqa: SLF001
        self.count += other.count
        for level, values in enumerate(other._levels):  # noqa: SLF001
            self._append(level, values.to(place))

    def quantile(self, q: float) -> Tensor:
        """Return the value below which a share ``q`` lies, ``(units,)`` float64.

        Interpolated linearly between values at their ranks, as NumPy's default does; a value that
        stands for several lies at the middle of their ranks.

        Raises:
            InputError: Nothing was seen, or ``q`` is not in ``[0, 1]``.
        """
        if not 0 <= q <= 1:
            raise InputError(f"a quantile lies in [0, 1], got {q}")
        if self.count == 0:
            raise InputError("no value was seen, so there is no quantile")
        # The smallest value may have been thinned out; it stands for none.
        values = torch.cat([self.minimum[:, None], *self._levels], 1)
        lengths = torch.tensor([1, *(level.shape[1] for level in self._levels)])
        powers = torch.tensor([0.0, *(2.0**level for level in range(len(self._levels)))])
        weights = powers.double().repeat_interleave(lengths).to(values.device)
        place = q * (self.count - 1)
        parts = values.split(_UNITS_AT_A_TIME)
        return torch.cat([_interpolated(part, weights, place) for part in parts])

    def state(self) -> dict[str, Tensor]:
        """Return all that was gathered, and the state of the random bits."""
        return {
            "settings": torch.tensor([self.units, self.resolution]),
            "count": torch.tensor(self.count),
            "extremes": self._extremes,
            "values": torch.cat(self._levels, 1),
            "filled": torch.tensor([level.shape[1] for level in self._levels]),
            "generator": self._generator.get_state(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state`; random bits go on where they stopped.

        Raises:
            ArtifactError: It is the state of a sketch with other settings.
        """
        check_names(state, _NAMES)
        settings, own = state["settings"].tolist(), [self.units, self.resolution]
        kinds = state["values"].dtype, self.dtype
        if settings != own or kinds[0] != kinds[1]:
            raise ArtifactError(
                "this state belongs to a sketch with other settings: units and resolution are "
                f"{settings} in {kinds[0]}, here {own} in {kinds[1]}"
            )
        self.count = int(state["count"])
        self._extremes = state["extremes"].clone()
        levels = state["values"].split(state["filled"].tolist(), 1)
        self._levels = [level.clone() for level in levels]
        self._generator.set_state(state["generator"].cpu())

    def _move(self, device: torch.device) -> None:
        """Have everything on one device, also after a state was loaded on another."""
        if self._extremes.device != device:
            self._extremes = self._extremes.to(device)
            self._levels = [level.to(device) for level in self._levels]

    def _widen(self, ends: Tensor) -> None:
        own = self._extremes
        self._extremes = torch.stack([own[0].minimum(ends[0]), own[1].maximum(ends[1])])

    def _append(self, level: int, values: Tensor) -> None:
        if level == len(self._levels):
            self._levels.append(values[:, :0])
        filled = self._levels[level].shape[1]
        if filled + values.shape[1] > self.resolution and filled > self.resolution // 2 + 1:
            self._compact(level)
        self._levels[level] = torch.cat([self._levels[level], values], 1)

    def _compact(self, level: int) -> None:
        """Let one of every two values among the smaller half stand for both, a level higher."""
        values = _sorted(self._levels[level])
        # An even number, so that the sum of all weights stays the number of values.
        smaller = (values.shape[1] - self.resolution // 2) // 2 * 2
        bit = int(torch.randint(2, (), generator=self._generator))
        self._levels[level] = values[:, smaller:]
        self._append(level + 1, values[:, bit:smaller:2])


def _sorted(values: Tensor) -> Tensor:
    if values.is_cuda or values.dtype not in (torch.float32, torch.float64):
        return values.sort(1).values
    # NumPy finds no indices beside, and is several times as fast.
    return torch.from_numpy(np.sort(values.cpu().numpy(), axis=1)).to(values.device)


def _interpolated(values: Tensor, weights: Tensor, place: float) -> Tensor:
    """Return the values of units ``(units, n)`` at a rank, counted from 0."""
    values, order = values.sort(dim=1, stable=True)
    weights = weights[order]
    ranks = (weights.cumsum(1) - (weights + 1) / 2).clamp(min=0)
    wanted = ranks.new_full((len(ranks), 1), place)
    above = torch.searchsorted(ranks, wanted, right=True).clamp(1, ranks.shape[1] - 1)
    (low, high), (before, behind) = (
        (each.gather(1, above - 1), each.gather(1, above)) for each in (values.double(), ranks)
    )
    # With a single value both are the same.
    share = (wanted - before) / (behind - before).clamp(min=1e-9)
    return torch.lerp(low, high, share)[:, 0]
