"""Integrated gradients, in as many steps at once as memory allows."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_blackbox._compat import path_integral
from captum_blackbox.errors import InputError
from captum_blackbox.fragility.victims.chunked import ChunkedVictim, Part, Sums
from captum_blackbox.fragility.victims.gradients import input_gradient
from captum_blackbox.fragility.victims.settings import baseline_for, repeated
from captum_blackbox.shapes import Labels


class IntegratedGradientsVictim(ChunkedVictim):
    r"""The path integral of the gradient from a baseline to the image.

    .. math:: (x - x_0) \odot \sum_k w_k \nabla z\big(x_0 + \alpha_k (x - x_0)\big)

    with Captum's weights and places for each of its methods. It equals Captum's value.

    Args:
        name: Of the explanation.
        network: The module explained.
        forward: Images → scores.
        settings: ``baselines``, ``n_steps``, ``method`` and ``internal_batch_size`` of Captum: the
            largest number of images in a pass. Without it all steps run at once.
        multiply_by_inputs: Whether the map has the factor ``x - x0``.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        forward: Callable[..., Tensor],
        settings: Mapping[str, Any],
        *,
        multiply_by_inputs: bool,
    ) -> None:
        super().__init__(name, network, forward)
        self.baselines = settings["baselines"]
        self.at_once: int | None = settings["internal_batch_size"]
        self.multiply_by_inputs = multiply_by_inputs
        if self.at_once is not None and self.at_once < 1:
            raise InputError(f"internal_batch_size is at least 1, got {self.at_once}")
        self.weights, self.places = path_integral(settings["method"], settings["n_steps"])

    def parts(self, images: Tensor, target: Labels, extra: tuple[Any, ...]) -> Sequence[Part]:
        """Return runs of steps, each of at most ``internal_batch_size`` images."""
        steps = len(self.places)
        width = steps if self.at_once is None else max(1, self.at_once // len(images))
        return [
            partial(self._part, slice(start, start + width), target, extra)
            for start in range(0, steps, width)
        ]

    def _part(
        self,
        steps: slice,
        target: Labels,
        extra: tuple[Any, ...],
        images: Tensor,
        create_graph: bool,
    ) -> Sums:
        baseline, places = baseline_for(images, self.baselines), self.places[steps]
        path = torch.cat([baseline + place * (images - baseline) for place in places])
        path = path if create_graph else path.detach().requires_grad_()
        scores = self.forward(path, *repeated(extra, len(places), len(images)))
        gradients = input_gradient(
            scores, target.repeat(len(places)), path, create_graph=create_graph
        )
        # Captum's weights are rounded to single precision, whatever the dtype.
        weights = torch.tensor(self.weights[steps], dtype=torch.float32, device=images.device)
        weighted = gradients.reshape(len(places), -1) * weights[:, None]
        return (weighted.reshape(len(places), *images.shape).sum(0).to(images.dtype),)

    def finished(self, images: Tensor, sums: Sums) -> Tensor:
        """Return the integral, times the way from the baseline."""
        (total,) = sums
        if not self.multiply_by_inputs:
            return total
        return total * (images - baseline_for(images, self.baselines))
