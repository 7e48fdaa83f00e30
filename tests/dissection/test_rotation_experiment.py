"""Dissections in other bases of a layer."""

import pytest
import torch
from naive_dissection import random_concepts
from networks import GapLinear, State
from planted_units import Planted, assert_same_result, masked, shown
from torch.testing import assert_close

from captum_blackbox import NetworkDissection
from captum_blackbox.concepts import Annotation
from captum_blackbox.dissection.comparing import compare_rotations
from captum_blackbox.dissection.rotation import fractional_rotation, random_rotation
from captum_blackbox.errors import InputError

QUIET = {"show_progress": False}
COUNTS = ("truth", "activation", "intersection", "top_images")


def plain():
    torch.manual_seed(1)
    return NetworkDissection(GapLinear(7).double(), "relu", quantile=0.1, upsample="resize")


def test_turning_by_nothing_changes_nothing():
    dissection, concepts = plain(), random_concepts()
    expected = dissection.dissect(concepts, **QUIET)
    found = dissection.rotate(0.0).dissect(concepts, **QUIET)
    for name in (*COUNTS, "thresholds", "top_activations"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert found.settings["rotation"] == {"alpha": 0.0, "seed": 0}
    assert expected.settings["rotation"] is None


def test_turned_units_are_the_turned_maps():
    dissection, concepts = plain(), random_concepts()
    model = dissection.model
    matrix = fractional_rotation(random_rotation(7, 4), 0.3)
    found = dissection.rotate(0.3, seed=4).dissect(concepts, **QUIET)
    images = torch.stack([concepts.image(number) for number in range(len(concepts))])
    with torch.no_grad():
        maps = torch.einsum("uv,nvhw->nuhw", matrix, model.relu(model.conv(images)))
    expected = maps.transpose(0, 1).flatten(1).quantile(0.9, dim=1)
    assert_close(found.thresholds, expected, rtol=1e-12, atol=1e-12)
    assert_close(found.top_activations[:, 0], maps.amax((0, 2, 3)))


def test_the_network_itself_is_not_turned():
    dissection, concepts = plain(), random_concepts()
    x = torch.rand(2, 3, 12, 10, dtype=torch.float64)
    with torch.no_grad():
        expected = dissection.model(x)
    before = State(dissection.model)
    turned = dissection.rotate(1.0)
    turned.dissect(concepts, **QUIET)
    assert turned.model is dissection.model
    assert not before.differences(State(dissection.model))
    with torch.no_grad():
        assert torch.equal(dissection.model(x), expected)
    assert dissection.results == {}


def test_the_seed_decides_the_basis():
    dissection, concepts = plain(), random_concepts()
    one, again, other = (
        dissection.rotate(1.0, seed).dissect(concepts, **QUIET) for seed in (3, 3, 4)
    )
    assert_same_result(one, again)
    assert not torch.equal(one.thresholds, other.thresholds)


def test_turning_again_starts_from_the_own_basis():
    dissection, concepts = plain(), random_concepts()
    expected = dissection.rotate(0.2).dissect(concepts, **QUIET)
    assert_same_result(dissection.rotate(0.9).rotate(0.2).dissect(concepts, **QUIET), expected)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_how_far_lies_between_0_and_1(alpha):
    with pytest.raises(InputError, match=f"^alpha is between 0 and 1, got {alpha}$"):
        plain().rotate(alpha)


def independent_units(units=64, images=12, side=25, quantile=0.02):
    """Plant Gaussian maps, and for each unit a concept: where it is among its largest."""
    maps = torch.randn(images, units, side, side, dtype=torch.float64)
    thresholds = maps.transpose(0, 1).flatten(1).quantile(1 - quantile, dim=1)
    lit = maps > thresholds[:, None, None]
    labels = [(f"unit {number}", "object") for number in range(units)]
    numbers = torch.arange(1, units + 1, dtype=torch.int32)[:, None, None]
    annotations = [{"object": Annotation(each.int() * numbers)} for each in lit]
    return shown(maps, annotations, labels), quantile


def test_a_basis_that_stands_for_concepts_is_special():
    """64 independent Gaussian units, each with its own concept: T32 of the specification."""
    concepts, quantile = independent_units()
    dissection = NetworkDissection(Planted(64), "layer", quantile=quantile, upsample="resize")
    alphas = (0.0, 0.25, 0.5, 1.0)
    comparison = compare_rotations(dissection, concepts, alphas, seed=1, **QUIET)
    rows = comparison.table()
    best = [row["mean_best_iou"] for row in rows]
    assert best[0] == 1.0
    assert best[0] > best[1] > best[2] > best[3]
    assert best[3] < 0.1
    assert rows[0]["unique"] == 64
    assert [row["rotation"] for row in rows] == ["0", "0.25", "0.5", "1"]
    assert comparison.values == alphas
    plain_result = dissection.dissect(concepts, **QUIET)
    assert torch.equal(comparison.results["0"].intersection, plain_result.intersection)


def test_concepts_are_found_again_where_the_basis_is_turned_back():
    """Maps turned by the transposed matrix, and a dissection that turns them back."""
    matrix = fractional_rotation(random_rotation(3, 9), 0.4)
    masks = torch.zeros(6, 10, 10)
    masks[:, 2, 3:6] = 1  # 3 %
    maps = torch.zeros(6, 3, 10, 10, dtype=torch.float64)
    maps[:, 1] = masks
    mixed = torch.einsum("vu,nvhw->nuhw", matrix, maps)
    concepts = shown(mixed, masked(masks))
    dissection = NetworkDissection(Planted(3), "layer", quantile=0.04, upsample="resize")
    back = dissection.rotate(0.4, seed=9).dissect(concepts, **QUIET)
    assert float(back.iou[1, 0]) == 1.0
