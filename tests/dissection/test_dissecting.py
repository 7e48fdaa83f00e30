"""A dissection equals its definition, however it is carried out."""

import numpy as np
import pytest
import torch
from naive_dissection import naive_iou, naive_tally, naive_thresholds, random_concepts
from torch import nn

from captum_blackbox import NetworkDissection
from captum_blackbox.dissection import cell_store
from captum_blackbox.dissection.field_map import anchors
from captum_blackbox.dissection.field_rules import Field
from captum_blackbox.dissection.upsampling import (
    anchored_axis,
    resized_axis,
    upsampled,
    zero_grid_axis,
)


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


@pytest.mark.parametrize("upsample", ["receptive_field", "grid_zeros"])
def test_all_ways_to_lay_maps_over_the_image_equal_the_definition(upsample):
    """Layer 1 is a ReLU: its thresholds are not negative."""
    model, concepts = a_network(), random_concepts(size=(13, 9))
    images = torch.stack([concepts.image(n) for n in range(len(concepts))])
    maps = model[:2](images).detach()
    # Kernel 3, stride 2, padding 1: cell i is centred at pixel 2 i of 13 and 9; masks are 6 by 5.
    make = {"receptive_field": anchored_axis, "grid_zeros": zero_grid_axis}[upsample]
    axes = [
        make(anchors(Field(-1, 3, 2), cells, side, pixels), pixels)
        for cells, side, pixels in ((maps.shape[2], 13, 6), (maps.shape[3], 9, 5))
    ]
    thresholds = naive_thresholds(maps, 0.07)
    lit = (upsampled(maps, *axes) > torch.from_numpy(thresholds)[:, None, None]).numpy()
    result = NetworkDissection(model, "1", quantile=0.07, upsample=upsample).dissect(
        concepts, batch_size=3, show_progress=False
    )
    for ours, naive in zip(counted(result), naive_tally(lit, concepts), strict=True):
        np.testing.assert_array_equal(ours, naive)


def test_a_layer_of_one_unit_is_a_layer():
    concepts = random_concepts()
    torch.manual_seed(3)
    model = nn.Conv2d(3, 1, 3, padding=1).double()
    result = NetworkDissection(model, "", quantile=0.1).dissect(concepts, show_progress=False)
    assert result.iou.shape == (1, 7)
    assert int(result.intersection.sum()) > 0


@pytest.mark.parametrize("level", [994 / 999, 0.9, 0.5])
def test_a_level_replaces_the_quantile(level):
    concepts = random_concepts()
    dissection = NetworkDissection(a_network(), "1", quantile=0.2, level=level)
    images = torch.stack([concepts.image(n) for n in range(len(concepts))])
    maps = a_network()[:2](images).detach()
    result = dissection.dissect(concepts, show_progress=False)
    np.testing.assert_allclose(
        result.thresholds, naive_thresholds(maps, 1 - level), rtol=0, atol=1e-12
    )


def test_several_layers_in_one_pass_are_as_each_alone():
    concepts, model = random_concepts(count=12), a_network()
    together = NetworkDissection(model, ["0", "1", "2"], quantile=0.05).dissect(
        concepts, show_progress=False
    )
    for layer, result in together.items():
        alone = NetworkDissection(model, layer, quantile=0.05).dissect(
            concepts, show_progress=False
        )
        for ours, theirs in zip(counted(result), counted(alone), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert torch.equal(result.thresholds, alone.thresholds)
        assert torch.equal(result.top_images, alone.top_images)


def test_images_are_read_once_where_cells_are_few(monkeypatch):
    monkeypatch.setattr(cell_store, "_DENSEST", 1.0)
    concepts = random_concepts(count=40)
    ran = []
    model = a_network()
    model.register_forward_pre_hook(lambda _, inputs: ran.append(len(inputs[0])))
    dissection = NetworkDissection(model, "1", quantile=0.02, upsample="resize")
    dissection.dissect(concepts, batch_size=2, show_progress=False)
    again = sum(ran) - 40 - 1  # one for the sizes
    assert again <= 2  # the first batch, before there was a bound


def test_progress_is_shown_on_demand(capfd):
    dissection = NetworkDissection(a_network(), "1", quantile=0.1)
    dissection.dissect(random_concepts(), show_progress=False)
    assert capfd.readouterr() == ("", "")
    dissection.dissect(random_concepts(), batch_size=2)
    shown = capfd.readouterr().err
    assert "activations" in shown and "concepts" in shown and "4/4" in shown
