"""docs/axioms.md says what the checks find, and the checks find what is known."""

import pytest
from axiom_document import (
    ADDING_UP,
    DOCUMENT,
    METHODS,
    frame,
    line_of,
    method_of,
    sums_line_of,
    table_of,
)

from captum_blackbox.metrics.axioms import AXIOMS

ROWS = [
    pytest.param(method.name, marks=pytest.mark.slow if method.slow else ()) for method in METHODS
]


def marks():
    """Return method → axiom → mark, as the document says."""
    table = DOCUMENT.read_text().split("\n## ")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in table if line.startswith("| ")][1:]
    return {name: dict(zip(AXIOMS, each, strict=True)) for name, *each in rows}


MARKS = marks()


@pytest.mark.parametrize("name", ROWS)
def test_a_line_of_the_table_is_what_the_checks_find(name):
    assert line_of(name) in DOCUMENT.read_text().splitlines()


@pytest.mark.parametrize("name", ADDING_UP)
def test_a_line_of_the_sums_is_what_the_checks_find(name):
    assert sums_line_of(name) in DOCUMENT.read_text().splitlines()


def test_the_rest_of_the_document_is_as_written():
    text = DOCUMENT.read_text()
    first, between, last = frame()
    assert text.startswith(first) and text.endswith(last) and between in text
    assert list(MARKS) == [method.name for method in METHODS]
    head, tail = text.split(between)
    assert len(head.removeprefix(first).splitlines()) == len(METHODS) + 2
    assert len(tail.removesuffix(last).splitlines()) == len(ADDING_UP)


KNOWN = """
completeness              ✓ IntegratedGradients, DeepLift, ShapleyValueSampling
completeness              ✗ Saliency, InputXGradient, LRP, GuidedBackprop, LayerGradCam, RISE
completeness              ✗ PatternNet, PatternAttribution
sensitivity               ✓ IntegratedGradients, DeepLift, FeatureAblation, ShapleyValueSampling
sensitivity               ✗ Saliency, InputXGradient, LRP, GuidedBackprop
dummy                     ✓ Saliency, InputXGradient, IntegratedGradients, FeatureAblation
dummy                     ✗ GuidedBackprop, LayerGradCam, Occlusion, RISE, LayerSumGradCAM
implementation_invariance ✓ Saliency, InputXGradient, IntegratedGradients, GradientShap, LRP
implementation_invariance ✓ FeatureAblation, Occlusion, ShapleyValueSampling, RISE
implementation_invariance ✓ DistilledLayerSumGradCAM
implementation_invariance ✗ DeepLift, GuidedBackprop, LayerGradCam, LayerSumGradCAM
implementation_invariance ✗ PatternNet, PatternAttribution
linearity                 ✓ InputXGradient, IntegratedGradients, DeepLift, FeatureAblation
linearity                 ✓ ShapleyValueSampling, NetworkDissection
linearity                 ✗ Saliency, GuidedBackprop, LayerGradCam, LayerSumGradCAM, RISE
symmetry                  ✓ Saliency, IntegratedGradients, FeatureAblation
symmetry                  ✗ DeepLift, GuidedBackprop
input_shift               ✓ Saliency, GuidedBackprop, Deconvolution, NetworkDissection
input_shift               ✗ InputXGradient, IntegratedGradients, DeepLift, LRP, PatternNet
class_sensitivity         ✓ Saliency, IntegratedGradients
class_sensitivity         ✗ GuidedBackprop
parameter_randomisation   ✓ Saliency, IntegratedGradients, LayerGradCam
parameter_randomisation   ✗ GuidedBackprop
"""


@pytest.mark.parametrize("line", KNOWN.strip().splitlines())
def test_what_is_known_comes_out(line):
    axiom, mark, names = line.split(maxsplit=2)
    for start in names.split(", "):
        name = next(each for each in MARKS if each.startswith(start))
        assert MARKS[name][axiom] == mark, name


def test_lrp_with_epsilon_is_the_input_times_the_gradient():
    for result, same in zip(
        table_of("LRP (epsilon rule)"), table_of("InputXGradient"), strict=True
    ):
        assert result.holds == same.holds
        assert result.error == pytest.approx(same.error, abs=1e-4)


def test_only_the_shifted_relus_tell_deep_lift():
    # Sundararajan et al. 2017, Figure 7; changes of weights do not.
    details = table_of("DeepLift")["implementation_invariance"].details
    assert details.pop("shifted ReLUs") > 0.1
    assert max(details.values()) < 1e-12


def test_grad_cam_does_not_see_a_layer_more_but_their_sum_does():
    # Across layers Grad-CAM is not implementation invariant.
    one = table_of("LayerGradCam, last convolution")["implementation_invariance"].details
    every = table_of("LayerSumGradCAM")["implementation_invariance"].details
    assert one["deepened"] < 1e-12 < 0.1 < every["deepened"]
    for name in ("permuted", "rescaled"):
        assert max(one[name], every[name]) < 1e-12


def test_guided_backprop_keeps_its_maps_when_the_upper_layers_are_random():
    guided = table_of("GuidedBackprop")["parameter_randomisation"].details
    gradient = table_of("Saliency, signed (gradient)")["parameter_randomisation"].details
    assert guided["head.0"] > 0.6 and gradient["head.0"] < 0.3
    assert list(guided) == ["head.0", "features.2", "features.0"]


def test_patterns_centred_in_their_regime_are_invariant_to_shifts_and_published_ones_are_not():
    for name in ("PatternNet", "PatternAttribution"):
        assert table_of(name)["input_shift"].error > 0.1
        assert table_of(f"{name}, centred in its regime")["input_shift"].error < 1e-9


def test_every_method_has_a_theory():
    assert all(method_of(method.name).theory for method in METHODS)
