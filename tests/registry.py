"""Every public class that explains: a new one joins all contract tests by one row."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import Saliency
from captum.log import log_usage

from captum_blackbox import (
    RISE,
    BlackBox,
    DistilledLayerSumGradCAM,
    InterpretationAttack,
    LayerSumGradCAM,
    MaskConcepts,
    NetworkDissection,
    PatternAttribution,
    PatternNet,
    Patterns,
)


@dataclass(frozen=True)
class Explainer:
    """How to make an explainer of a model, for the contract tests.

    Attributes:
        name: Of the class.
        make: Model → explainer.
        channels: Of a map: one for the image, or as many as it has.
        has_delta: Whether it says how much of the score its map leaves out.
    """

    name: str
    make: Any
    channels: int = 1
    has_delta: bool = False


def with_patterns(method: Any) -> Any:
    """Return what makes a method of a model, with patterns fitted to seeded noise."""

    def make(model: torch.nn.Module) -> Any:
        place = next(model.parameters())
        generator = torch.Generator().manual_seed(1)
        noise = torch.rand(24, 3, 12, 10, generator=generator)
        noise *= 4 * torch.rand(24, 1, 1, 1, generator=generator)  # some dark, some bright
        fitted = Patterns.fit(model, noise.to(place), regime="linear", show_progress=False)
        return method(model, fitted)

    return make


def dissected(model: torch.nn.Module) -> NetworkDissection:
    """Return a dissection of a model's last convolution, in which every unit detects something."""
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(16, 3, 12, 10, generator=generator)
    masks = (images[:, 0] * 2.999).long()  # three kinds of brightness
    concepts = MaskConcepts(images, masks, ["grey", "bright"], ignore=[0])
    last = [name for name, each in model.named_modules() if isinstance(each, torch.nn.Conv2d)][-1]
    method = NetworkDissection(model, last, quantile=0.2, iou_threshold=0.0, upsample="resize")
    method.dissect(concepts, show_progress=False)
    return method


def attacked(model: torch.nn.Module) -> InterpretationAttack:
    """Return an attack on the gradient that takes images of any brightness."""
    bounds = {"lower_bound": -math.inf, "upper_bound": math.inf}
    return FewSteps(Saliency(model), **bounds)


class FewSteps(InterpretationAttack):
    """The attack with two steps, for tests that do not ask how strong it is."""

    @log_usage(part_of_slo=False)
    def attribute(self, *args: Any, **kwargs: Any) -> Any:
        return super().attribute(*args, step_num=2, **kwargs)


EXPLAINERS = [
    Explainer("LayerSumGradCAM", LayerSumGradCAM),
    Explainer(
        "DistilledLayerSumGradCAM",
        lambda model: DistilledLayerSumGradCAM(BlackBox(model, output="logits"), model),
    ),
    Explainer("InterpretationAttack", attacked, channels=3),
    Explainer("NetworkDissection", dissected),
    Explainer("PatternNet", with_patterns(PatternNet), channels=3),
    Explainer("PatternAttribution", with_patterns(PatternAttribution), channels=3, has_delta=True),
    Explainer("RISE", lambda model: RISE(model, output="logits", masks=20, grid=4)),
]
