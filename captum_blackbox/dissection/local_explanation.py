"""Which units, and which concepts, made a prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from captum_blackbox.errors import InputError

NO_CONCEPT = "(no concept)"
"""Stands for all units that detect nothing."""


class ConceptShare(NamedTuple):
    """What the units of one concept contribute to one prediction.

    Attributes:
        concept: Its name; ``NO_CONCEPT`` for the units that have none.
        contribution: The sum over its units.
        units: Their numbers, largest contribution first.
    """

    concept: str
    contribution: float
    units: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LocalExplanation:
    r"""What each unit of a layer contributed to a score of ``N`` images.

    Unit :math:`k` contributes :math:`C_k = \sum_{ij} \frac{\partial z}{\partial a_{kij}} a_{kij}`.
    Where the rest of the network is linear, as after the last convolution of a network that ends in
    global average pooling and a linear layer, this is :math:`w_k` times the mean of :math:`a_k`,
    and the contributions and the bias sum to the score. Elsewhere it is the first-order part, and
    ``is_exact`` is false.

    Attributes:
        layer: Name of the layer.
        targets: The explained class of each image, ``(N,)``.
        scores: Their scores (logits), ``(N,)``.
        bias: The scores with the whole layer silenced, ``(N,)``.
        cells: Contribution of each cell, ``(N, units, h, w)``.
        concepts: The concept of each unit, or ``NO_CONCEPT``.
        is_exact: Whether contributions and bias are the whole score, since the rest of the network
            is linear, ``(N,)`` bool.

    References:
        Bau et al., "Network Dissection", CVPR 2017; Zhou et al., "Interpreting deep visual
        representations via Network Dissection", TPAMI 2018; and class activation maps of Zhou et
        al., CVPR 2016, which the cells sum to.
    """

    layer: str
    targets: Tensor
    scores: Tensor
    bias: Tensor
    cells: Tensor
    concepts: tuple[str, ...]
    is_exact: Tensor

    @property
    def contributions(self) -> Tensor:
        """Contribution of each unit, ``(N, units)``; above 0 it supports the target."""
        return self.cells.sum((2, 3))

    @property
    def residual(self) -> Tensor:
        """What of the score the contributions and the bias leave out, ``(N,)``; 0 where exact."""
        return self.scores - self.bias - self.contributions.sum(1)

    def by_concept(self) -> dict[str, Tensor]:
        """Return concept → summed contribution ``(N,)``; all of them sum as the units do.

        Example:
            >>> import torch
            >>> explanation = LocalExplanation(
            ...     "conv", torch.tensor([0]), torch.tensor([3.5]), torch.tensor([0.5]),
            ...     torch.tensor([2.0, -1.0, 2.0]).view(1, 3, 1, 1),
            ...     ("wheel", "sky", "wheel"), torch.tensor([True]),
            ... )
            >>> explanation.by_concept()
            {'wheel': tensor([4.]), 'sky': tensor([-1.])}
            >>> explanation.supporting(0)[0]
            ConceptShare(concept='wheel', contribution=4.0, units=(0, 2))
        """
        contributions = self.contributions
        return {name: contributions[:, self._units_of(name)].sum(1) for name in self._names()}

    def ranked(self, image: int) -> list[ConceptShare]:
        """Return the concepts of one image, largest contribution first."""
        contributions = self.contributions[image]
        shares = []
        for name in self._names():
            units = self._units_of(name)
            order = contributions[units].argsort(descending=True, stable=True).tolist()
            total = float(contributions[units].sum())
            shares.append(ConceptShare(name, total, tuple(units[place] for place in order)))
        return sorted(shares, key=lambda share: -share.contribution)

    def supporting(self, image: int, count: int = 5) -> list[ConceptShare]:
        """Return the concepts that raised the score most, largest first."""
        named = [share for share in self.ranked(image) if share.concept != NO_CONCEPT]
        return [share for share in named if share.contribution > 0][:count]

    def opposing(self, image: int, count: int = 5) -> list[ConceptShare]:
        """Return the concepts that lowered the score most, lowest first."""
        named = [share for share in self.ranked(image)[::-1] if share.concept != NO_CONCEPT]
        return [share for share in named if share.contribution < 0][:count]

    def maps(self, concept: str | Sequence[str] | None = None) -> Tensor:
        """Return where units contributed, summed over them, ``(N, 1, h, w)``.

        Args:
            concept: One or several; ``None`` for all units that have one. The maps of all concepts,
                ``NO_CONCEPT`` among them, sum to the class activation map where exact.

        Raises:
            InputError: No unit has the concept.
        """
        if concept is None:
            wanted = [name for name in self._names() if name != NO_CONCEPT]
        else:
            wanted = [concept] if isinstance(concept, str) else list(dict.fromkeys(concept))
        unknown = [name for name in wanted if name not in self.concepts]
        if unknown:
            raise InputError(
                f"no unit of layer {self.layer!r} has the concept {unknown[0]!r}; there are "
                + ", ".join(map(repr, self._names()))
            )
        units = [unit for name in wanted for unit in self._units_of(name)]
        return self.cells[:, units].sum(1, keepdim=True)

    def _names(self) -> list[str]:
        return list(dict.fromkeys(self.concepts))

    def _units_of(self, name: str) -> list[int]:
        return [unit for unit, concept in enumerate(self.concepts) if concept == name]
