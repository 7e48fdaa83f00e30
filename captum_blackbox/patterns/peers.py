"""Methods that patterns are compared with, refused where they would not be what they are called."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from captum.attr import Deconvolution, GuidedBackprop
from torch import Tensor, nn
from torchvision.models import ResNet
from zennit.attribution import Gradient
from zennit.canonizers import Canonizer, SequentialMergeBatchNorm
from zennit.composites import EpsilonPlusFlat
from zennit.torchvision import ResNetCanonizer
from zennit.types import AvgPool

from captum_blackbox._compat import select_targets
from captum_blackbox.errors import LayerError
from captum_blackbox.hooks import evaluating, intercepted, out_of_place, unwrapped
from captum_blackbox.patterns.operations import GATES, LINEAR_CALLS, is_sum, plain_name
from captum_blackbox.shapes import Target

_AVERAGES = {
    *(f"{kind}avg_pool{axes}d" for kind in ("", "adaptive_") for axes in (1, 2, 3)),
    "mean",
}


def lrp(model: nn.Module, inputs: Tensor, target: Target) -> Tensor:
    """Return the relevance of each input by Zennit's composite ``EpsilonPlusFlat``.

    The flat rule for the first layer, z-plus for other convolutions, epsilon for linear layers.
    BatchNorm is folded in while it runs. What arrives at the output is the explained score.

    Args:
        model: A network of modules; torchvision's ResNets may have additions.
        inputs: ``(N, …)``.
        target: The class to explain, in any of Captum's forms.

    Raises:
        LayerError: An addition or an average is no module that Zennit has a rule for, or a layer
            runs twice; it is named.

    References:
        Montavon et al., "Layer-wise relevance propagation: an overview", 2019.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False))
        >>> lrp(model, torch.rand(5, 3), 1).shape
        torch.Size([5, 3])
    """
    model = unwrapped(model)
    is_known = isinstance(model, ResNet)
    _check_for_lrp(_calls(model, inputs), dict(model.named_modules()), sums_are_known=is_known)
    canonizer: Canonizer = ResNetCanonizer() if is_known else SequentialMergeBatchNorm()
    composite = EpsilonPlusFlat(canonizers=[canonizer])

    def explained(scores: Tensor) -> Tensor:
        """Return what to send back: the explained score at its place, 0 elsewhere."""
        leaf = scores.detach().requires_grad_()
        with torch.enable_grad():
            chosen = select_targets(leaf, target)
            (place,) = torch.autograd.grad(chosen.sum(), leaf)
        return place * leaf.detach()

    with evaluating(model), Gradient(model, composite) as attributor:
        _, relevance = attributor(inputs.detach().clone(), explained)
    found: Tensor = relevance.detach()
    return found


def deconvnet(model: nn.Module, inputs: Tensor, target: Target) -> Tensor:
    """Return Captum's ``Deconvolution``: at a ReLU, what arrives passes where it is positive.

    Raises:
        LayerError: An activation is no ``nn.ReLU``, which Captum would take for the identity.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> deconvnet(model, torch.rand(5, 3), 1).shape
        torch.Size([5, 3])
    """
    return _by_captum(Deconvolution, model, inputs, target)


def guided_backprop(model: nn.Module, inputs: Tensor, target: Target) -> Tensor:
    """Return Captum's ``GuidedBackprop``: as :func:`deconvnet`, and where the ReLU is on, too.

    Raises:
        LayerError: An activation is no ``nn.ReLU``, which Captum would not change.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> guided_backprop(model, torch.rand(5, 3), 1).shape
        torch.Size([5, 3])
    """
    return _by_captum(GuidedBackprop, model, inputs, target)


def _by_captum(
    method: Callable[[nn.Module], Any], model: nn.Module, inputs: Tensor, target: Target
) -> Tensor:
    model = unwrapped(model)
    modules = dict(model.named_modules())
    for call in _calls(model, inputs):
        if call.function in GATES and not isinstance(modules[call.path], nn.ReLU):
            raise LayerError(
                f"Captum changes the gradient of nn.ReLU modules, and {_where(call, modules)} is "
                "none"
            )
    with evaluating(model), out_of_place(model), _without_captum_notices():
        own = inputs.detach().clone().requires_grad_()
        found: Tensor = method(model).attribute(own, target=target)
    return found.detach()


@contextmanager
def _without_captum_notices() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
        yield


def _check_for_lrp(
    calls: Sequence["_Call"], modules: Mapping[str, nn.Module], *, sums_are_known: bool
) -> None:
    ran: set[str] = set()
    for call in calls:
        if call.is_sum and not sums_are_known:
            raise LayerError(f"Zennit has no rule for {_where(call, modules)}, which is no module")
        if call.function in _AVERAGES and not isinstance(modules[call.path], AvgPool):
            raise LayerError(f"Zennit has no rule for {_where(call, modules)}, which is no module")
        if call.function in LINEAR_CALLS:
            if call.path in ran:
                raise LayerError(f"{call.path!r} runs twice, and Zennit keeps one input of it")
            ran.add(call.path)


class _Call(NamedTuple):
    """A function of torch, the module that called it, and whether it adds two branches."""

    path: str
    function: str
    is_sum: bool


def _calls(model: nn.Module, inputs: Tensor) -> list[_Call]:
    """Return what one forward pass on the first input calls."""
    found: list[_Call] = []

    def handle(
        path: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:  # noqa: ANN401
        name = plain_name(function, args, kwargs)
        found.append(_Call(path, name, is_sum(function, args, kwargs)))
        return function(*args, **kwargs)

    with torch.no_grad(), evaluating(model), intercepted(model, lambda: handle):
        model(inputs[:1])
    return found


def _where(call: _Call, modules: Mapping[str, nn.Module]) -> str:
    kind = type(modules[call.path]).__name__
    return f"{call.function} in {call.path or 'the model itself'!r} ({kind})"
