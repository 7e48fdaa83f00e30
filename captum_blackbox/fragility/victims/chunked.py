"""Explanations that are a sum over many passes, attacked in bounded memory."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_blackbox.fragility.victims.victim import (
    Explained,
    LossOfMaps,
    Victim,
    gradient_of,
    usable,
)
from captum_blackbox.shapes import Labels

Sums: TypeAlias = tuple[Tensor, ...]
Part: TypeAlias = Callable[[Tensor, bool], Sums]
"""Images and whether to keep the graph → what this part adds to each sum."""


class ChunkedVictim(Victim):
    r"""A map :math:`M(x, \sum_k p_k(x))` of sums over parts.

    The derivative of a loss :math:`L` needs no more memory than one part:

    .. math:: \frac{dL}{dx} = \frac{\partial L}{\partial x} +
        \sum_k \Big(\frac{\partial p_k}{\partial x}\Big)^T \frac{\partial L}{\partial s}

    where a first round over the parts gives :math:`s`, and so :math:`\partial L / \partial s`, and
    a second one the products. The last part is not computed again.
    """

    @abstractmethod
    def parts(self, images: Tensor, target: Labels, extra: tuple[Any, ...]) -> Sequence[Part]:
        """Return the parts for these images, at least one."""

    @abstractmethod
    def finished(self, images: Tensor, sums: Sums) -> Tensor:
        """Return the maps from the sums over all parts."""

    def made(
        self, images: Tensor, target: Labels, extra: tuple[Any, ...], *, create_graph: bool
    ) -> Explained:
        """Return the maps; with ``create_graph`` the graphs of all parts are kept."""
        sums: Sums | None = None
        for part in self.parts(images, target, extra):
            sums = _added(sums, _on_graph(part(images, create_graph), create_graph))
        return Explained(self.finished(images, sums or ()))

    def direction(
        self, images: Tensor, target: Labels, loss: LossOfMaps, extra: tuple[Any, ...] = ()
    ) -> Tensor:
        """Return the gradient of ``loss`` of the maps, in the memory of one part."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = images.detach().clone().requires_grad_()
            *parts, last = self.parts(leaf, usable(target), tuple(map(usable, extra)))
            sums: Sums | None = None
            for part in parts:
                sums = _added(sums, _on_graph(part(leaf, False), False))
            pieces = last(leaf, True)
            sums = _added(sums, _on_graph(pieces, False))
            for each in sums:
                each.requires_grad_()
            value = loss(self.finished(leaf, sums)).sum()
            *arriving, total = torch.autograd.grad(value, [*sums, leaf], allow_unused=True)
            total = torch.zeros_like(leaf) if total is None else total.detach()
            total = total + _sent_back(pieces, arriving, leaf)
            del pieces
            for part in parts:
                total = total + _sent_back(part(leaf, True), arriving, leaf)
        return total


def _on_graph(pieces: Sums, create_graph: bool) -> Sums:
    return pieces if create_graph else tuple(piece.detach() for piece in pieces)


def _added(sums: Sums | None, pieces: Sums) -> Sums:
    if sums is None:
        return pieces
    return tuple(total + piece for total, piece in zip(sums, pieces, strict=True))


def _sent_back(pieces: Sums, arriving: Sequence[Tensor | None], leaf: Tensor) -> Tensor:
    """Return the product of what arrives at the pieces and their derivative."""
    product = leaf.new_zeros(())
    for piece, each in zip(pieces, arriving, strict=True):
        if each is not None:
            product = product + (piece * each).sum()
    return gradient_of(product, leaf) if product.requires_grad else torch.zeros_like(leaf)
