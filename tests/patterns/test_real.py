"""What the paper found on VGG holds on a real network that its authors did not have."""

import pytest
import torch

from captum_blackbox import PatternAttribution, metrics, signal_quality
from captum_blackbox.patterns import fit_patterns

pytestmark = pytest.mark.real

LAYERS = ["features.0", "features.5.expand3x3", "features.9.squeeze", "features.12.expand1x1"]


@pytest.fixture(scope="module")
def squeezenet(data):
    """The network, photographs and their patterns."""
    model = data.squeezenet_imagenet()
    photographs = data.normalise(data.photographs(48)[0])
    fitted = fit_patterns(
        model, photographs[:24], ["filter", "linear", "two_component"], show_progress=False
    )
    return model, photographs, fitted


def test_learned_estimators_find_the_signal_and_the_filter_does_not(squeezenet):
    model, photographs, fitted = squeezenet
    quality = signal_quality(
        model,
        fitted,
        fit_loader=photographs[24:36],
        eval_loader=photographs[36:],
        layers=LAYERS,
        max_positions=128,
        show_progress=False,
    )
    for layer in LAYERS:
        means = {name: float(rho[layer].nanmean()) for name, rho in quality.items()}
        assert means["linear"] > means["filter"] + 0.2 > means["random"] + 0.2
        assert means["two_component"] > means["filter"] + 0.2


def test_its_maps_degrade_a_prediction_faster_than_those_of_other_estimators(squeezenet):
    model, photographs, fitted = squeezenet
    images = photographs[36:42]
    targets = model(images).argmax(1)
    falls = {}
    for name, patterns in fitted.items():
        maps = PatternAttribution(model, patterns).attribute(images, target=targets)
        game = metrics.patch_degradation(model, images, maps, targets, every=25, batch_size=4)
        falls[name] = float(game.aopc.mean())
    assert falls["two_component"] > falls["linear"] + 0.02
    assert falls["two_component"] > falls["filter"] + 0.02


def test_a_map_of_a_real_network_does_not_depend_on_its_batch(squeezenet):
    model, photographs, fitted = squeezenet
    method = PatternAttribution(model, fitted["two_component"])
    together = method.attribute(photographs[36:39], target=[1, 2, 3])
    alone = torch.cat(
        [method.attribute(photographs[36 + i : 37 + i], target=i + 1) for i in range(3)]
    )
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=float(alone.abs().max()) * 1e-4)
