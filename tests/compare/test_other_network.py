"""A method that is bound to another network than the one that is compared is noted, not refused."""

import copy

import pytest
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Occlusion, Saliency
from compared import images, network, quietly
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat

from captum_blackbox import RISE, BlackBox, DistilledLayerSumGradCAM, LayerSumGradCAM

NOTE = (
    "explains another Sequential than the one that is compared, which judges its maps; if that is "
    "not meant, give a class or a function of the model, or an object that was made for it"
)

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor", "ignore:Setting")


def ready(seed):
    made = network(seed).eval()
    made[1].inplace = False
    return made


MODEL, OTHER = ready(0), ready(1)
KINDS = {
    "gradients": IntegratedGradients,
    "noise": lambda model: NoiseTunnel(Saliency(model)),
    "occlusion": lambda model: OneWindow(model),
    "bound forward": lambda model: Saliency(model.forward),
    "attributor": lambda model: Gradient(model, EpsilonPlusFlat()),
    "ours": LayerSumGradCAM,
    "box": lambda model: RISE(BlackBox(model, output="logits"), masks=4, grid=2),
    "distilled": lambda model: DistilledLayerSumGradCAM(BlackBox(model, output="logits"), OTHER),
}


class OneWindow(Occlusion):
    def attribute(self, inputs, target=None):
        return super().attribute(inputs, (2, 4, 4), strides=(2, 4, 4), target=target)


def notes(model, given):
    found = quietly(model, images(2), {"it": given}, ["deletion"], target=1)
    assert found.failures == () and bool(found.values.isfinite().all())
    return found.notes


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_of_another_network_is_noted(kind):
    assert notes(MODEL, KINDS[kind](OTHER)) == (f"it: {NOTE}",)
    assert notes(MODEL, KINDS[kind](MODEL)) == ()


def test_a_function_that_ignores_its_model_is_noted():
    assert notes(MODEL, lambda model: Saliency(OTHER)) == (f"it: {NOTE}",)
    assert notes(MODEL, lambda model: Saliency(model)) == ()


def test_the_same_network_in_another_coat_is_not_noted():
    for same in (
        nn.Sequential(MODEL, nn.Softmax(1)),
        nn.DataParallel(MODEL),
        copy.deepcopy(MODEL),
    ):
        assert notes(MODEL, Saliency(same)) == ()


def test_a_network_in_a_black_box_is_known():
    box = BlackBox(MODEL, output="logits")
    assert notes(box, RISE(MODEL, masks=4, grid=2)) == ()
    assert notes(box, RISE(OTHER, masks=4, grid=2)) == (f"it: {NOTE}",)


def test_a_part_or_an_ensemble_is_another_network():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.members = nn.ModuleList([MODEL, OTHER])

        def forward(self, x):
            return torch.stack([member(x) for member in self.members]).mean(0)

    assert notes(Mean(), Saliency(MODEL)) == (f"it: {NOTE}",)
    (note,) = notes(MODEL, Saliency(Mean()))
    assert "explains another Mean than" in note


def test_networks_without_parameters_are_told_apart_by_what_they_print():
    def blurred(size):
        return nn.Sequential(nn.AvgPool2d(size), nn.Flatten())

    assert notes(blurred(4), Saliency(blurred(4))) == ()
    assert notes(blurred(4), Saliency(blurred(2))) == (f"it: {NOTE}",)


def test_of_what_can_only_be_called_nothing_is_known():
    assert notes(BlackBox(lambda x: MODEL(x), output="logits"), RISE(OTHER, masks=4, grid=2)) == ()
