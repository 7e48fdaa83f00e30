"""What the pattern methods must know of a network: its linear layers and what lies between."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from captum_blackbox.errors import LayerError

Gate: TypeAlias = Literal["relu", "leaky"]


@dataclass(frozen=True)
class LayerUse:
    """How a network uses a layer that has patterns.

    Attributes:
        norm: Name of the BatchNorm that alone takes the layer's output, and is folded into it.
        gate: What the folded output goes to: ``"relu"`` where nothing passes at outputs up to 0
            (ReLU, ReLU6), ``"leaky"`` where something does, ``None`` where there is no such
            activation before an addition, the next layer or the end of the network.
    """

    norm: str | None = None
    gate: Gate | None = None


@dataclass(frozen=True)
class Structure:
    """The parts of a network that have rules; everything else passes the gradient.

    Attributes:
        layers: Name → use, in the order in which the layers run.
        norms: BatchNorm layers that no layer can take in.
        sums: Additions of two activations of one shape, as ``"module:number"``, numbered among the
            additions of equal shapes that the module itself makes in one forward pass.
        skipped: Modules without a rule of their own that are passed as if they were not there:
            local response normalization.
        head: A softmax or sigmoid module at the end, which is taken off, so that the score before
            it is explained.
    """

    layers: Mapping[str, LayerUse]
    norms: tuple[str, ...] = ()
    sums: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    head: str | None = None

    def only(self, names: Collection[str]) -> "Structure":
        """Return it with the layers in ``names`` alone; the others have no rule.

        Raises:
            LayerError: One of them is no layer that can have a pattern.
        """
        wrong = [name for name in names if name not in self.layers]
        if wrong:
            raise LayerError(
                f"layer {wrong[0]!r} can have no pattern; those that can are "
                f"{', '.join(map(repr, self.layers))}"
            )
        return replace(self, layers={k: use for k, use in self.layers.items() if k in names})

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON; :meth:`from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Structure":
        """Return what :meth:`to_json` wrote.

        Example:
            >>> structure = Structure({"0": LayerUse(gate="relu")}, sums=("block:0",))
            >>> Structure.from_json(structure.to_json()) == structure
            True
        """
        return cls(
            layers={name: LayerUse(**use) for name, use in found["layers"].items()},
            norms=tuple(found["norms"]),
            sums=tuple(found["sums"]),
            skipped=tuple(found["skipped"]),
            head=found["head"],
        )
