"""A budget that does not cover a job is refused before its first question is asked."""

import pytest
import torch

from captum_blackbox import RISE, BlackBox
from captum_blackbox.errors import QueryBudgetError, TargetError
from captum_blackbox.metrics import deletion, insertion, patch_degradation

IMAGES = torch.rand(3, 2, 9, 9, generator=torch.Generator().manual_seed(0))
MAPS = IMAGES.sum(1)

JOBS = {
    "RISE": lambda box, target: RISE(box, masks=11, grid=3).attribute(IMAGES, target=target),
    "deletion": lambda box, target: deletion(box, IMAGES, MAPS, target, step=10),
    "insertion": lambda box, target: insertion(box, IMAGES, MAPS, target, step=10),
    "degradation": lambda box, target: patch_degradation(
        box, IMAGES, MAPS, target, patch=3, steps=6, every=2, random_orders=2
    ),
}
ASKED = {"RISE": 33, "deletion": 30, "insertion": 30, "degradation": 3 * (4 + 2 * 3)}
each_job = pytest.mark.parametrize("name", JOBS)
each_target = pytest.mark.parametrize("target", [None, 1])


def box_of(budget=None, **more):
    asked = []
    box = BlackBox(
        lambda x: asked.append(len(x)) or x.flatten(2).mean(2),
        output="logits", batch_size=4, query_budget=budget, **more,
    )  # fmt: skip
    return box, asked


@each_job
@each_target
def test_nothing_is_asked_that_cannot_be_finished(name, target):
    whole = ASKED[name] + (3 if target is None else 0)
    box, asked = box_of(whole + 2)
    box(IMAGES[:2])  # spent before
    JOBS[name](box, target)
    assert box.queries == sum(asked) == whole + 2
    box, asked = box_of(whole + 1)
    box(IMAGES[:2])
    with pytest.raises(QueryBudgetError) as caught:
        JOBS[name](box, target)
    assert str(caught.value) == (
        f"{whole} more images would exceed the budget of {whole + 1}: 2 were asked; these were not"
    )
    assert box.queries == sum(asked) == 2


@each_job
def test_a_box_that_may_know_the_answers_is_asked(name):
    box, asked = box_of(cache=":memory:")
    JOBS[name](box, 1)
    spent = sum(asked)
    box.query_budget = spent
    JOBS[name](box, 1)
    assert sum(asked) == spent
    box, asked = box_of(5, cache=":memory:")
    with pytest.raises(QueryBudgetError):
        JOBS[name](box, 1)
    assert 0 < sum(asked) <= 5


def test_a_target_that_is_none_is_said_first():
    box, asked = box_of(0, num_classes=2)
    with pytest.raises(TargetError):
        JOBS["deletion"](box, 7)
    assert asked == []
