"""Explainers as Quantus calls them, also with models that it makes up."""

import copy
import warnings

import numpy as np
import pytest
import quantus
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Saliency
from networks import State
from registry import EXPLAINERS
from torch import nn

from captum_blackbox import (
    BlackBox,
    DistilledLayerSumGradCAM,
    LayerSumGradCAM,
    PatternAttribution,
    Patterns,
)
from captum_blackbox.errors import ArtifactError, InputError, TargetError
from captum_blackbox.quantus import explain_func

IMAGES = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(3)).numpy()
CLASSES = np.array([0, 1])


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3, bias=False),
    )
    with torch.no_grad():
        model[-1].weight.abs_()  # maps with something positive in them
        model[2].weight.abs_()
    return model.eval()


def randomised(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.copy_(torch.rand_like(weight) - 0.3)
    return other


@pytest.mark.parametrize("reduce", ["mean", "sum", None])
def test_it_is_the_attribution_with_its_channels_reduced(reduce):
    model = network()
    expected = Saliency(model).attribute(
        torch.tensor(IMAGES, requires_grad=True), torch.tensor(CLASSES)
    )
    if reduce:
        expected = getattr(expected, reduce)(1, keepdim=True)
    found = explain_func(Saliency, reduce=reduce)(model=model, inputs=IMAGES, targets=CLASSES)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-6)


def test_layer_maps_have_the_size_of_the_image():
    explain = explain_func(lambda model: LayerGradCam(model, model[4]))
    assert explain(model=network(), inputs=IMAGES, targets=CLASSES).shape == (2, 1, 12, 10)


def test_every_model_gets_an_explanation_of_its_own():
    explain = explain_func(LayerSumGradCAM, layers=["0"])
    model, other = network(), randomised(network())
    before = State(model)
    first = explain(model=model, inputs=IMAGES, targets=CLASSES)
    second = explain(model=other, inputs=IMAGES, targets=CLASSES)
    again = explain(model=model, inputs=IMAGES, targets=CLASSES)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 1e-3
    direct = LayerSumGradCAM(other, "0").attribute(torch.tensor(IMAGES), torch.tensor(CLASSES))
    np.testing.assert_allclose(second, direct.numpy(), rtol=1e-6)
    assert State(model).differences(before) == []


def test_further_keywords_reach_attribute_and_those_of_quantus_do_not():
    explain = explain_func(IntegratedGradients)
    call = {"model": network(), "inputs": IMAGES, "targets": CLASSES}
    coarse = explain(**call, n_steps=1, device="cpu", method="IntegratedGradients")
    fine = explain(**call, n_steps=9)
    assert np.abs(coarse - fine).max() > 0
    with pytest.raises(TypeError, match="n_stops"):
        explain(**call, n_stops=3)


def test_inputs_take_the_type_of_the_model():
    found = explain_func(Saliency)(network().double(), IMAGES, CLASSES)
    assert found.dtype == np.float64
    found = explain_func(Saliency)(network(), IMAGES.astype(np.float64), torch.tensor(CLASSES))
    assert found.dtype == np.float32
    one = explain_func(Saliency)(network(), IMAGES, np.array([1]))
    assert one.shape == (2, 1, 12, 10)
    for dtype in (np.int32, np.uint8, np.float64):
        again = explain_func(Saliency)(network(), IMAGES, CLASSES.astype(dtype))
        np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps_of_half_precision_are_in_float32(dtype):
    found = explain_func(Saliency)(network().to(dtype), IMAGES, CLASSES)
    assert found.dtype == np.float32 and np.abs(found).max() > 0


def test_it_explains_where_gradients_are_switched_off():
    class Gradient:
        def __init__(self, model):
            self.model = model

        def attribute(self, x, target):
            leaf = x.clone().requires_grad_()
            score = self.model(leaf).gather(1, target[:, None]).sum()
            return torch.autograd.grad(score, leaf)[0].abs()

    expected = explain_func(Saliency)(network(), IMAGES, CLASSES)
    with torch.no_grad():
        found = explain_func(Gradient)(network(), IMAGES, CLASSES)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def fitted(model):
    data = torch.rand(40, 3, 12, 10, generator=torch.Generator().manual_seed(8)) - 0.2
    return Patterns.fit(model, data, regime="linear", show_progress=False)


def test_patterns_of_another_model_are_refused_or_fitted_again():
    model, other = network(), randomised(network())
    patterns = fitted(model)
    explain = explain_func(PatternAttribution, patterns=patterns)
    first = explain(model=model, inputs=IMAGES, targets=CLASSES)
    explain(model=copy.deepcopy(model), inputs=IMAGES, targets=CLASSES)
    with pytest.raises(ArtifactError) as caught:
        explain(model=other, inputs=IMAGES, targets=CLASSES)
    assert "these patterns were fitted to another model" in str(caught.value)
    assert "for Quantus give refit=…" in str(caught.value)

    calls = []

    def refit(model):
        calls.append(model)
        return {"patterns": fitted(model)}

    again = explain_func(PatternAttribution, refit=refit)
    np.testing.assert_allclose(again(model, IMAGES, CLASSES), first, rtol=1e-5)
    own = PatternAttribution(other, fitted(other)).attribute(
        torch.tensor(IMAGES), torch.tensor(CLASSES)
    )
    for _ in range(2):
        found = again(other, IMAGES, CLASSES)
        np.testing.assert_allclose(found, own.mean(1, keepdim=True).numpy(), rtol=1e-5)
    assert calls == [model, other]
    both = explain_func(PatternAttribution, refit=refit, patterns=patterns)  # the fresh ones count
    np.testing.assert_array_equal(both(other, IMAGES, CLASSES), found)


def test_a_student_belongs_to_one_model():
    model, other, student = network(), randomised(network()), network(seed=5)
    with pytest.raises(InputError) as caught:
        explain_func(DistilledLayerSumGradCAM, student=student)
    assert str(caught.value).startswith("'student' was fitted to one model, and Quantus may come")
    explain = explain_func(DistilledLayerSumGradCAM, student=student, fitted_to=model)
    assert explain(model, IMAGES, CLASSES).shape == (2, 1, 12, 10)
    with pytest.raises(ArtifactError) as caught:
        explain(other, IMAGES, CLASSES)
    assert str(caught.value).startswith("the arguments ['student'] were fitted to another model")
    refit = explain_func(
        DistilledLayerSumGradCAM, refit=lambda model: {"student": student if model is other else 3}
    )
    assert refit(other, IMAGES, CLASSES).shape == (2, 1, 12, 10)


def test_an_explainer_that_ignores_the_model_is_refused():
    model, other = network(), randomised(network())
    mine = Saliency(model)
    explain = explain_func(lambda model: mine)
    explain(model, IMAGES, CLASSES)
    with pytest.raises(InputError, match="the Saliency explains another model than the one that Q"):
        explain(other, IMAGES, CLASSES)
    explain_func(lambda m: Saliency(nn.Sequential(m, nn.Softmax(1))))(model, IMAGES, CLASSES)
    part = explain_func(lambda m: Saliency(m[0]))  # of what Quantus has a layer around
    assert part(nn.Sequential(model, nn.Softmax(1)), IMAGES, CLASSES).shape == (2, 1, 12, 10)
    with pytest.raises(InputError, match="another model"):
        explain_func(lambda m: Saliency(m[:]))(model, IMAGES, CLASSES)  # another module


@pytest.mark.usefixtures("as_users_call")
def test_bad_usage():
    with pytest.raises(InputError, match="reduce is one of 'mean', 'sum', got 'max'"):
        explain_func(Saliency, reduce="max")
    with pytest.raises(TargetError, match="expected one target or 2 of them"):
        explain_func(Saliency)(network(), IMAGES, np.array([0, 1, 2]))


# Metric → settings that suit images of 12 x 10.
METRICS = {
    "Complexity": {},
    "Sparseness": {},
    "EffectiveComplexity": {},
    "Completeness": {},
    "InputInvariance": {},
    "FaithfulnessEstimate": {"features_in_step": 12},
    "MonotonicityCorrelation": {"features_in_step": 12, "nr_samples": 3},
    "PixelFlipping": {"features_in_step": 12},
    "PointingGame": {},
    "RelevanceMassAccuracy": {},
    "RelevanceRankAccuracy": {},
    "AttributionLocalisation": {},
    "TopKIntersection": {"k": 20},
    "AUC": {},
    "MaxSensitivity": {"nr_samples": 2},
    "LocalLipschitzEstimate": {"nr_samples": 2},
    "MPRT": {"return_average_correlation": True, "disable_warnings": True},
}


@pytest.mark.parametrize("explainer", EXPLAINERS, ids=lambda each: each.name)
def test_the_metrics_of_quantus_run_on_each_of_our_classes(explainer):
    masks = np.zeros((2, 1, 12, 10), dtype=bool)
    masks[:, :, 2:9, 3:8] = True
    model = network()
    seen = []

    def make(model):
        seen.append(model)
        return explainer.make(model)

    before = State(model)
    maps = explain_func(make)(model, IMAGES, CLASSES)
    for name, settings in METRICS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = getattr(quantus, name)(**{"disable_warnings": True, **settings})(
                model=model,
                x_batch=IMAGES,
                y_batch=CLASSES,
                a_batch=maps,
                s_batch=masks,
                explain_func=explain_func(make),
                explain_func_kwargs={},
                channel_first=True,
            )
        numbers = np.asarray([np.mean(each) for each in scores], dtype=float)
        assert len(numbers) == 2 and np.isfinite(numbers).all(), (name, scores)
    assert len(METRICS) >= 10
    # MPRT came with other weights, and they were explained.
    assert len({tuple(each[0].weight.flatten().tolist()) for each in seen}) > 1
    assert State(model).differences(before) == []


def test_quantus_evaluates_by_name():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = quantus.evaluate(
            metrics={"sparse": quantus.Sparseness(disable_warnings=True)},
            xai_methods={"ours": explain_func(LayerSumGradCAM)},
            model=network(),
            x_batch=IMAGES,
            y_batch=CLASSES,
            explain_func_kwargs={},
            call_kwargs={"once": {}},
        )
    scores = found["ours"]["sparse"]
    assert np.isfinite(np.asarray(scores, dtype=float)).all()


def test_a_box_can_be_the_model_of_a_factory():
    explain = explain_func(
        lambda model: DistilledLayerSumGradCAM(BlackBox(model, output="logits"), network(seed=5))
    )
    assert explain(network(), IMAGES, CLASSES).shape == (2, 1, 12, 10)
