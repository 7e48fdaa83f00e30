"""On scenes, whose every pixel is known: training makes detectors, and planted ones are found."""

import functools

import pytest
import torch
from naive_dissection import ListedConcepts
from planted_units import Planted, carrying
from torch import nn

from captum_blackbox import NetworkDissection
from captum_blackbox.concepts import SCENE_CONCEPTS, SceneConcepts, Scenes, ShuffledConcepts
from captum_blackbox.demo import DemoNetwork, load_demo_network
from captum_blackbox.dissection.rotation import random_rotation

SEEDS = (0, 1, 2)
BLOCKS = ("features.3.2", "features.4.2", "features.5.2")


@functools.cache
def scenes():
    return SceneConcepts(200, seed=91_001)


def unique(network, alpha=0.0, seed=0, concepts=None):
    dissection = NetworkDissection(network, list(BLOCKS))
    dissection = dissection.rotate(alpha, seed) if alpha else dissection
    results = dissection.dissect(concepts or scenes(), show_progress=False)
    return torch.tensor([float(each.unique_detectors()) for each in results.values()])


@functools.cache
def of_the_trained():
    return unique(load_demo_network())


def test_training_makes_unique_detectors():
    untrained = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        untrained.append(unique(DemoNetwork().eval()))
    assert (of_the_trained() > torch.stack(untrained).amax(0)).all()
    assert (of_the_trained() > 3 * torch.stack(untrained).mean(0))[1:].all()


def test_the_detectors_of_the_trained_network_are_not_there_by_chance():
    by_chance = unique(load_demo_network(), concepts=ShuffledConcepts(scenes()))
    assert (of_the_trained() > 3 * by_chance).all()


def test_a_rotated_basis_has_fewer_unique_detectors():
    # Not so in the last block: its units are detectors of classes, and mixtures of few such units
    # detect other concepts besides.
    rotated = torch.stack([unique(load_demo_network(), 1.0, seed) for seed in SEEDS])
    assert (of_the_trained() > rotated.mean(0)).all()


@pytest.mark.parametrize("block", BLOCKS)
def test_a_rotated_basis_tells_the_classes_apart_as_well(block):
    data = Scenes(100, seed=91_002)
    network = load_demo_network()
    with torch.no_grad():
        before = network(data.images)

    def turn_and_back(_module, _inputs, output):
        matrix = random_rotation(output.shape[1], seed=0).to(output)
        rotated = torch.einsum("uv,nvhw->nuhw", matrix, output)
        assert not torch.allclose(rotated, output, atol=0.1)
        return torch.einsum("vu,nvhw->nuhw", matrix, rotated)

    network.get_submodule(block).register_forward_hook(turn_and_back)
    with torch.no_grad():
        after = network(data.images)
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)
    assert torch.equal(after.argmax(1), before.argmax(1))


def test_every_planted_concept_is_named_rightly():
    # A unit for each of the concepts of all categories, in disorder: active at some of its pixels.
    source = SceneConcepts(120, seed=91_003)
    names = [name for category in SCENE_CONCEPTS.values() for name in category]
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0))
    annotations = [source.annotations(number) for number in range(len(source))]
    shown = torch.stack([torch.cat([a.pixels for a in one.values()]) for one in annotations])
    maps = torch.stack([(shown == number + 1).any(1) for number in order.tolist()], 1).float()
    maps *= 1 + torch.rand(maps.shape, generator=torch.Generator().manual_seed(1))
    concepts = ListedConcepts(carrying(maps), annotations, source.labels, source.categories)

    dissection = NetworkDissection(Planted(len(names)), "layer", upsample="resize", quantile=0.01)
    result = dissection.dissect(concepts, batch_size=8, show_progress=False)
    assert [unit.label for unit in result.units()] == [names[number] for number in order]
    for unit in result.units():
        score = unit.scores[unit.category]
        assert score.intersection == score.activation  # active nowhere else
        # A rare concept is covered whole, of a common one the share that the threshold leaves.
        share = 0.01 * maps[:, 0].numel() / score.truth
        assert unit.iou == pytest.approx(min(1, share), rel=0.02)


COLORS = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}


def test_a_filter_for_a_colour_is_a_detector_of_that_colour():
    filters = nn.Conv2d(3, len(COLORS), 1, bias=False)
    filters.weight.data = torch.tensor([*COLORS.values()])[:, :, None, None]
    result = NetworkDissection(filters, "").dissect(scenes(), show_progress=False)
    assert [unit.label for unit in result.units()] == list(COLORS)
    assert result.iou.amax(1).min() > 0.1
