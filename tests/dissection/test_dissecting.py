"""A dissection equals its definition, however it is carried out."""

import numpy as np
import pytest
import torch
from naive_dissection import naive_iou, naive_tally, naive_thresholds, random_concepts
from torch import nn

from captum_blackbox import NetworkDissection
from captum_blackbox.dissection.upsampling import resized_axis, upsampled


def a_network(units=5):
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, units, 3, 2, 1), nn.ReLU(), nn.Conv2d(units, 4, 1)).double()


def counted(result):
    return [each.numpy() for each in (result.truth, result.activation, result.intersection)]


@pytest.mark.parametrize("presence", ["image", "mask"])
@pytest.mark.parametrize("layer", ["0", "1"])
def test_a_dissection_equals_its_definition(presence, layer):
    model, concepts = a_network(), random_concepts()
    images = torch.stack([concepts.image(n) for n in range(len(concepts))])
    maps = model[: int(layer) + 1](images).detach()
    quantile = 0.07
    thresholds = naive_thresholds(maps, quantile)
    axes = resized_axis(maps.shape[2], 6), resized_axis(maps.shape[3], 5)
    lit = (upsampled(maps, *axes) > torch.from_numpy(thresholds)[:, None, None]).numpy()
    expected = naive_tally(lit, concepts, presence)

    dissection = NetworkDissection(
        model, layer, quantile=quantile, upsample="resize", presence=presence
    )
    result = dissection.dissect(concepts, batch_size=3, show_progress=False)
    np.testing.assert_allclose(result.thresholds, thresholds, rtol=0, atol=1e-15)
    for ours, naive in zip(counted(result), expected, strict=True):
        np.testing.assert_array_equal(ours, naive)
    np.testing.assert_allclose(result.iou, naive_iou(*expected, concepts), rtol=0, atol=1e-15)
    largest = maps.amax((2, 3)).argsort(dim=0, descending=True, stable=True).T
    assert torch.equal(result.top_images, largest)


ways = pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 1},
        {"batch_size": 2},
        {"batch_size": 100},
        {"num_workers": 2},
        {"memory_limit": 5000},
    ],
    ids=str,
)


@ways
def test_how_it_is_carried_out_changes_nothing(options):
    concepts = random_concepts(count=20)
    dissection = NetworkDissection(a_network(), "1", quantile=0.03)
    expected = dissection.dissect(concepts, show_progress=False)
    result = dissection.dissect(concepts, show_progress=False, **options)
    for ours, theirs in zip(counted(result), counted(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert torch.equal(result.thresholds, expected.thresholds)
    assert torch.equal(result.top_images, expected.top_images)
