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
    """One line of the table."""

    name: str
    factory: Callable[..., Any]
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


def fitted(method):
    def make(model, data):
        return method(model, Patterns.fit(model, data, regime="positive", show_progress=False))

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
    method.distill(data, epochs=20, batch_size=32, seed=0, show_progress=False)
    return method


METHODS = [
    Method("Saliency", captum.attr.Saliency),
    Method("Saliency, signed (gradient)", captums(captum.attr.Saliency, abs=False)),
    Method("InputXGradient", captum.attr.InputXGradient),
    Method("IntegratedGradients", captums(captum.attr.IntegratedGradients, n_steps=100)),
    Method("GradientShap, black baseline", lambda model: (
        lambda inputs, target: captum.attr.GradientShap(model).attribute(
            inputs, torch.zeros_like(inputs), n_samples=20, target=target
        )
    )),
    Method("DeepLift", captum.attr.DeepLift),
    Method("LRP (epsilon rule)", captum.attr.LRP),
    Method("GuidedBackprop", captum.attr.GuidedBackprop),
    Method("Deconvolution", captum.attr.Deconvolution),
    Method("LayerGradCam, last convolution", grad_cam),
    Method("GuidedGradCam", guided_grad_cam),
    Method("FeatureAblation", captums(captum.attr.FeatureAblation, perturbations_per_eval=64), slow=True),
    Method(
        "Occlusion, 3×3 pixels",
        captums(captum.attr.Occlusion, sliding_window_shapes=(3, 3, 3), perturbations_per_eval=25),
    ),
    Method(
        "ShapleyValueSampling, 25 samples",
        captums(captum.attr.ShapleyValueSampling, n_samples=25, perturbations_per_eval=64),
        slow=True,
    ),
    Method("Zennit EpsilonPlus", zennits(EpsilonPlus)),
    Method("Zennit EpsilonAlpha2Beta1", zennits(EpsilonAlpha2Beta1)),
    Method("Zennit EpsilonGammaBox", zennits(box_composite)),
    Method("Zennit ExcitationBackprop", zennits(ExcitationBackprop)),
    Method("LayerSumGradCAM", LayerSumGradCAM),
    Method("DistilledLayerSumGradCAM", distilled, slow=True),
    Method("RISE, 1000 masks", lambda model: RISE(model, output="logits", masks=1000, grid=4)),
    Method("PatternNet", fitted(PatternNet)),
    Method("PatternAttribution", fitted(PatternAttribution)),
    Method("NetworkDissection", dissected),
]
