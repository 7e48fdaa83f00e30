"""DeepLIFT's rescale rule as Captum has it, with its derivative."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_blackbox.fragility.victims.gradients import own_leaf
from captum_blackbox.fragility.victims.rerouting import Call, Rule, Signal, rerouted_gradient
from captum_blackbox.fragility.victims.settings import baseline_for, repeated
from captum_blackbox.fragility.victims.victim import Explained, Victim
from captum_blackbox.shapes import Labels


class DeepLiftVictim(Victim):
    r"""Multipliers between the image and a baseline, times their difference.

    A module that acts on each number sends on :math:`\Delta y / \Delta z` of what arrives, the
    differences of its output and input between image and baseline, and the gradient where
    :math:`|\Delta z| < \epsilon`. As in Captum that are the modules ReLU, LeakyReLU, ELU, Sigmoid,
    Tanh and Softplus; max pooling and softmax have rules of their own, everything else sends its
    gradient. It equals Captum's value, image by image: Captum's own softmax rule and its fallback
    under max pooling mix the images of a batch.

    Args:
        name: Of the explanation.
        network: The module explained.
        baselines: In any of Captum's forms.
        eps: Below which a difference does not count.
        multiply_by_inputs: Whether the map has the factor ``x - x0``.

    References:
        Shrikumar et al., "Learning important features through propagating activation differences",
        ICML 2017, sec. 3.5.1.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        *,
        baselines: object,
        eps: float,
        multiply_by_inputs: bool,
    ) -> None:
        super().__init__(name, network)
        self.baselines, self.eps = baselines, eps
        self.multiply_by_inputs = multiply_by_inputs

    def explain(
        self,
        images: Tensor,
        target: Labels,
        extra: tuple[Any, ...] = (),
        *,
        create_graph: bool = False,
    ) -> Explained:
        """Return the maps and the scores of the images."""
        rules: dict[nn.Module, Rule] = {
            module: partial(_RULES[type(module)], self.eps)
            for module in self.network.modules()
            if type(module) in _RULES
        }
        with torch.inference_mode(False), torch.enable_grad():
            leaf = own_leaf(images, create_graph)
            baseline = baseline_for(leaf, self.baselines)
            both = torch.cat([leaf, (torch.zeros_like(leaf) + baseline)])
            multipliers, scores = rerouted_gradient(
                self.network,
                self.forward,
                rules,
                both,
                target.repeat(2),
                repeated(extra, 2),
                create_graph=create_graph,
            )
            maps = multipliers[: len(leaf)]
            if self.multiply_by_inputs:
                maps = maps * (leaf - baseline)
        return Explained(maps if create_graph else maps.detach(), scores[: len(leaf)].detach())


class _Differences(NamedTuple):
    """Between images and baselines, for a batch that holds both; see :func:`_differences`."""

    given: Tensor
    made: Tensor
    are_small: Tensor


def _differences(call: Call, eps: float) -> _Differences:
    given, reference = call.given.chunk(2)
    made, made_reference = call.made.chunk(2)
    delta = given - reference
    are_small = delta.abs() < eps
    # 1 where the difference does not count, so that no derivative of a division by 0 is taken.
    safe = torch.where(are_small, torch.ones_like(delta), delta)
    return _Differences(_twice(safe), _twice(made - made_reference), _twice(are_small))


def _twice(half: Tensor) -> Tensor:
    return torch.cat([half, half])


def _rescale(eps: float, call: Call, create_graph: bool) -> Signal:
    change = _differences(call, eps)
    factor = torch.where(
        change.are_small, call.slope(create_graph=create_graph), change.made / change.given
    )
    if not create_graph:
        factor = factor.detach()
    return lambda arriving: arriving * factor


def _softmax(eps: float, call: Call, _create_graph: bool) -> Signal:
    """Less the mean over the classes of image and baseline, as Captum does for a single image."""
    change = _differences(call, eps)

    def signal(arriving: Tensor) -> Tensor:
        going = torch.where(
            change.are_small, call.vjp(arriving), arriving * change.made / change.given
        )
        first, second = going.flatten(1).chunk(2)
        mean = torch.cat([first, second], 1).mean(1)
        return going - _twice(mean).view(-1, *[1] * (going.dim() - 1))

    return signal


def _max_pool(eps: float, pool: Callable[..., Any], call: Call, _create_graph: bool) -> Signal:
    """Share what a window changed between the places of its maximum in image and baseline."""
    module: Any = call.module
    change = _differences(call, eps)
    made, reference = call.made.chunk(2)
    largest = torch.maximum(made, reference)
    shares = torch.cat([largest - reference, made - largest])
    _, places = pool(
        call.given.detach(),
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        module.ceil_mode,
        return_indices=True,
    )

    def signal(arriving: Tensor) -> Tensor:
        first, second = _put_back(arriving * shares, places, call.given.shape).chunk(2)
        return torch.where(
            change.are_small, call.vjp(arriving), _twice(first + second) / change.given
        )

    return signal


def _put_back(values: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """Return the values at their places; of several for one place the last, as unpooling does."""
    flat = places.flatten(2)
    numbers = torch.arange(flat.shape[2], device=flat.device).expand_as(flat)
    last = torch.full((*shape[:2], shape[2:].numel()), -1, device=flat.device)
    last = last.scatter_reduce(2, flat, numbers, "amax")
    back = values.flatten(2).gather(2, last.clamp(min=0)) * (last >= 0)
    return back.view(shape)


_RULES: Mapping[type[nn.Module], Callable[..., Signal]] = {
    **dict.fromkeys(
        [nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus],
        _rescale,
    ),
    nn.MaxPool1d: lambda eps, *call: _max_pool(eps, F.max_pool1d, *call),
    nn.MaxPool2d: lambda eps, *call: _max_pool(eps, F.max_pool2d, *call),
    nn.MaxPool3d: lambda eps, *call: _max_pool(eps, F.max_pool3d, *call),
    nn.Softmax: _softmax,
}
"""The modules that have a rule in Captum, which are told by their exact type."""
