"""Every public class that explains: a new one joins all contract tests by one row."""

from dataclasses import dataclass
from typing import Any

from captum_blackbox import RISE, BlackBox, DistilledLayerSumGradCAM, LayerSumGradCAM


@dataclass(frozen=True)
class Explainer:
    """How to make an explainer of a model, for the contract tests.

    Attributes:
        name: Of the class.
        make: Model → explainer.
    """

    name: str
    make: Any


EXPLAINERS = [
    Explainer("LayerSumGradCAM", LayerSumGradCAM),
    Explainer(
        "DistilledLayerSumGradCAM",
        lambda model: DistilledLayerSumGradCAM(BlackBox(model, output="logits"), model),
    ),
    Explainer("RISE", lambda model: RISE(model, output="logits", masks=20, grid=4)),
]
