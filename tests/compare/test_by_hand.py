"""A comparison whose every number was worked out on paper."""

import pytest
import torch
from compared import quietly

from captum_blackbox import BlackBox
from captum_blackbox.compare import Deletion, FunctionMetric, Insertion

IMAGES = torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]], [[[0.0, 0.0], [0.0, 1.0]]]])


def brightness(x):
    mean = x.mean((1, 2, 3))
    return torch.stack([mean, 1 - mean], 1)


METHODS = {"bright": lambda x, target: x, "dark": lambda x, target: -x}
METRICS = [Deletion(step=1), Insertion(step=1, substrate="zeros")]


@pytest.fixture(scope="module")
def found():
    box = BlackBox(brightness, output="probs")
    return quietly(box, IMAGES, METHODS, METRICS, target=0)


def test_values(found):
    # Bright, first image: 3/8 without anything deleted, 1/8 without the 1, then 0: the area is
    # (3/16 + 1/8) / 4. Dark takes both zeros first: (3/16 + 3/8 + 3/8 + 1/4) / 4.
    assert found.scores("bright", "deletion").tolist() == [0.078125, 0.03125]
    assert found.scores("dark", "deletion").tolist() == [0.296875, 0.21875]
    # Insertion runs the other way: 0, 1/4, 3/8, 3/8, 3/8 and 0, 0, 0, 1/8, 3/8.
    assert found.scores("bright", "insertion").tolist() == [0.296875, 0.21875]
    assert found.scores("dark", "insertion").tolist() == [0.078125, 0.03125]


def test_summaries(found):
    assert found.ranks("deletion") == found.ranks("insertion") == {"bright": 1, "dark": 2}
    assert found.overall_ranks == {"bright": 1, "dark": 2}
    assert found.mean("bright", "deletion").mean == 0.0546875
    difference = found.difference("bright", "deletion", "dark")
    # -0.21875 for the first image, -0.1875 for the second: the interval ends at those.
    assert (difference.mean, difference.low, difference.high) == (-0.203125, -0.21875, -0.1875)
    assert found.targets.tolist() == [0, 0]
    assert found.failures == () and found.notes == ()


def test_a_prediction_is_explained_where_no_class_is_named():
    box = BlackBox(brightness, output="probs")
    found = quietly(box, torch.cat([IMAGES, 1 - IMAGES]), METHODS, METRICS[:1])
    assert found.targets.tolist() == [1, 1, 0, 0]


def test_masks_reach_the_metric_that_needs_them():
    masks = torch.tensor([[[1, 0], [0, 0]], [[1, 0], [0, 0]]])

    def hit(context, method, maps):
        best = maps[:, 0].flatten(1).argmax(1, keepdim=True)
        return context.masks.flatten(1).gather(1, best)[:, 0].double()

    pointing = FunctionMetric("pointing", hit, higher_is_better=True, needs_masks=True)
    for given in (masks, masks[:, None], masks.bool()):
        found = quietly(brightness, IMAGES, METHODS, [pointing], masks=given, output="probs")
        assert found.scores("bright", "pointing").tolist() == [1, 0]
