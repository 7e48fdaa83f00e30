"""DeepLIFT's rescale rule as Captum has it, with its derivative."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_blackbox.fragility.surrogate import paired_sharpness
from captum_blackbox.fragility.victims.gradients import input_gradient
from captum_blackbox.fragility.victims.rerouting import Signal, SignalRule, rerouted
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
    under max pooling mix the images of a batch. Also as in Captum, the rule of max pooling counts
    for little behind an activation, which goes by what arrived before that rule.

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

    def made(
        self, images: Tensor, target: Labels, extra: tuple[Any, ...], *, create_graph: bool
    ) -> Explained:
        """Return the maps and the scores of the images."""
        rules: dict[nn.Module, SignalRule] = {
            module: partial(_RULES[type(module)], self.eps)
            for module in self.network.modules()
            if type(module) in _RULES
        }
        baseline = baseline_for(images, self.baselines)
        both = torch.cat([images, torch.zeros_like(images) + baseline])
        with rerouted(rules), paired_sharpness(len(both)):
            scores = self.forward(both, *repeated(extra, 2, len(images)))
            multipliers = input_gradient(scores, target.repeat(2), both, create_graph=create_graph)
        maps = multipliers[: len(images)]
        if self.multiply_by_inputs:
            maps = maps * (images - baseline)
        return Explained(maps, scores[: len(images)])


class _Differences(NamedTuple):
    """Between images and baselines, each twice, for a batch that holds both.

    Attributes:
        given: Of the input, 1 where it does not count.
        made: Of the output.
        are_small: Where that of the input does not count.
    """

    given: Tensor
    made: Tensor
    are_small: Tensor


def _differences(eps: float, given: Tensor, made: Tensor) -> _Differences:
    delta = _between(given)
    are_small = delta.abs() < eps
    # No derivative of a division by 0 is taken.
    safe = torch.where(are_small, torch.ones_like(delta), delta)
    return _Differences(safe, _between(made), are_small)


def _between(both: Tensor) -> Tensor:
    image, baseline = both.chunk(2)
    return _twice(image - baseline)


def _twice(half: Tensor) -> Tensor:
    return torch.cat([half, half])


def _rescale(eps: float, _module: nn.Module, given: Tensor, made: Tensor) -> Signal:
    change = _differences(eps, given, made)

    def signal(going: Tensor, arriving: Tensor) -> Tensor:
        return torch.where(change.are_small, going, arriving * change.made / change.given)

    return signal


def _softmax(eps: float, module: nn.Module, given: Tensor, made: Tensor) -> Signal:
    """Less the mean over the classes of image and baseline, as Captum does for a single image."""
    rescale = _rescale(eps, module, given, made)

    def signal(going: Tensor, arriving: Tensor) -> Tensor:
        sent = rescale(going, arriving)
        mean = torch.cat(sent.flatten(1).chunk(2), 1).mean(1)
        return sent - _twice(mean).view(-1, *[1] * (sent.dim() - 1))

    return signal


def _max_pool(
    pool: Callable[..., Any],
    eps: float,
    module: Any,  # noqa: ANN401 - its settings are not typed
    given: Tensor,
    made: Tensor,
) -> Signal:
    """Share what a window changed between the places of its maximum in image and baseline."""
    change = _differences(eps, given, made)
    image, baseline = made.chunk(2)
    largest = torch.maximum(image, baseline)
    shares = torch.cat([largest - baseline, image - largest])
    size = given.shape
    _, places = pool(
        given.detach(),
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        module.ceil_mode,
        return_indices=True,
    )

    def signal(going: Tensor, arriving: Tensor) -> Tensor:
        first, second = _put_back(arriving * shares, places, size).chunk(2)
        return torch.where(change.are_small, going, _twice(first + second) / change.given)

    return signal


def _put_back(values: Tensor, places: Tensor, size: torch.Size) -> Tensor:
    """Return the values at their places; of several for one place the last, as unpooling does."""
    flat = places.flatten(2)
    numbers = torch.arange(flat.shape[2], device=flat.device).expand_as(flat)
    last = torch.full((*size[:2], size[2:].numel()), -1, device=flat.device)
    last = last.scatter_reduce(2, flat, numbers, "amax")
    back = values.flatten(2).gather(2, last.clamp(min=0)) * (last >= 0)
    return back.view(size)


_RULES: Mapping[type[nn.Module], Callable[..., Signal]] = {
    **dict.fromkeys(
        [nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus],
        _rescale,
    ),
    nn.MaxPool1d: partial(_max_pool, F.max_pool1d),
    nn.MaxPool2d: partial(_max_pool, F.max_pool2d),
    nn.MaxPool3d: partial(_max_pool, F.max_pool3d),
    nn.Softmax: _softmax,
}
"""The modules that have a rule in Captum, which are told by their exact type."""
