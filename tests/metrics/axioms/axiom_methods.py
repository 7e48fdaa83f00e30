"""The methods of docs/axioms.md: Captum's, Zennit's and ours, each made of a network."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import captum.attr
import torch
from captum.attr import LayerAttribution
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import (
    EpsilonAlpha2Beta1,
    EpsilonGammaBox,
    EpsilonPlus,
    ExcitationBackprop,
)

from captum_blackbox.concepts import MaskConcepts
from captum_blackbox.dissection import NetworkDissection
from captum_blackbox.patterns import PatternAttribution, PatternNet, Patterns
from captum_blackbox.student import RISE, DistilledLayerSumGradCAM, LayerSumGradCAM
from captum_blackbox.testing import small_network


@dataclass(frozen=True)
class Method:
    """One line of the table, and what is known without it."""

    name: str
    factory: Callable[..., Any]
    theory: str = ""
    slow: bool = False


def last_convolution(model):
    return [part for part in model.modules() if isinstance(part, nn.Conv2d)][-1]


def captums(method, **settings):
    return lambda model: partial(method(model).attribute, **settings)


def grad_cam(model):
    """As it is looked at: enlarged to the image, without what is negative."""
    method = captum.attr.LayerGradCam(model, last_convolution(model))

    def attribute(inputs, target):
        maps = method.attribute(inputs, target, relu_attributions=True)
        return LayerAttribution.interpolate(maps, inputs.shape[2:], "bilinear")

    return attribute


def guided_grad_cam(model):
    return captum.attr.GuidedGradCam(model, last_convolution(model))


def gradient_shap(model):
    def attribute(inputs, target):
        method = captum.attr.GradientShap(model)
        return method.attribute(inputs, torch.zeros_like(inputs), n_samples=20, target=target)

    return attribute


def zennits(composite):
    """The relevance of the explained score, sent from its value."""

    def make(model):
        def attribute(inputs, target):
            def sent(scores):
                chosen = nn.functional.one_hot(target, scores.shape[1]).to(scores)
                return scores * chosen

            with Gradient(model, composite()) as attributor:
                return attributor(inputs, sent)[1]

        return attribute

    return make


def box_composite():
    return EpsilonGammaBox(low=-6.0, high=6.0)


def fitted(method, **settings):
    def make(model, data):
        return method(model, Patterns.fit(model, data, show_progress=False, **settings))

    return make


def dissected(model, data):
    """Dissected by the brightness of pixels; every unit counts as a detector."""
    images = (data[:64].float() / 12 + 0.5).clamp(0, 1)
    masks = (images[:, 0] * 2.999).long()
    concepts = MaskConcepts(images, masks, ["grey", "bright"], ignore=[0])
    method = NetworkDissection(
        model,
        next(n for n, each in model.named_modules() if each is last_convolution(model)),
        quantile=0.2,
        iou_threshold=0.0,
        upsample="resize",
        preprocess=lambda x: x.to(data),
    )
    method.dissect(concepts, show_progress=False)
    return method


def distilled(model, data):
    """A box that is queried on 128 images, and always the same student to begin with."""
    student = small_network(99, units=8)
    method = DistilledLayerSumGradCAM(model, student)
    method.distill(data, epochs=60, batch_size=32, seed=0, show_progress=False)
    return method


METHODS = [
    Method("Saliency", captum.attr.Saliency, "The absolute gradient: no sum of scores."),
    Method(
        "Saliency, signed (gradient)",
        captums(captum.attr.Saliency, abs=False),
        "A function of the function, so implementation invariant; 0 where the score saturates, so "
        "not sensitive (Sundararajan et al. 2017, 2.1). Invariant to input shifts (Kindermans et "
        "al. 2017).",
    ),
    Method(
        "InputXGradient",
        captum.attr.InputXGradient,
        "Complete for piecewise linear networks without biases only; not invariant to input shifts "
        "(Kindermans et al. 2017).",
    ),
    Method(
        "IntegratedGradients",
        captums(captum.attr.IntegratedGradients, n_steps=50),
        "The path method that meets completeness, sensitivity, dummy, implementation invariance, "
        "linearity and symmetry (Sundararajan et al. 2017, 3 and 4); a black baseline does not "
        "move with the images, so not invariant to input shifts.",
    ),
    Method(
        "GradientShap, black baseline",
        gradient_shap,
        "Integrated gradients at 20 random steps: complete in expectation only.",
    ),
    Method(
        "DeepLift",
        captum.attr.DeepLift,
        "Complete (summation to delta). Differences do not follow the chain rule, so not "
        "implementation invariant (Sundararajan et al. 2017, 2.2), nor symmetric where the layers "
        "are not.",
    ),
    Method(
        "LRP (epsilon rule)",
        captum.attr.LRP,
        "Equals InputXGradient on ReLU networks (Ancona et al. 2018), so it has the same marks.",
    ),
    Method(
        "GuidedBackprop",
        captum.attr.GuidedBackprop,
        "Restores the image whatever the class (Nie et al. 2018), and hardly depends on the upper "
        "layers (Adebayo et al. 2018). Cutting negative gradients breaks what cancels.",
    ),
    Method(
        "Deconvolution",
        captum.attr.Deconvolution,
        "As GuidedBackprop, but without the gates of the forward pass, less of the image is left.",
    ),
    Method(
        "LayerGradCam, last convolution",
        grad_cam,
        "Depends on what a layer holds, not only on the function. Enlarging blurs: pixels that are "
        "never read get some of it.",
    ),
    Method("GuidedGradCam", guided_grad_cam, "A product: it fails where either factor fails."),
    Method(
        "FeatureAblation",
        captums(captum.attr.FeatureAblation, perturbations_per_eval=64),
        "A function of the function. Values that stand in for each other are both unimportant to "
        "it, so not complete.",
    ),
    Method(
        "Occlusion, 3×3 pixels",
        captums(captum.attr.Occlusion, sliding_window_shapes=(3, 3, 3), perturbations_per_eval=25),
        "A window also covers neighbours, which a pixel then answers for.",
    ),
    Method(
        "ShapleyValueSampling, 25 samples",
        captums(captum.attr.ShapleyValueSampling, n_samples=25, perturbations_per_eval=64),
        "The Shapley value meets all of Shapley's axioms; of 25 orders each adds up, but symmetry "
        "holds in expectation only.",
        slow=True,
    ),
    Method(
        "Zennit EpsilonPlus",
        zennits(EpsilonPlus),
        "Only positive parts count in a convolution: nothing cancels, and parts of a unit are "
        "seen.",
    ),
    Method(
        "Zennit EpsilonAlpha2Beta1",
        zennits(EpsilonAlpha2Beta1),
        "As EpsilonPlus, with negative parts of their own.",
    ),
    Method(
        "Zennit EpsilonGammaBox",
        zennits(box_composite),
        "As EpsilonPlus, softer; its box does not move with the images.",
    ),
    Method(
        "Zennit ExcitationBackprop",
        zennits(ExcitationBackprop),
        "Only positive weights count in every layer, so that a class hardly matters.",
    ),
    Method(
        "LayerSumGradCAM",
        LayerSumGradCAM,
        "A sum over layers: a layer more, an identity, is a map more.",
    ),
    Method(
        "DistilledLayerSumGradCAM",
        distilled,
        "Sees answers only, so implementation invariant for the same student, data and seed. What "
        "the student starts with stays in its maps as far as the answers leave it free.",
        slow=True,
    ),
    Method(
        "RISE, 1000 masks",
        lambda model: RISE(model, output="logits", masks=1000, grid=4),
        "Sees answers only. It explains the probability, not the score; a mask covers neighbours; "
        "masks are random, so symmetry holds in expectation only.",
        slow=True,
    ),
    Method(
        "PatternNet",
        fitted(PatternNet),
        "A picture of the signal, no decomposition of the score. The published estimator takes "
        "the mean of all outputs off, not that of its regime, so that patterns lean to the mean "
        "input: not invariant to input shifts, and nearly the same for every class on this noise.",
    ),
    Method(
        "PatternNet, centred in its regime",
        fitted(PatternNet, regime_centering=True),
        "With covariances within the regime (`regime_centering=True`) it is invariant to input "
        "shifts, as Kindermans et al. 2017 report.",
    ),
    Method(
        "PatternAttribution",
        fitted(PatternAttribution),
        "Conserves the score in linear networks without padding; a ReLU that is off loses what "
        "arrives, and so does padding.",
    ),
    Method(
        "PatternAttribution, centred in its regime",
        fitted(PatternAttribution, regime_centering=True),
        "On images of noise without correlations, as here, the first layer's pattern is its weight: "
        "it passes on w², whatever the class.",
    ),
    Method(
        "NetworkDissection",
        dissected,
        "The class activation map of the units that detect something: linear in the score.",
    ),
]
