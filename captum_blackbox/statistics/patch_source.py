"""What a statistic of patches has to know of a layer."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable  # tests check types while they run
class PatchSource(Protocol):
    """How a layer of linear units cuts patches out of its input: one sample for each output.

    ``x`` is an input ``(n, channels, …)`` and ``y`` an output ``(n, units, …)``; a patch has
    ``taps`` numbers, channels first.
    """

    @property
    def units(self) -> int:
        """How many numbers are put out for a patch."""

    @property
    def transposed(self) -> bool:
        """Whether patches have zeros of their own, so that shifting ``x`` is not to shift them."""

    def samples(self, inputs: Tensor, outputs: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return ``x``, with every border, and ``y``.

        The caller may overwrite ``x`` where it shares no memory with ``inputs``.
        """

    def patches(self, inputs: Tensor, /) -> Tensor:
        """Return the patches of ``x`` for all groups of units, ``(n, *positions, channels, …)``."""

    def patch_sums(self, inputs: Tensor, coefficients: Tensor, /) -> Tensor:
        """Return Σ patch · coefficient, ``(units, taps)``; coefficients are shaped as ``y``."""

    def spread(self, channels: Tensor, /) -> Tensor:
        """Return a number for each channel as patches, ``(units, taps)``."""
