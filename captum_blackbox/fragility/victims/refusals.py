"""Why an explanation cannot be attacked, and what to do."""

from typing import Any

import captum.attr as captum
from captum.attr import Attribution

from captum_blackbox.errors import VictimError

_REMEDY = (
    "attack another method, or pass a function (model, inputs, target) that returns its maps on "
    "the graph, made with create_graph=True"
)
_PERTURBS = "it asks the network about changed inputs and takes no gradient"
_RANDOM = (
    "it draws baselines anew in every call, so its map is no function of the image; use the same "
    "method with one baseline (IntegratedGradients, DeepLift)"
)
_NEURON = "it explains a neuron and not a class"
_LAYER = (
    "it takes grad_kwargs, but loses a part of the graph between its layer and the image, so that "
    "the derivative is wrong"
)
_TEXT = "it explains generated text"
_BASE = "it is a base class that explains nothing by itself"

_REASONS: dict[type[Attribution], str] = {
    captum.LRP: "its rules are hooks that keep no graph; use Zennit's Gradient with a composite "
    "such as EpsilonPlus and create_graph=True",
    captum.LayerLRP: "its rules are hooks that keep no graph",
    **dict.fromkeys(
        [
            captum.FeatureAblation,
            captum.FeaturePermutation,
            captum.Occlusion,
            captum.ShapleyValueSampling,
            captum.ShapleyValues,
            captum.Lime,
            captum.LimeBase,
            captum.KernelShap,
            captum.LayerFeatureAblation,
            captum.LayerFeaturePermutation,
            captum.NeuronFeatureAblation,
            captum.PerturbationAttribution,
        ],
        _PERTURBS,
    ),
    **dict.fromkeys(
        [
            captum.GradientShap,
            captum.DeepLiftShap,
            captum.LayerGradientShap,
            captum.LayerDeepLiftShap,
            captum.NeuronGradientShap,
            captum.NeuronDeepLiftShap,
        ],
        _RANDOM,
    ),
    **dict.fromkeys(
        [
            captum.NeuronConductance,
            captum.NeuronGradient,
            captum.NeuronIntegratedGradients,
            captum.NeuronDeepLift,
            captum.NeuronDeconvolution,
            captum.NeuronGuidedBackprop,
            captum.NeuronAttribution,
        ],
        _NEURON,
    ),
    **dict.fromkeys(
        [captum.LayerIntegratedGradients, captum.LayerConductance, captum.LayerDeepLift], _LAYER
    ),
    captum.LayerActivation: "what a layer puts out is no explanation of a class",
    captum.DataLoaderAttribution: "it explains a whole data set",
    **dict.fromkeys(
        [captum.LLMAttribution, captum.LLMGradientAttribution, captum.RemoteLLMAttribution], _TEXT
    ),
    **dict.fromkeys(
        [captum.Attribution, captum.GradientAttribution, captum.LayerAttribution], _BASE
    ),
}


def why_refused(kind: type[Attribution]) -> str | None:
    """Return why no attribution of a class of Captum can be attacked, ``None`` if not known."""
    return _REASONS.get(kind)


def reason_to_refuse(attribution: Attribution) -> str:
    """Return what to tell a user about an attribution that cannot be attacked."""
    kind = type(attribution)
    known = next((why_refused(each) for each in kind.__mro__ if each in _REASONS), _BASE)
    attribute = getattr(kind, "attribute", None)
    if attribute is not None and not attribute.__module__.startswith("captum."):
        known = "its attribute() is not Captum's and takes no grad_kwargs to keep the graph with"
    return f"{kind.__name__} cannot be attacked by its gradient: {known}; {_REMEDY}"


def check_untouched(attribution: Any) -> None:  # noqa: ANN401 - Captum has no types
    """Refuse an attribution whose gradient was replaced.

    Raises:
        VictimError: The gradient is not the one of Captum.
    """
    gradient = getattr(attribution, "gradient_func", None)
    if gradient is not None and not gradient.__module__.startswith("captum."):
        raise VictimError(
            f"the gradient_func of this {type(attribution).__name__} was replaced by "
            f"{gradient.__module__}.{gradient.__name__}, whose derivative is not known; {_REMEDY}"
        )
