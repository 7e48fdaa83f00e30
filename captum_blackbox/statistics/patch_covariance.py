"""How patches vary, and how what active units put out varies with them."""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from captum_blackbox.errors import ArtifactError, InputError
from captum_blackbox.statistics.running import Statistic, check_names

Patches: TypeAlias = Float[Tensor, "groups samples taps"]
Outputs: TypeAlias = Float[Tensor, "groups samples units"]
PerUnit: TypeAlias = Float[Tensor, "groups units"]
_NAMES = ("count", "mean", "scatter", "active_mean", "cross", "active_scatter")


class PatchMoments(NamedTuple):
    """Means, variances and covariances over all samples, those divided by their number.

    Attributes:
        mean: Of the patches.
        covariance: Of the patches.
        cross: Of each unit's active output with the patches.
        active_variance: Of each unit's active output.
    """

    mean: Float[Tensor, "groups taps"]
    covariance: Float[Tensor, "groups taps taps"]
    cross: Float[Tensor, "groups units taps"]
    active_variance: PerUnit


class PatchCovariance(Statistic):
    """Covariance of patches x, and with them of the active output y₊ of linear units.

    y₊ is y = wᵀx where the unit is on, and 0 elsewhere. Sums are of float64 and centred batch by
    batch (Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979), so that a large mean does not matter.

    Memory: groups · taps · (taps + units of a group) · 8 bytes.

    Args:
        groups: Of patches and units; units see the patches of their own group only.
        taps: Numbers in a patch.
        units: In a group.
        device: Where the sums are kept.

    Example:
        >>> statistic = PatchCovariance(groups=1, taps=1, units=1)
        >>> x = torch.tensor([[[1.0], [3.0]]])
        >>> statistic.update(x, 2 * x)
        >>> moments = statistic.compute()
        >>> moments.covariance.item(), moments.cross.item(), moments.active_variance.item()
        (1.0, 2.0, 4.0)
    """

    def __init__(
        self, groups: int, taps: int, units: int, *, device: torch.device | str | None = None
    ) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self._count = zeros()
        self._mean = zeros(groups, taps)
        self._scatter = zeros(groups, taps, taps)
        self._active_mean = zeros(groups, units)
        self._cross = zeros(groups, units, taps)
        self._active_scatter = zeros(groups, units)

    @property
    def samples(self) -> int:
        """How many samples were seen."""
        return int(self._count)

    def empty(self) -> "PatchCovariance":
        """Return a statistic of the same sizes that has seen nothing."""
        groups, units, taps = self._cross.shape
        return PatchCovariance(groups, taps, units, device=self._mean.device)

    def update(self, patches: Patches, active: Outputs) -> None:
        """Take in samples: patches, and what each unit puts out where it is on, else 0."""
        samples = patches.shape[1]
        if samples == 0:
            return
        patches, active = patches.double(), active.double()
        mean, active_mean = patches.mean(1), active.mean(1)
        patches, active = patches - mean[:, None], active - active_mean[:, None]
        self._scatter.baddbmm_(patches.mT, patches)
        self._cross.baddbmm_(active.mT, patches)
        self._active_scatter += active.square().sum(1)
        self._move(self._count.new_tensor(samples), mean, active_mean)

    def merge(self, other: "PatchCovariance") -> None:
        """Take in what ``other``, of the same sizes, has seen."""
        if other.samples:
            seen = other.state()
            self._scatter += seen["scatter"]
            self._cross += seen["cross"]
            self._active_scatter += seen["active_scatter"]
            self._move(seen["count"], seen["mean"], seen["active_mean"])

    def state(self) -> dict[str, Tensor]:
        """Return all sums."""
        return {name: getattr(self, f"_{name}") for name in _NAMES}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state`.

        Raises:
            ArtifactError: It is the state of a statistic of other sizes.
        """
        check_names(state, _NAMES)
        for name, own in self.state().items():
            if state[name].shape != own.shape:
                raise ArtifactError(
                    f"this state belongs to a statistic of other sizes: {name!r} is "
                    f"{tuple(state[name].shape)} in it, {tuple(own.shape)} here"
                )
        for name, own in self.state().items():
            own.copy_(state[name])

    def compute(self) -> PatchMoments:
        """Return the moments.

        Raises:
            InputError: Nothing was seen.
        """
        if self._count == 0:
            raise InputError("no sample was seen, so there is no covariance")
        return PatchMoments(
            self._mean.clone(),
            self._scatter / self._count,
            self._cross / self._count,
            self._active_scatter / self._count,
        )

    def _move(self, count: Tensor, mean: Tensor, active_mean: Tensor) -> None:
        """Take ``count`` samples with these means into count and means, and into the scatters."""
        total = self._count + count
        share = self._count * count / total
        step, active_step = mean - self._mean, active_mean - self._active_mean
        self._scatter.baddbmm_(share * step[:, :, None], step[:, None])
        self._cross.baddbmm_(share * active_step[:, :, None], step[:, None])
        self._active_scatter += share * active_step.square()
        self._mean += step * (count / total)
        self._active_mean += active_step * (count / total)
        self._count += count
