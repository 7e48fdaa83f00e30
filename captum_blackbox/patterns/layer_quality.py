"""The signal quality of one layer: what it takes from two passes over data."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from captum_blackbox.patterns import quality_criterion as criterion
from captum_blackbox.patterns.least_squares import PatchSample, iterated_direction
from captum_blackbox.patterns.linear_layers import LinearLayer
from captum_blackbox.patterns.quality_criterion import Estimator, Taps
from captum_blackbox.statistics.correlation import Correlation
from captum_blackbox.statistics.patch_covariance import PatchCovariance, Patches, PerUnit

_LEAST_SAMPLES = 2  # for each tap


class LayerQuality:
    """rho of several estimators at one layer.

    One pass feeds :meth:`fit`, then :meth:`finish_fit` finds the directions, another pass feeds
    :meth:`evaluate`. The covariance is let go in between.

    Args:
        module: The layer. A BatchNorm behind it does not matter, but for which units are on: rho
            is the same for every multiple of a weight.
        max_width: With more taps than this, directions come from a sample of the patches, by
            least squares in batches, and for ``max_units`` units only.
        max_units: How many, at least one in each group; drawn at random.
        generator: On the CPU, for all that is random.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        max_width: int,
        max_units: int,
        generator: torch.Generator,
    ) -> None:
        with_weight: Any = module  # not always a parameter: it may be parametrized
        layer, weight = LinearLayer.of(module), with_weight.weight.detach()
        rows = layer.rows(weight)
        self._layer, self._generator = layer, generator
        self._wide = rows.shape[1] > max_width
        of_group = layer.units // layer.groups
        chosen = of_group
        if self._wide:
            chosen = min(of_group, max(1, max_units // layer.groups))
        order = torch.randperm(of_group, generator=generator)[:chosen].sort().values
        self._chosen = order.to(weight.device)
        self._weight = self._grouped(weight)
        sizes = (layer.groups, rows.shape[1], chosen)
        self._estimators: dict[str, Estimator] = {}
        self._gathered: PatchCovariance | PatchSample
        if self._wide:
            device = weight.device
            self._gathered = PatchSample(*sizes, generator=generator, device=device)
        else:
            self._gathered = PatchCovariance(*sizes, device=weight.device)
        self._directions: dict[str, Taps] = {}
        self._correlations: dict[str, Correlation] = {}
        self._rounding: PerUnit

    def add(self, name: str, positive: Tensor, negative: Tensor | None) -> None:
        """Add an estimator by its patterns, in the shape of the layer's weight."""
        patterns = (None if each is None else self._grouped(each) for each in (positive, negative))
        self._estimators[name] = Estimator.of(self._weight, *patterns)  # type: ignore[arg-type]

    def add_random(self, name: str) -> None:
        """Add S(x) = u wᵀx / (wᵀu) with u ~ N(0, 1), drawn for each unit."""
        drawn = torch.randn(self._weight.shape, generator=self._generator, dtype=torch.float64)
        self._estimators[name] = Estimator.of(self._weight, drawn.to(self._weight.device))

    def fit(self, patches: Patches, on: Tensor) -> None:
        """Take in samples to find the directions on."""
        on = on[..., self._chosen]
        if isinstance(self._gathered, PatchSample):
            self._gathered.update(patches, on)
        else:
            self._gathered.update(patches, torch.where(on, patches @ self._weight.mT, 0))

    def finish_fit(self) -> bool:
        """Find v for each estimator; return whether there were samples enough."""
        gathered, taps = self._gathered, self._weight.shape[-1]
        if isinstance(gathered, PatchSample):
            patches, on = gathered.kept()
            energy = patches.square().sum(-1, dtype=torch.float64).mean(1)
            for name, estimator in self._estimators.items():
                self._directions[name] = iterated_direction(patches, on, self._weight, estimator)
            varying = patches.double() @ self._weight.mT
            variance = varying.var(1, correction=0)
        else:
            moments = gathered.compute()
            energy = criterion.energy(moments)
            lower = criterion.factor(moments.covariance)
            for name, estimator in self._estimators.items():
                self._directions[name] = criterion.best_direction(
                    moments, lower, self._weight, estimator
                )
            variance = ((self._weight @ moments.covariance) * self._weight).sum(-1)
        self._rounding = criterion.rounding_variance(self._weight, energy)
        constant = variance <= self._rounding
        for direction in self._directions.values():
            direction[constant] = torch.nan
        shape, device = tuple(self._weight.shape[:2]), self._weight.device
        self._correlations = {name: Correlation(shape, device=device) for name in self._directions}
        enough = gathered.samples > _LEAST_SAMPLES * taps
        del self._gathered
        return enough

    def evaluate(self, patches: Patches, on: Tensor) -> None:
        """Take in samples to judge the directions on."""
        on = on[..., self._chosen]
        outputs = patches @ self._weight.mT
        for name, estimator in self._estimators.items():
            residual = estimator.residual(self._directions[name], patches, outputs, on)
            self._correlations[name].update(outputs.transpose(0, 1), residual.transpose(0, 1))

    def quality(self) -> Mapping[str, Tensor]:
        """Return rho of each estimator, ``(units,)``, on the CPU."""
        found = {}
        for name, correlation in self._correlations.items():
            moments = correlation.compute()
            known = ~self._directions[name].isnan().any(-1) & (moments.first > self._rounding)
            # No residual, or none that varies: nothing is left that could tell the output.
            rho = 1 - moments.correlation.where(moments.second != 0, 0.0)
            of_group = self._layer.units // self._layer.groups
            units = rho.new_full((self._layer.groups, of_group), torch.nan)
            units[:, self._chosen] = rho.where(known, torch.nan)
            found[name] = units.flatten().cpu()
        return found

    def _grouped(self, weight: Tensor) -> Taps:
        """Return the rows of the chosen units by group, in float64."""
        rows = self._layer.rows(weight.detach())
        of_group: Tensor = rows.unflatten(0, (self._layer.groups, -1))
        return of_group[:, self._chosen.to(rows.device)].to(self._chosen.device).double()
