"""Zennit composites: which rule a module of a network gets."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from zennit.canonizers import Canonizer
from zennit.composites import register_composite
from zennit.core import Composite, Hook

from captum_blackbox.errors import check_choice
from captum_blackbox.patterns.batch_norm import affine, folded, norm_of
from captum_blackbox.patterns.linear_layers import LinearLayer
from captum_blackbox.patterns.patterns import Patterns
from captum_blackbox.patterns.rules import ChannelRule, PatternRule, SumRule

Residual: TypeAlias = Literal["gradient", "pattern"]
"""What an addition of two branches gives each: all that arrives, or its learned share."""

_CANONIZED = 1e-2  # by which a network may differ in Zennit, relative to a unit's weight

LayerMap: TypeAlias = Sequence[tuple[tuple[type[nn.Module], ...], Hook]]


class PatternComposite(Composite, ABC):
    """Put patterns in place of weights, in a backward pass of Zennit.

    Layers with a pattern get it, a BatchNorm whose scale is in a pattern is passed, ReLU gates by
    the forward pass, as the gradient does, and so does all the rest. The network is not changed:
    no canonizer is needed for BatchNorm, and one that folds it does no harm.

    Args:
        patterns: Of the network.
        residual: ``"pattern"`` gives the branches of an addition their learned shares of what
            arrives, which keeps the sum; ``"gradient"`` gives all of it to both.
        rescale: See :class:`~captum_blackbox.patterns.rules.PatternRule`.
        layer_map: Pairs of module types and Zennit hooks that go before the patterns.
        canonizers: Applied to the network before its rules are set.
    """

    def __init__(
        self,
        patterns: Patterns,
        *,
        residual: Residual = "pattern",
        rescale: bool = False,
        layer_map: LayerMap | None = None,
        canonizers: Sequence[Canonizer] | None = None,
    ) -> None:
        check_choice("residual", residual, get_args(Residual))
        self.patterns, self.residual, self.rescale = patterns, residual, rescale
        self.layer_map = list(layer_map or [])
        self._rules: dict[str, Hook] = {}
        self._state: object = None
        norms = [use.norm for use in patterns.structure.layers.values() if use.norm]
        skipped = [*patterns.structure.skipped, patterns.structure.head]
        self._passed = {name for name in [*norms, *skipped] if name}
        super().__init__(module_map=self.mapping, canonizers=list(canonizers or []))

    def mapping(self, ctx: dict[str, Any], name: str, module: nn.Module) -> Hook | None:
        """Return the rule of a module, or ``None`` to pass the gradient.

        Args:
            ctx: Of this registration.
            name: Of the module in the network.
            module: The module.

        Raises:
            ArtifactError: The patterns were fitted to another network; no rule is set.
        """
        root = ctx.setdefault("root", module)
        if module is root:
            self._look_at(root)
        given = next((hook for types, hook in self.layer_map if isinstance(module, types)), None)
        if given is not None:
            return given
        if name in self.patterns:
            if name not in self._rules:
                self._rules[name] = self._new_rule(name, module, root)
            return self._rules[name]
        if name in self._passed:
            return ChannelRule()
        if name in self.patterns.structure.norms:
            return self._norm_rule(module)
        if module is root and self.residual == "pattern" and self.patterns.shares:
            return SumRule(self.patterns.shares)
        return None

    def register(self, module: nn.Module) -> None:
        """Set the rules on a network; if that fails, none is left."""
        try:
            super().register(module)
        except BaseException:
            self.remove()
            raise

    @abstractmethod
    def in_place_of(self, pattern: Tensor, weight: Tensor) -> Tensor:
        """Return what stands in place of a layer's weight; both are float64."""

    @abstractmethod
    def _norm_rule(self, module: nn.Module) -> Hook:
        """Return the rule of a BatchNorm that stands alone."""

    def _look_at(self, root: nn.Module) -> None:
        """Check the network, and forget the rules, if its weights are not those of last time."""
        state = state_of(root)
        if state != self._state:
            # Zennit's canonizers leave a little of a BatchNorm behind.
            self.patterns.check(root, tolerance=_CANONIZED)
            self._rules, self._state = {}, state

    def _new_rule(self, name: str, module: nn.Module, root: nn.Module) -> PatternRule:
        layer: Any = module
        norm = norm_of(dict(root.named_modules()), self.patterns.structure.layers[name])
        weight = folded(module, norm)[0]

        def placed(pattern: Tensor) -> Tensor:
            found = self.in_place_of(pattern.to(weight), weight)
            # Where the kernels of the backward pass expect it.
            return found.to(layer.weight.dtype).contiguous()

        negative = self.patterns.negative.get(name)
        # Nothing arrives at an output up to 0 where a ReLU takes it.
        is_needed = negative is not None and self.patterns.structure.layers[name].gate != "relu"
        return PatternRule(
            LinearLayer.of(module),
            placed(self.patterns[name]),
            negative=placed(negative) if negative is not None and is_needed else None,
            affine=None if norm is None else affine(norm),
            rescale=self.rescale,
        )


@register_composite("pattern_net")
class PatternNetComposite(PatternComposite):
    """PatternNet as a composite of Zennit: the weight is replaced by the pattern.

    See ``PatternComposite`` for the arguments. Zennit's registry has it as ``"pattern_net"``.

    Example:
        >>> from zennit.attribution import Gradient
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> patterns = Patterns.fit(model, torch.randn(99, 3), show_progress=False)
        >>> with Gradient(model, PatternNetComposite(patterns)) as attributor:
        ...     output, signal = attributor(torch.randn(5, 3), torch.eye(2)[[0] * 5])
        >>> signal.shape
        torch.Size([5, 3])
    """

    def in_place_of(self, pattern: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG002
        """Return the pattern."""
        return pattern

    def _norm_rule(self, module: nn.Module) -> Hook:
        scale = affine(module)[0]
        is_dead = scale.abs() <= torch.finfo(scale.dtype).tiny
        inverse = 1 / torch.where(is_dead, torch.ones_like(scale), scale)
        return ChannelRule(torch.where(is_dead, torch.zeros_like(scale), inverse))


@register_composite("pattern_attribution")
class PatternAttributionComposite(PatternComposite):
    """PatternAttribution as a composite of Zennit: the weight is multiplied by the pattern.

    See ``PatternComposite`` for the arguments. Zennit's registry has it as
    ``"pattern_attribution"``.

    Example:
        >>> from zennit.composites import COMPOSITES
        >>> COMPOSITES["pattern_attribution"] is PatternAttributionComposite
        True
    """

    def in_place_of(self, pattern: Tensor, weight: Tensor) -> Tensor:
        """Return the elementwise product."""
        return pattern * weight

    def _norm_rule(self, module: nn.Module) -> Hook:
        affine(module)  # refuses one that has no scale
        return ChannelRule()  # a unit of one input: its pattern times its weight is 1


def state_of(model: nn.Module) -> object:
    """Return something that changes with the weights; writing to ``.data`` is not seen."""
    return [
        (each.data_ptr(), each._version, each.dtype, each.device)  # noqa: SLF001
        for each in [*model.parameters(), *model.buffers()]
    ]
