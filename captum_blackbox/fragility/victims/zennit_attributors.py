"""Attributors of Zennit, with the derivative of their maps."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_blackbox._compat import zennit_default_output, zennit_noise
from captum_blackbox.errors import InputError, VictimError
from captum_blackbox.fragility.victims.victim import Explained, LossOfMaps, Victim, gradient_of
from captum_blackbox.shapes import Labels

_SEED = 0


class ZennitVictim(Victim):
    """An attributor made with ``create_graph=True``.

    What is sent back is 1 from the explained class, unless the attributor has an ``attr_output``.
    The noise of Zennit's SmoothGrad is drawn once, the same for every image.

    Args:
        name: Of the explanation.
        attributor: Zennit's ``Gradient`` or one derived from it.

    Raises:
        VictimError: It keeps no graph.
    """

    def __init__(self, name: str, attributor: Any) -> None:  # noqa: ANN401 - Zennit has no types
        super().__init__(name, attributor.model)
        if not getattr(attributor, "create_graph", False):
            raise VictimError(
                f"Zennit's {type(attributor).__name__} keeps no graph of its map; build it with "
                "create_graph=True if it takes that"
            )
        self.attributor = attributor
        self._noise = zennit_noise(attributor)

    def made(
        self,
        images: Tensor,
        target: Labels,
        extra: tuple[Any, ...],
        *,
        create_graph: bool,  # noqa: ARG002 - Zennit always keeps it
    ) -> Explained:
        """Return the maps, and the scores unless there are canonizers.

        Canonizers change weights while a composite is registered: to differentiate the maps with
        such a composite use :meth:`direction`, which keeps it registered.

        Raises:
            InputError: There are further arguments of the network.
        """
        if extra:
            raise InputError("Zennit's attributors pass one input to the network, and no more")

        def output(scores: Tensor) -> Tensor:
            if zennit_default_output(self.attributor):
                sent = F.one_hot(target, scores.shape[1]).to(scores)
            else:
                sent = self.attributor.attr_output_fn(scores)
            # Zennit keeps the graph of a rule only if what arrives requires gradients.
            return sent if sent.requires_grad else sent.detach().requires_grad_()

        if self._noise is None:
            scores, maps = self.attributor(images, output)
        else:
            scores, maps = self._mean_of_noisy(images, output)
        # The scores of a network whose weights canonizers have merged are a little off.
        is_merged = bool(getattr(self.attributor.composite, "canonizers", None))
        return Explained(maps, None if is_merged else scores)

    def direction(
        self, images: Tensor, target: Labels, loss: LossOfMaps, extra: tuple[Any, ...] = ()
    ) -> Tensor:
        """Return the gradient of ``loss`` of the maps.

        The composite stays registered meanwhile, so that the weights are those that made the map,
        with its hooks off, so that the derivative is the true one.
        """
        composite = self.attributor.composite
        if composite is None:
            return super().direction(images, target, loss, extra)
        if composite.handles:
            raise InputError(
                f"the composite of {self.name} is registered already; leave the attributor's "
                "context before it is attacked"
            )
        with torch.inference_mode(False), torch.enable_grad(), self.attributor:
            leaf = images.detach().clone().requires_grad_()
            maps = self.explain(leaf, target, extra, create_graph=True).maps
            if not maps.requires_grad:
                return torch.zeros_like(images)
            value = loss(maps)
            with composite.inactive():
                return gradient_of(value, leaf)

    def _mean_of_noisy(
        self, images: Tensor, output: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the scores and SmoothGrad as Zennit has it: its last pass is without noise."""
        level, passes = self._noise or (0.0, 1)
        spread = level * (images.amax((1, 2, 3), True) - images.amin((1, 2, 3), True))
        generator = torch.Generator().manual_seed(_SEED)
        composite = self.attributor.composite
        is_registered = composite is None or bool(composite.handles)
        total = torch.zeros_like(images)
        with nullcontext() if is_registered else self.attributor:
            for number in range(passes):
                noise = torch.randn(images.shape[1:], generator=generator).to(images)
                noisy = images + noise * spread * (number < passes - 1)
                scores, maps = self.attributor.grad(noisy, output)
                total = total + maps / passes
        return scores, total
