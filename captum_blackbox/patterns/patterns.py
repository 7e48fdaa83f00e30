"""Fitted patterns: one tensor for each layer, kept with what they belong to."""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from captum_blackbox.artifacts import check_header, load_artifact, save_artifact
from captum_blackbox.errors import ArtifactError, InputError, check_choice
from captum_blackbox.hooks import unwrapped
from captum_blackbox.patterns.batch_norm import folded, norm_of
from captum_blackbox.patterns.estimators import Final, Regime
from captum_blackbox.patterns.linear_layers import PATTERN_LAYERS, LinearLayer
from captum_blackbox.patterns.structure import LayerUse, Structure

_KIND = "patterns"
_ROUNDING = 16.0  # units in the last place by which equal layers may differ
_NEGATIVE, _PATTERN, _SHARES, _SIGNATURE = "negative", "pattern", "shares", "signature"


@dataclass(frozen=True)
class PatternReport:
    """What was seen while patterns were fitted.

    Attributes:
        batches: How many batches, in all processes together.
        images: How many inputs.
        input_shape: Of one of them.
        degenerate_units: Layer → units whose pattern is 0: never active, constant, or without a
            direction.
        unstable_units: Layer → units whose pattern is huge or turned around; see
            :class:`~captum_blackbox.patterns.estimators.Estimate`.
    """

    batches: int = 0
    images: int = 0
    input_shape: tuple[int, ...] = ()
    degenerate_units: Mapping[str, list[int]] = field(default_factory=dict)
    unstable_units: Mapping[str, list[int]] = field(default_factory=dict)


class Patterns(Mapping[str, Tensor]):
    """The direction in which each unit's signal lies in the unit's input.

    A mapping from layer name to a tensor of the shape of the layer's weight, float32 or wider.
    :meth:`fit` estimates it from data. A weight says what a unit computes; it has to cancel the
    distractor and so points away from the signal. The pattern says what the unit responds to.

    Attributes:
        negative: Layer → pattern of the negative regime; only ``regime="two_component"`` has it.
        shares: Addition → shares of the two summands ``(2, channels)``, for
            ``residual="pattern"``.
        structure: How the network uses the layers.
        regime: Which samples the patterns were estimated from.
        final: The same, for layers that no ReLU follows.
        report: What was seen.

    References:
        Kindermans et al., "Learning how to explain neural networks: PatternNet and
        PatternAttribution", ICLR 2018, sec. 4 and 5; Haufe et al., NeuroImage 2014 (the linear
        pattern).

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> patterns = Patterns.fit(model, torch.randn(40, 3, 4, 4), show_progress=False)
        >>> {name: tuple(pattern.shape) for name, pattern in patterns.items()}
        {'0': (4, 3, 3, 3), '3': (2, 16)}
        >>> projection = (patterns["0"] * model[0].weight).sum((1, 2, 3))
        >>> torch.testing.assert_close(projection, torch.ones(4))
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        structure: Structure,
        signatures: Mapping[str, Tensor],
        *,
        regime: Regime,
        final: Final,
        negative: Mapping[str, Tensor] | None = None,
        shares: Mapping[str, Tensor] | None = None,
        report: PatternReport | None = None,
    ) -> None:
        self._tensors = dict(tensors)
        self._signatures = dict(signatures)
        self.structure = structure
        self.regime: Regime = regime
        self.final: Final = final
        self.negative = dict(negative or {})
        self.shares = dict(shares or {})
        self.report = report or PatternReport()

    def __getitem__(self, layer: str) -> Tensor:
        """Return the pattern of a layer."""
        return self._tensors[layer]

    def __iter__(self) -> Iterator[str]:
        """Return the names of the layers, in the order in which they run."""
        return iter(self._tensors)

    def __len__(self) -> int:
        """Return how many layers have patterns."""
        return len(self._tensors)

    def __repr__(self) -> str:
        """Describe them in one line."""
        return f"Patterns({self.regime!r}, {len(self)} layers, {self.report.images} images)"

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        regime: Regime = "positive",
        final: Final = "positive",
        **settings: Any,
    ) -> "Patterns":
        """Estimate the patterns of every layer in one pass over data, without labels.

        :func:`~captum_blackbox.patterns.fit_patterns` says what else can be set; this is the same
        for one regime.

        Args:
            model: The network. It runs in evaluation mode and is left as it was.
            loader: A ``DataLoader`` or any iterable of batches; a batch is a tensor of inputs, or
                a tuple that starts with one. Or one tensor of inputs.
            regime: ``"positive"`` for the samples at which a unit is active, as the paper does in
                its experiments; ``"negative"`` for the others; ``"two_component"`` for both, each
                where it applies; ``"linear"`` for all together; ``"filter"`` for
                ``w / wᵀw``, which is no estimate but what methods without patterns assume.
            final: For layers whose own output no ReLU takes (the last layer, the last of a
                residual branch, projections): ``"linear"``; or ``"positive"``, by the sign of
                their output: the positive regime, or both for ``"two_component"``.
            **settings: See :func:`~captum_blackbox.patterns.fit_patterns`.

        Raises:
            LayerError: The network has no layer with a pattern, or a part without a rule.
            InputError: There is no batch, or one has values that are not finite; it is named.
        """
        from captum_blackbox.patterns.fitting import fit_patterns

        return fit_patterns(model, loader, [regime], final=final, **settings)[regime]

    def save(self, path: str | Path) -> None:
        """Write them to a safetensors file.

        Raises:
            ArtifactError: The file cannot be written.
        """
        tensors = {
            f"{kind}.{name}": tensor
            for kind, group in (
                (_PATTERN, self._tensors),
                (_NEGATIVE, self.negative),
                (_SHARES, self.shares),
                (_SIGNATURE, self._signatures),
            )
            for name, tensor in group.items()
        }
        header = {
            "kind": _KIND,
            "version": version("captum-blackbox"),
            "regime": self.regime,
            "final": self.final,
            "structure": self.structure.to_json(),
            "report": asdict(self.report),
        }
        save_artifact(path, tensors, header)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module) -> "Patterns":
        """Read what :meth:`save` wrote, for the model it was fitted to, on the CPU.

        The model may be on another device or in another floating-point type, and its BatchNorm
        may have been folded in since: what counts is the function of each layer.

        Raises:
            ArtifactError: There is no such file, it holds something else, or it was fitted to a
                model that differs in some layer; the layer is named.
        """
        tensors, header = load_artifact(path)
        check_header(path, header, {"kind": _KIND})
        groups: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            kind, _, name = key.partition(".")
            groups.setdefault(kind, {})[name] = tensor
        check_choice("the regime of the file", header["regime"], get_args(Regime))
        structure = Structure.from_json(header["structure"])
        found, own = groups.get(_PATTERN, {}), groups.get(_SIGNATURE, {})
        missing = [name for name in structure.layers if name not in found or name not in own]
        if missing:
            raise ArtifactError(f"{str(path)!r} is not whole: it has no pattern of {missing[0]!r}")
        loaded = cls(
            {name: found[name] for name in structure.layers},
            structure,
            own,
            regime=header["regime"],
            final=header["final"],
            negative=groups.get(_NEGATIVE),
            shares=groups.get(_SHARES),
            report=_report(header["report"]),
        )
        loaded.check(model)
        return loaded

    def replaced(self, tensors: Mapping[str, Tensor]) -> "Patterns":
        """Return patterns for the same network with other tensors, one for each layer.

        Raises:
            InputError: A layer is missing, or one has another shape.

        Example:
            >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
            >>> patterns = Patterns.fit(model, torch.randn(9, 3), show_progress=False)
            >>> gradient = patterns.replaced({"0": model[0].weight})
        """
        given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        here = {name: tuple(tensor.shape) for name, tensor in self.items()}
        differing = [name for name in here | given if here.get(name) != given.get(name)]
        if differing:
            name = differing[0]
            raise InputError(
                f"expected a pattern of shape {here.get(name, 'none at all')} for layer {name!r}, "
                f"got {given.get(name, 'none')}"
            )
        return Patterns(
            {name: tensors[name].detach().clone() for name in self},
            self.structure,
            self._signatures,
            regime=self.regime,
            final=self.final,
            shares=self.shares,
            report=PatternReport(input_shape=self.report.input_shape),
        )

    def check(self, model: nn.Module, *, tolerance: float = 0.0) -> None:
        """Refuse a model other than the one these patterns were fitted to.

        Weights and biases of each layer are compared, and its stride, padding and so on. How a
        ``forward`` of one's own connects the layers is not seen.

        Args:
            model: The network.
            tolerance: By which weights may differ, relative to their length, beyond rounding.

        Raises:
            ArtifactError: A layer is missing, has another shape or other weights; it is named.
        """
        modules = dict(unwrapped(model).named_modules())
        for name in self:
            difference = self._difference(name, modules, tolerance)
            if difference:
                raise ArtifactError(
                    f"these patterns were fitted to another model than this "
                    f"{type(model).__name__}: layer {name!r} {difference}; load the weights that "
                    "they were fitted to, or fit them again"
                )
        missing = [name for name in self.structure.norms if name not in modules]
        if missing:
            raise ArtifactError(f"this {type(model).__name__} has no layer {missing[0]!r}")

    def _difference(
        self, name: str, modules: Mapping[str, nn.Module], tolerance: float
    ) -> str | None:
        layer: Any = modules.get(name)
        if not isinstance(layer, PATTERN_LAYERS):
            return "is missing in it"
        shape, own = tuple(layer.weight.shape), tuple(self[name].shape)
        if shape != own:
            return f"has a weight of shape {shape} in it, and a pattern of shape {own}"
        expected = self._signatures[name]
        here = _signature(modules, name, self.structure.layers[name])
        if not torch.equal(here[:, 5], expected[:, 5]):
            return f"is {layer} in it, with another stride, padding, dilation or grouping"
        rounding = _ROUNDING * torch.maximum(here, expected)[:, 4:5]
        allowed = (rounding + tolerance) * expected[:, 2:4].abs().sum(1, keepdim=True)
        agrees = (here - expected)[:, :4].abs() <= allowed
        return None if bool(agrees.all()) else "has other weights in it"


def signatures(model: nn.Module, structure: Structure) -> dict[str, Tensor]:
    """Return for each layer a few numbers that other weights do not have.

    They are those of the folded layer, so that a network and the same with BatchNorm folded in
    agree, and they change little with the floating-point type.
    """
    modules = dict(model.named_modules())
    return {name: _signature(modules, name, use) for name, use in structure.layers.items()}


def _signature(modules: Mapping[str, nn.Module], name: str, use: LayerUse) -> Tensor:
    """Return what a layer is told by, ``(units, 6)``.

    Two projections of the weight, its length, the bias, the rounding, and the geometry's hash.
    """
    layer: Any = modules[name]
    weight, bias = folded(layer, norm_of(modules, use))
    geometry = LinearLayer.of(layer)
    rows = geometry.rows(weight)
    places = torch.arange(rows.shape[1], dtype=torch.float64, device=rows.device)
    directions = torch.stack([torch.cos(places * 2.399963), torch.sin(places * 1.324718 + 1)], 1)
    lengths, offsets = rows.norm(dim=1, keepdim=True), bias[:, None]
    coarsest = max(torch.finfo(layer.weight.dtype).eps, torch.finfo(torch.float32).eps)
    rounding = torch.full_like(lengths, coarsest)
    kind = torch.full_like(lengths, zlib.crc32(repr(geometry).encode()))
    return torch.cat([rows @ directions, lengths, offsets, rounding, kind], 1).cpu()


def _report(found: Mapping[str, Any]) -> PatternReport:
    return PatternReport(**{**found, "input_shape": tuple(found["input_shape"])})
