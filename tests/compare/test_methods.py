"""What may be given as a method goes through unchanged."""

import pytest
import torch
from captum.attr import (
    DeepLift,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from compared import images, maps_of, network, quietly
from networks import State
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat

from captum_blackbox import RISE, BlackBox, LayerSumGradCAM, PatternAttribution, Patterns
from captum_blackbox.compare import READY, Configured, Method
from captum_blackbox.compare.method_kinds import planned
from captum_blackbox.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor", "ignore:Setting")

TARGETS = torch.tensor([0, 1, 2])


@pytest.fixture
def model():
    # Captum's hooks and an in-place ReLU: `compare` takes care of that, a direct call does not.
    made = network().eval()
    made[1].inplace = False
    return made


def assert_same_maps(model, given, expected):
    maps, found = maps_of(model, images(), {"it": given}, target=TARGETS)
    assert found.failures == ()
    torch.testing.assert_close(maps["it"], expected.detach(), rtol=1e-5, atol=1e-7)
    assert expected.abs().max() > 0


@pytest.mark.parametrize("kind", [Saliency, IntegratedGradients, DeepLift])
def test_classes_of_captum_as_class_object_and_function(model, kind):
    expected = kind(model).attribute(images(), target=TARGETS)
    assert_same_maps(model, kind, expected)
    assert_same_maps(model, kind(model), expected)
    assert_same_maps(model, lambda model: kind(model), expected)
    assert_same_maps(model, lambda x, y: kind(model).attribute(x, target=y), expected)


def test_settings_go_along_with_an_attribution(model):
    seven, eight = (Configured(IntegratedGradients(model), {"n_steps": n}) for n in (7, 8))
    expected = IntegratedGradients(model).attribute(images(), target=TARGETS, n_steps=7)
    assert_same_maps(model, seven, expected)
    plans = planned({"a": seven, "b": eight}, has_data=False)
    assert plans[0].identity != plans[1].identity
    held = Configured(IntegratedGradients(model), {"additional_forward_args": (object(), 1.5)})
    assert planned({"a": held}, has_data=False)[0].identity.endswith("('object', 1.5)}")
    box = BlackBox(lambda x: model(x).detach(), output="logits")
    closed = quietly(box, images(), {"closed": Configured(Saliency(box)), "r": "random"})
    assert [each.reason for each in closed.failures] == [
        "needs gradients, and this model can only be called"
    ]


@pytest.mark.parametrize(
    ("given", "settings", "said"),
    [
        (IntegratedGradients, {}, "got the class IntegratedGradients; for a class write lambda"),
        (len, {}, "Configured takes an attribution, an object with a method attribute, got a built"),
        (Saliency(nn.ReLU()), {"target": 1}, "each call brings its target; leave it out of the"),
    ],
)  # fmt: skip
def test_what_cannot_be_configured_is_refused(given, settings, said):
    with pytest.raises(InputError, match=said):
        Configured(given, settings)


def test_a_method_brings_its_costs_along(model):
    other = network(seed=3).eval()
    method = Method("inner", lambda x, y: other(x)[:, :1, None, None] * x, networks=(other,))
    found = quietly(model, images(), {"outer": method})
    assert found.methods == ("outer",) and found.cost("outer").forward == 3


def test_layer_maps_are_enlarged(model):
    small = LayerGradCam(model, model[2]).attribute(images(), target=TARGETS)
    pooled = nn.functional.avg_pool2d(small, 2)
    expected = LayerAttribution.interpolate(pooled, (8, 8), "bilinear")
    by_class = {int(target): pooled[i] for i, target in enumerate(TARGETS)}

    def of_class(x, y):
        return torch.stack([by_class[int(target)] for target in y])

    assert_same_maps(model, of_class, expected)
    assert_same_maps(model, LayerGradCam(model, model[2]), small)


def test_our_own(model):
    assert_same_maps(model, LayerSumGradCAM, LayerSumGradCAM(model).attribute(images(), TARGETS))
    rise = RISE(model, masks=20, grid=4)
    assert_same_maps(model, rise, rise.attribute(images(), TARGETS))


def test_zennit_by_composite_class_and_attributor(model):
    def explained(scores):
        return nn.functional.one_hot(TARGETS, 3) * scores.detach()

    with Gradient(model, EpsilonPlusFlat()) as attributor:
        _, expected = attributor(images(), explained)
    assert_same_maps(model, EpsilonPlusFlat(), expected)
    assert_same_maps(model, EpsilonPlusFlat, expected)
    assert_same_maps(model, Gradient(model, EpsilonPlusFlat()), expected)
    assert_same_maps(model, lambda model: Gradient(model, EpsilonPlusFlat()), expected)


def test_every_ready_method_explains_and_leaves_the_model_alone():
    model, given = network().train(), images()
    before, copy = State(model), given.clone()
    maps, found = maps_of(model, given, list(READY), target=TARGETS, data=images(16, seed=5))
    assert found.failures == ()
    assert State(model).differences(before) == [] and torch.equal(given, copy)
    assert list(maps) == list(READY)
    for name, each in maps.items():
        assert each.shape[0] == 3 and each.shape[2:] == (8, 8), name
        assert bool(each.any()), name
    different = {tuple(each.double().mean(1).flatten().tolist()) for each in maps.values()}
    assert len(different) == len(READY)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_smoothgrad_of_a_network_in_low_precision(dtype):
    exact, _ = maps_of(network(), images(), ["smoothgrad"], target=TARGETS)
    low, found = maps_of(network().to(dtype), images().to(dtype), ["smoothgrad"], target=TARGETS)
    assert found.failures == ()
    # Other images have other seeds, so only what noise leaves alone is alike.
    assert low["smoothgrad"].isfinite().all() and low["smoothgrad"].abs().max() > 0
    ratio = low["smoothgrad"].float().mean() / exact["smoothgrad"].mean()
    assert 0.5 < ratio < 2


def test_ready_methods_are_those_of_captum():
    model = network().eval()
    model[1].inplace = False
    ready, _ = maps_of(
        model, images(), ["saliency", "grad_cam", "layer_sum", "deeplift"], target=TARGETS
    )
    torch.testing.assert_close(ready["saliency"], Saliency(model).attribute(images(), TARGETS))
    torch.testing.assert_close(
        ready["grad_cam"],
        LayerGradCam(model, model[2]).attribute(images(), TARGETS, relu_attributions=True).detach(),
    )
    torch.testing.assert_close(
        ready["layer_sum"], LayerSumGradCAM(model).attribute(images(), TARGETS)
    )
    torch.testing.assert_close(
        ready["deeplift"], DeepLift(model).attribute(images(), target=TARGETS).detach()
    )


@pytest.mark.filterwarnings("ignore:.*patterns that are huge")
def test_patterns_are_fitted_as_published_and_centred():
    model, data = network(5).eval(), images(16, seed=5) - 0.5
    names = {"pattern_attribution": False, "pattern_attribution_centred": True}
    ready, _ = maps_of(model, images(), list(names), target=TARGETS, data=data)
    for name, is_centred in names.items():
        patterns = Patterns.fit(model, data, regime_centering=is_centred, show_progress=False)
        expected = PatternAttribution(model, patterns).attribute(images(), TARGETS)
        torch.testing.assert_close(ready[name], expected)
    assert not torch.allclose(*ready.values())


def test_the_layer_of_grad_cam_is_the_convolution_that_runs_last():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Conv2d(3, 4, 3, padding=1)  # registered first
            self.first = nn.Conv2d(2, 3, 3, padding=1)
            self.linear = nn.Linear(4, 3)

        def forward(self, x):
            return self.linear(self.last(self.first(x).relu()).relu().mean((2, 3)))

    model = Crossed()
    maps, _ = maps_of(model, images(), ["grad_cam"], target=TARGETS)
    expected = LayerGradCam(model, model.last).attribute(images(), TARGETS, relu_attributions=True)
    torch.testing.assert_close(maps["grad_cam"], expected.detach())


def test_a_black_box_gets_what_needs_no_gradient():
    model = network().eval()
    box = BlackBox(lambda x: model(x), output="logits")
    maps, found = maps_of(box, images(), list(READY), data=images(16, seed=5))
    assert sorted(maps) == ["distilled_layer_sum", "occlusion", "random", "rise"]
    assert all(
        (each.metric, each.image, each.is_applicable) == (None, None, False)
        for each in found.failures
    )
    assert {each.method for each in found.failures} == set(READY) - set(maps)


def test_what_needs_gradients_is_not_applicable_to_a_black_box():
    model = network().eval()
    box = BlackBox(lambda x: model(x), output="logits")
    methods = {
        "class": Saliency,
        "function": lambda model: Saliency(model),
        "composite": EpsilonPlusFlat(),
        "fine": Occlusion,
        "own": Saliency(model),
    }
    methods["fine"] = lambda box: RISE(box, masks=5, grid=2)
    maps, found = maps_of(box, images(), methods)
    assert sorted(maps) == ["fine", "own"]
    assert {each.reason for each in found.failures} == {
        "needs gradients, and this model can only be called"
    }


def test_noise_tunnel_goes_through(model):
    maps, found = maps_of(model, images(), {"noisy": NoiseTunnel(Saliency(model))})
    assert found.failures == () and maps["noisy"].shape == (3, 2, 8, 8)


def test_a_module_in_a_box_can_only_be_called():
    found = quietly(BlackBox(network(), output="logits"), images(), ["saliency", "random"])
    assert [each.method for each in found.failures] == ["saliency"]


def test_a_method_may_write_to_its_images_and_need_gradients_where_none_are_kept(model):
    def own_gradient(x, y):
        leaf = x.requires_grad_()
        scores = model(leaf).gather(1, y[:, None]).sum()
        (found,) = torch.autograd.grad(scores, leaf)
        x.detach().zero_()
        return found

    method, given = Method("own", own_gradient), images()
    with torch.no_grad():
        found = method(given, TARGETS)
    assert torch.equal(given, images()) and not given.requires_grad
    torch.testing.assert_close(found.abs(), Saliency(model).attribute(images(), TARGETS))
