"""On photographs, the units of a trained network stand for things, beyond what chance explains."""

from pathlib import Path

import pytest
import torch
import torchvision

from captum_blackbox import MaskConcepts, NetworkDissection, ShuffledConcepts

LAYER = "features.12"


@pytest.fixture(scope="module")
def photographs(data):
    folder = Path(data.__file__).parent / "masks"
    return MaskConcepts.from_folder(folder, size=224, mask_size=112)


@pytest.fixture(scope="module")
def squeezenet(data, photographs):
    return dissected(data, data.squeezenet_imagenet(), photographs)


def dissected(data, network, concepts):
    dissection = NetworkDissection(
        network, LAYER, preprocess=lambda pixels: (pixels - data.MEAN) / data.STD
    )
    return dissection.dissect(concepts, batch_size=10, show_progress=False)


@pytest.mark.real
def test_the_units_match_their_own_masks_better_than_those_of_other_images(
    data, photographs, squeezenet
):
    by_chance = dissected(data, data.squeezenet_imagenet(), ShuffledConcepts(photographs))
    # Concepts that one photograph shows are matched by chance, so that unique detectors say less.
    assert len(squeezenet.detectors()) > 1.6 * len(by_chance.detectors())
    assert squeezenet.iou.amax(1).mean() > 1.3 * by_chance.iou.amax(1).mean()
    assert squeezenet.unique_detectors() > by_chance.unique_detectors()


@pytest.mark.real
def test_the_units_match_more_than_those_of_a_network_that_learnt_nothing(
    data, photographs, squeezenet
):
    torch.manual_seed(0)
    untrained = torchvision.models.squeezenet1_0(weights=None).eval()
    by_chance = dissected(data, untrained, photographs)
    assert len(squeezenet.detectors()) > 2 * len(by_chance.detectors())
    assert squeezenet.unique_detectors() > 1.5 * by_chance.unique_detectors()


@pytest.mark.real
def test_the_best_units_are_named_after_animals_and_things_with_a_look_of_their_own(squeezenet):
    best = [unit.label for unit in squeezenet.detectors()[:20]]
    assert best[0] == "zebra"
    assert best.count("zebra") >= 3
    assert {"bird", "broccoli", "giraffe"} <= set(best)
