"""What an attack maximises, by which numbers it chooses, and when it has succeeded."""

import pytest
import torch

from captum_blackbox.fragility import center_moved, correlation_below, topk_below
from captum_blackbox.fragility.criteria import CRITERIA
from captum_blackbox.fragility.objectives import (
    MassCenter,
    Targeted,
    TargetMap,
    Task,
    TopK,
    objective_of,
)
from captum_blackbox.fragility.result import Measures
from captum_blackbox.metrics import pixel_ranks


def maps_of(*rows):
    maps = torch.tensor(rows, dtype=torch.float64).view(len(rows), 2, -1)
    return maps / maps.sum((1, 2), keepdim=True)


def task_of(clean, region=None, k=2, softened=None):
    away = torch.tensor([[0.6, 0.8]], dtype=torch.float64).expand(len(clean), 2)
    soft = clean if softened is None else softened
    return Task(clean, soft, k, pixel_ranks(clean) < k, region, away)


CLEAN, FOUND = maps_of([4.0, 3, 2, 1]), maps_of([1.0, 6, 2, 1])


def test_the_criteria_by_hand():
    region = torch.tensor([[[0, 2], [2, 0]]])
    task = task_of(CLEAN, region, softened=maps_of([1.0, 1, 1, 1]))
    ranks = torch.tensor([[3.0, 2, 1, 0], [0.5, 3, 2, 0.5]], dtype=torch.float64)  # equals share
    expected = {
        "intersection": -0.5,  # pixels 0 and 1, and pixels 1 and 2
        "correlation": -float(torch.corrcoef(ranks)[0, 1]),
        "center_shift": 0.3,  # column 0.4, and column 0.7
        "region_mass": 0.8,
        "target_cosine": (6 * 2 + 2 * 2) / (42 * 8) ** 0.5,
    }
    found = {name: float(criterion(FOUND, task)) for name, criterion in CRITERIA.items()}
    assert found == pytest.approx(expected)


def test_the_objectives_by_hand():
    soft = maps_of([1.0, 1, 1, 1])
    wanted = maps_of([0.0, 0, 1, 3])
    task = task_of(CLEAN, wanted, softened=soft)
    assert TopK().loss(FOUND, task).tolist() == pytest.approx([-0.7])
    assert Targeted().loss(FOUND, task).tolist() == pytest.approx([0.2 * 0.25 + 0.1 * 0.75])
    squares = 0.1**2 + 0.6**2 + 0.05**2 + 0.65**2
    assert TargetMap().loss(FOUND, task).tolist() == pytest.approx([-squares / 0.625])
    assert TargetMap().loss(wanted, task).tolist() == [0]
    # From the middle (0.5, 0.5) of the surrogate's clean map to (0.3, 0.7).
    assert MassCenter().loss(FOUND, task).tolist() == pytest.approx([0.08**0.5])
    leaf = soft.clone().requires_grad_()
    (slope,) = torch.autograd.grad(MassCenter().loss(leaf, task).sum(), leaf)
    assert slope.flatten().tolist() == pytest.approx([0, 0.8, 0.6, 1.4])  # away


@pytest.mark.parametrize(
    ("region", "kind"),
    [
        (torch.tensor([[True, False]]), Targeted),
        (torch.tensor([[0, 7]]), Targeted),
        (torch.tensor([[0.0, 1.0]]), Targeted),
        (torch.tensor([[0.0, 0.5]]), TargetMap),
    ],
    ids=str,
)
def test_a_region_is_a_mask_or_a_map(region, kind):
    assert type(objective_of("targeted", region)) is kind
    assert type(objective_of("topk", region)) is TopK


def test_a_task_of_some_images_is_theirs():
    clean = torch.rand(3, 2, 2, dtype=torch.float64)
    task = Task(clean, clean + 1, 2, clean > 0.5, clean + 2, torch.rand(3, 2))
    chosen = torch.tensor([2, 0])
    for name, part in task.rows(chosen)._asdict().items():
        whole = getattr(task, name)
        assert part == whole if name == "k" else torch.equal(part, whole[chosen])
    assert task._replace(region=None).rows(chosen).region is None


def test_what_is_on_the_border_has_not_succeeded():
    value = torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64)
    measures = Measures(*[value] * len(Measures._fields))
    assert topk_below(0.5)(measures, measures).tolist() == [True, False, False]
    assert correlation_below(0.5)(measures, measures).tolist() == [True, False, False]
    assert center_moved(0.5)(measures, measures).tolist() == [False, False, True]
