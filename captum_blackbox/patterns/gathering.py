"""All statistics that patterns are made of, gathered while the network runs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captum_blackbox._compat import format_additional_forward_args
from captum_blackbox.errors import InputError, warn_user
from captum_blackbox.hooks import evaluating, first_parameter
from captum_blackbox.patterns.batch_norm import folded, norm_of
from captum_blackbox.patterns.estimators import (
    Component,
    Estimate,
    Final,
    Regime,
    components_of,
    estimate,
)
from captum_blackbox.patterns.linear_layers import LinearLayer
from captum_blackbox.patterns.observation import observed, observed_sums
from captum_blackbox.patterns.patterns import PatternReport, Patterns, signatures
from captum_blackbox.patterns.structure import Structure
from captum_blackbox.statistics import (
    Centre,
    Count,
    RegimeCovariance,
    Statistic,
    SummandShares,
)

_SAMPLES: dict[str, Any] = {"linear": "all", "positive": "positive", "negative": "negative"}
# Shares of units, of a layer's and of all, that are worth a warning.
_MANY_DEGENERATE, _MANY_UNSTABLE = 0.5, 0.02


class Gathering:
    """The statistics of every layer and addition of a network, and patterns made of them.

    Args:
        model: The network.
        structure: Of it.
        components: Layer → what its patterns will be made of.
        input_shape: Of one input.
        centre: See :class:`~captum_blackbox.statistics.RegimeCovariance`.
        additional_forward_args: Passed to the network after each batch.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        components: Mapping[str, Collection[Component]],
        input_shape: Sequence[int],
        centre: Centre = "exact",
        additional_forward_args: object = None,
    ) -> None:
        self.model, self.structure = model, structure
        self.input_shape = tuple(input_shape)
        self.count = Count()
        self._layers = {}
        for name, wanted in components.items():
            regimes: list[Any] = sorted({_SAMPLES[each] for each in wanted if each in _SAMPLES})
            if regimes:
                layer = LinearLayer.of(model.get_submodule(name))
                self._layers[name] = RegimeCovariance(layer, regimes, centre=centre)
        self._sums = {name: SummandShares() for name in structure.sums}
        self._place = first_parameter(model)
        self._additional = format_additional_forward_args(additional_forward_args) or ()

    @property
    def needs_data(self) -> bool:
        """Whether anything is estimated from data."""
        return bool(self._layers or self._sums)

    def statistics(self) -> dict[str, Statistic]:
        """Return every statistic by a name of its own."""
        layers = {f"layer.{name}": each for name, each in self._layers.items()}
        sums = {f"sum.{name}": each for name, each in self._sums.items()}
        return {"count": self.count, **layers, **sums}

    def state(self) -> dict[str, Tensor]:
        """Return the state of all statistics."""
        return {
            f"{name}/{key}": tensor
            for name, each in self.statistics().items()
            for key, tensor in each.state().items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state`."""
        by_name: dict[str, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            name, _, entry = key.rpartition("/")
            by_name.setdefault(name, {})[entry] = tensor.to(self._place.device)
        for name, each in self.statistics().items():
            each.load_state(by_name[name])

    def update(self, batch: Tensor, number: int) -> None:
        """Run the network on a batch and take in what is seen.

        If that fails, some layers have taken the batch in and others have not: gather anew, or go
        on from a checkpoint, which holds whole batches only.

        Raises:
            InputError: The batch, or what the network makes of it, is not finite.
        """
        if not bool(batch.isfinite().all()):
            bad = (~batch.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
            raise InputError(
                f"batch {number}: input {bad[0]} has values that are NaN or infinite; remove it "
                "from the data"
            )
        layers = {name: self.structure.layers[name] for name in self._layers}
        try:
            with (
                torch.no_grad(),
                evaluating(self.model),
                observed(self.model, layers, self._take_in),
                observed_sums(self.model, self._sums, self._take_in_sum),
            ):
                self.model(batch.to(self._place), *self._additional)
        except InputError as error:
            raise InputError(f"batch {number}: {error}") from error
        self.count.update(len(batch))

    def patterns(self, regime: Regime, final: Final, *, regime_centering: bool) -> Patterns:
        """Return the patterns of one regime.

        Warns:
            ExplanationWarning: Many units of a layer have none.
        """
        tensors: dict[str, Tensor] = {}
        negative: dict[str, Tensor] = {}
        degenerate: dict[str, list[int]] = {}
        unstable: dict[str, list[int]] = {}
        for name, use in self.structure.layers.items():
            components = components_of(regime, final, is_gated=use.gate is not None)
            for component in components:
                found = self._estimate(name, component, regime_centering=regime_centering)
                module = self.model.get_submodule(name)
                group = negative if component == "negative" and len(components) > 1 else tensors
                group[name] = LinearLayer.of(module).weight_of(found.rows).to(_kept(self._place))
                for which, flags in ((degenerate, found.degenerate), (unstable, found.unstable)):
                    if bool(flags.any()):
                        units = {*which.get(name, []), *flags.nonzero().flatten().tolist()}
                        which[name] = sorted(units)
        self._warn(degenerate, unstable)
        return Patterns(
            tensors,
            self.structure,
            signatures(self.model, self.structure),
            regime=regime,
            final=final,
            negative=negative,
            shares={name: each.compute().float() for name, each in self._sums.items()},
            report=PatternReport(
                self.count.batches, self.count.inputs, self.input_shape, degenerate, unstable
            ),
        )

    def _estimate(self, name: str, component: Component, *, regime_centering: bool) -> Estimate:
        use = self.structure.layers[name]
        module = self.model.get_submodule(name)
        norm = norm_of(dict(self.model.named_modules()), use)
        rows = LinearLayer.of(module).rows(folded(module, norm)[0])
        if component == "filter":
            return estimate(component, rows, {}, rows.new_zeros(len(rows)))
        found = self._layers[name]
        return estimate(
            component,
            rows,
            found.compute([_SAMPLES[component]]),
            found.mean_outputs,
            regime_centering=regime_centering,
        )

    def _warn(self, degenerate: Mapping[str, list[int]], unstable: Mapping[str, list[int]]) -> None:
        totals = {
            name: LinearLayer.of(self.model.get_submodule(name)).units
            for name in self.structure.layers
        }
        for name, units in degenerate.items():
            if len(units) > _MANY_DEGENERATE * totals[name]:
                warn_user(
                    f"{len(units)} of {totals[name]} units of layer {name!r} have no pattern, "
                    "since they are constant or never in the regime: what they do is not "
                    "explained; is the data what the network was trained on?"
                )
                break
        many = sum(map(len, unstable.values()))
        if many > _MANY_UNSTABLE * sum(totals.values()):
            worst = max(unstable, key=lambda name: len(unstable[name]) / totals[name])
            warn_user(
                f"{many} of {sum(totals.values())} units, above all in layer {worst!r}, have "
                "patterns that are huge or turned around, as happens where biases are large, "
                "behind BatchNorm for instance; regime_centering=True or regime='linear' avoids it"
            )

    def _take_in(self, name: str, inputs: Tensor, outputs: Tensor) -> None:
        try:
            self._layers[name].update(inputs, outputs)
        except InputError as error:
            raise InputError(f"layer {name!r}: {error}") from error

    def _take_in_sum(self, name: str, first: Tensor, second: Tensor) -> None:
        try:
            self._sums[name].update(first, second)
        except InputError as error:
            raise InputError(f"addition {name!r}: {error}") from error


def _kept(weight: Tensor) -> torch.dtype:
    """Return the type that patterns of a weight are kept in: float32, or float64 like it."""
    return torch.promote_types(weight.dtype, torch.float32)
