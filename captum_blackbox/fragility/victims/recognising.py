"""Which explanations can be attacked, and how."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import captum.attr as captum
import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_blackbox._compat import is_zennit_attributor
from captum_blackbox.errors import InputError, VictimError
from captum_blackbox.fragility.victims.attributions import GradKwargsVictim
from captum_blackbox.fragility.victims.deep_lift import DeepLiftVictim
from captum_blackbox.fragility.victims.functions import FunctionVictim
from captum_blackbox.fragility.victims.gradients import GradientVictim
from captum_blackbox.fragility.victims.guided import (
    GuidedGradCamVictim,
    GuidedVictim,
    deconvolved,
    guided,
)
from captum_blackbox.fragility.victims.integrated_gradients import IntegratedGradientsVictim
from captum_blackbox.fragility.victims.refusals import check_untouched, reason_to_refuse
from captum_blackbox.fragility.victims.settings import settings_of
from captum_blackbox.fragility.victims.smoothing import NoiseTunnelVictim
from captum_blackbox.fragility.victims.victim import Victim
from captum_blackbox.fragility.victims.zennit_attributors import ZennitVictim
from captum_blackbox.hooks import unwrapped


class _Asked(NamedTuple):
    """An attribution of Captum's make and what is known of it.

    Attributes:
        attribution: The instance.
        name: For tables.
        network: The module explained.
        forward: Images → scores.
        given: What the user passes to ``attribute``.
    """

    attribution: Any
    name: str
    network: nn.Module
    forward: Callable[..., Tensor]
    given: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """Return all settings of ``attribute``, checked."""
        return settings_of(type(self.attribution).attribute, self.given, self.name)


def victim_of(
    attribution: object,
    *,
    model: nn.Module | None = None,
    attribute_kwargs: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Victim:
    """Return an explanation as a function of the images that can be differentiated.

    Args:
        attribution: A Captum attribution (see ``docs/attackable.md``), one of ours, an attributor
            of Zennit made with ``create_graph=True``, or a function ``(model, inputs, target)``
            that returns maps on the graph.
        model: The module explained, where it cannot be read off ``attribution``.
        attribute_kwargs: What ``attribution.attribute`` is to be called with besides the images
            and the target: ``n_steps``, ``baselines``, ``nt_samples``, ``output_seed`` …
        name: For tables; by default that of the method.

    Raises:
        VictimError: The explanation has no derivative that could be trusted; the message says why
            and what to do.
        InputError: ``model`` is missing, or an argument is not known; the nearest is offered.

    Example:
        >>> from captum.attr import IntegratedGradients
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> victim_of(IntegratedGradients(model), attribute_kwargs={"n_steps": 9}).name
        'Integrated Gradients'
    """
    given = dict(attribute_kwargs or {})
    if is_zennit_attributor(attribution):
        return _zennit(attribution, given, name)
    if isinstance(attribution, Attribution):
        return _attribution(attribution, model, given, name)
    if callable(attribution) and not isinstance(attribution, type | nn.Module):
        return _function(attribution, model, given, name)
    raise VictimError(
        "expected an attribution of Captum, Zennit or this library, or a function (model, inputs, "
        f"target) -> maps, got {attribution!r}"
    )


def _attribution(
    attribution: Any,  # noqa: ANN401 - Captum has no types
    model: nn.Module | None,
    given: dict[str, Any],
    name: str | None,
) -> Victim:
    builder = _builder_of(attribution)
    if builder is None:
        raise VictimError(reason_to_refuse(attribution))
    if builder is _noise_tunnel:
        return _noise_tunnel(attribution, model, given, name)
    check_untouched(attribution)
    name = name or str(attribution.get_name())
    # A distilled student stands for the box that it explains.
    explained = getattr(attribution, "student", attribution.forward_func)
    forward = unwrapped(explained) if isinstance(explained, nn.Module) else explained
    network = forward if model is None else unwrapped(model)
    if not isinstance(network, nn.Module):
        raise InputError(
            f"{name} explains a {type(network).__name__}, whose layers cannot be seen; pass the "
            "module that it calls as model="
        )
    asked = _Asked(attribution, name, network, forward, given)
    victim: Victim = builder(asked)
    return victim


def _builder_of(attribution: Any) -> Callable[..., Victim] | None:  # noqa: ANN401
    """Return what makes a victim of an attribution, ``None`` if nothing does.

    A class derived from one of Captum's counts as that one as long as it explains as that does.
    """
    attribute = getattr(type(attribution), "attribute", None)
    if attribute is None:  # Captum's base classes only declare it
        return None
    for kind, builder in BUILDERS.items():
        if isinstance(attribution, kind) and attribute is kind.attribute:
            return builder
    is_of_captum = attribute.__module__.startswith("captum.")
    takes = "grad_kwargs" in inspect.signature(attribute).parameters
    return _with_grad_kwargs if takes and not is_of_captum else None


def _zennit(attributor: Any, given: Mapping[str, Any], name: str | None) -> Victim:  # noqa: ANN401
    if given:
        raise InputError(
            f"an attributor of Zennit takes its settings when it is built, and no {list(given)}"
        )
    if name is None:
        composite = getattr(attributor, "composite", None)
        of = "" if composite is None else f" ({type(composite).__name__})"
        name = f"Zennit {type(attributor).__name__}{of}"
    return ZennitVictim(name, attributor)


def _function(
    function: Callable[..., Any],
    model: nn.Module | None,
    given: Mapping[str, Any],
    name: str | None,
) -> Victim:
    name = name or str(getattr(function, "__name__", type(function).__name__))
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{name} is a function (model, inputs, target); pass the module it explains as model="
        )
    return FunctionVictim(name, unwrapped(model), function, given)


def _noise_tunnel(
    tunnel: Any,  # noqa: ANN401
    model: nn.Module | None,
    given: Mapping[str, Any],
    name: str | None,
) -> Victim:
    inner = tunnel.attribution_method
    theirs = settings_of(type(inner).attribute, {}, "")
    settings = settings_of(type(tunnel).attribute, given, "NoiseTunnel", also=theirs)
    own = settings_of(type(tunnel).attribute, {}, "")
    passed = {key: value for key, value in given.items() if key not in own}
    noisy = NoiseTunnelVictim(
        victim_of(inner, model=model, attribute_kwargs=passed),
        {key: settings[key] for key in own},
    )
    noisy.name = name or noisy.name
    return noisy


def _saliency(asked: _Asked) -> Victim:
    map_of = _magnitude if asked.settings()["abs"] else _signed
    return GradientVictim(asked.name, asked.network, asked.forward, map_of)


# Functions of the module, so that an attack can be pickled.
def _magnitude(_images: Tensor, gradient: Tensor) -> Tensor:
    return gradient.abs()


def _signed(_images: Tensor, gradient: Tensor) -> Tensor:
    return gradient


def _input_x_gradient(asked: _Asked) -> Victim:
    asked.settings()
    return GradientVictim(asked.name, asked.network, asked.forward, torch.mul)


def _integrated_gradients(asked: _Asked) -> Victim:
    return IntegratedGradientsVictim(
        asked.name,
        asked.network,
        asked.forward,
        asked.settings(),
        multiply_by_inputs=asked.attribution.multiplies_by_inputs,
    )


def _deep_lift(asked: _Asked) -> Victim:
    settings = asked.settings()
    if settings["custom_attribution_func"] is not None:
        raise InputError(
            "custom_attribution_func may do anything with the multipliers; pass a function (model, "
            "inputs, target) that returns its maps on the graph instead of DeepLift"
        )
    return DeepLiftVictim(
        asked.name,
        asked.network,
        baselines=settings["baselines"],
        eps=asked.attribution.eps,
        multiply_by_inputs=asked.attribution.multiplies_by_inputs,
    )


def _guided_backprop(asked: _Asked) -> Victim:
    asked.settings()
    return GuidedVictim(asked.name, asked.network, guided)


def _deconvolution(asked: _Asked) -> Victim:
    asked.settings()
    return GuidedVictim(asked.name, asked.network, deconvolved)


def _guided_grad_cam(asked: _Asked) -> Victim:
    settings = asked.settings()
    return GuidedGradCamVictim(
        asked.name,
        asked.network,
        asked.attribution.grad_cam,
        interpolate_mode=settings["interpolate_mode"],
        attribute_to_layer_input=settings["attribute_to_layer_input"],
    )


def _with_grad_kwargs(asked: _Asked) -> Victim:
    asked.settings()
    box = getattr(asked.attribution, "box", None)
    scored_by = asked.forward if box is None else box
    return GradKwargsVictim(asked.name, asked.network, asked.attribution, asked.given, scored_by)


BUILDERS: Mapping[Any, Callable[..., Victim]] = {
    captum.Saliency: _saliency,
    captum.InputXGradient: _input_x_gradient,
    captum.IntegratedGradients: _integrated_gradients,
    captum.DeepLift: _deep_lift,
    captum.GuidedBackprop: _guided_backprop,
    captum.Deconvolution: _deconvolution,
    captum.GuidedGradCam: _guided_grad_cam,
    captum.NoiseTunnel: _noise_tunnel,
    captum.LayerGradCam: _with_grad_kwargs,
    captum.LayerGradientXActivation: _with_grad_kwargs,
    captum.InternalInfluence: _with_grad_kwargs,
}
"""Captum's class → what makes a victim of an instance."""
