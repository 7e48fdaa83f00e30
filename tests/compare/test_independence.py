"""An image's numbers do not depend on its batch, nor a user's random numbers on a comparison."""

import random

import numpy as np
import pytest
import torch
from captum.attr import GradientShap, KernelShap
from compared import images, maps_of, network, quietly

from captum_blackbox import BlackBox
from captum_blackbox.compare import FunctionMetric, Infidelity, SensitivityMax
from captum_blackbox.compare.chance import independently
from captum_blackbox.compare.context import NotApplicableError, content_seeds
from captum_blackbox.errors import QueryBudgetError

STOCHASTIC = {
    "smoothgrad": "smoothgrad",
    "random": "random",
    "torch": lambda x, y: torch.rand_like(x),
    "numpy": lambda x, y: torch.as_tensor(np.random.rand(*x.shape)),  # noqa: NPY002
    "shap": lambda x, y: GradientShap(MODEL).attribute(x, baselines=0 * x, target=y),
    "kernel": lambda x, y: KernelShap(MODEL).attribute(
        x, target=y, feature_mask=QUARTERS, n_samples=4
    ),
}
QUARTERS = torch.arange(4).view(2, 2).repeat_interleave(4, 0).repeat_interleave(4, 1)[None, None]
MODEL = network().eval()
MODEL[1].inplace = False
METRICS = ["deletion", "infidelity", "sensitivity_max"]


@pytest.mark.filterwarnings("ignore")
def test_one_by_one_in_threes_and_in_another_order_is_the_same():
    one = quietly(MODEL, images(), STOCHASTIC, METRICS, batch_size=1)
    three = quietly(MODEL, images(), STOCHASTIC, METRICS, batch_size=3)
    turned = quietly(MODEL, images().flip(0), STOCHASTIC, METRICS, batch_size=2)
    assert one.failures == () and bool(one.values.isfinite().all())
    torch.testing.assert_close(one.values, three.values, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(one.values, turned.values.flip(2), rtol=1e-4, atol=1e-7)


def test_every_image_has_draws_of_its_own_and_equal_images_the_same():
    twice = torch.cat([images(2), images(2)])
    maps, _ = maps_of(MODEL, twice, {"torch": STOCHASTIC["torch"], "random": "random"})
    for each in maps.values():
        assert torch.equal(each[:2], each[2:]) and not torch.equal(each[0], each[1])


def test_the_seed_decides():
    once, again, other = (maps_of(MODEL, images(), STOCHASTIC, seed=seed)[0] for seed in (1, 1, 2))
    for name in STOCHASTIC:
        assert torch.equal(once[name], again[name]), name
        assert not torch.equal(once[name], other[name]), name


def test_methods_meet_the_same_random_changes():
    # Two names of one method: whatever a metric draws, it must not tell them apart.
    found = quietly(MODEL, images(), {"a": "saliency", "b": "saliency"}, METRICS)
    assert torch.equal(found.values[0], found.values[1])


def test_a_metric_does_not_draw_what_the_method_drew():
    def again(context, method, maps):
        return (maps - torch.rand_like(maps)).abs().mean((1, 2, 3))

    metrics = [FunctionMetric(name, again, higher_is_better=True) for name in ("one", "other")]
    found = quietly(MODEL, images(), {"torch": STOCHASTIC["torch"]}, metrics, batch_size=1)
    assert found.values.min() > 0.1  # else the numbers of both are the same
    assert not torch.equal(found.values[:, 0], found.values[:, 1])


@pytest.mark.parametrize(("declared", "first"), [(False, [2, 1, 1]), (True, [1, 1])])
def test_a_metric_that_draws_is_thrown_away_once_at_most(declared, first):
    calls = []

    class Drawing:
        name, higher_is_better, needs_masks, draws = "drawing", True, False, declared

        def __call__(self, context, method, maps):
            calls.append(len(maps))
            return torch.rand(len(maps))

    quietly(MODEL, images(6), ["saliency"], [Drawing()], batch_size=2)
    assert calls == [*first, 1, 1, 1, 1]


@pytest.mark.parametrize("metric", [Infidelity(samples=4), SensitivityMax(samples=4)])
def test_metrics_that_draw_say_so_and_ask_each_question_once(metric):
    def asked(batch_size):
        box = BlackBox(lambda x: MODEL(x), output="logits")
        quietly(box, images(4), {"map": lambda x, y: box(x)[:, :1, None, None] * x},
                [metric], target=1, batch_size=batch_size)  # fmt: skip
        return box.queries

    assert metric.draws and asked(4) == asked(1)


def test_the_users_random_numbers_stay():
    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002

    before = states()
    found = quietly(MODEL, images(), STOCHASTIC, METRICS)
    assert found.values.isfinite().all()
    assert states() == before


def test_what_draws_is_called_again_and_only_that_is_kept():
    calls = []

    def noise(rows):
        calls.append(list(rows))
        return torch.rand(len(rows))

    seeds = content_seeds(images(), 0)
    outcome = independently(noise, [0, 1, 2], seeds, torch.device("cpu"))
    assert calls == [[0, 1, 2], [0], [1], [2]] and outcome.one_by_one
    assert [rows for rows, _ in outcome.kept] == [[0], [1], [2]]
    calls.clear()
    independently(noise, [0, 1], seeds, torch.device("cpu"), one_by_one=True)
    assert calls == [[0], [1]]


def test_one_image_is_asked_once():
    calls = []

    def noise(rows):
        calls.append(list(rows))
        return torch.rand(len(rows))

    independently(noise, [2], content_seeds(images(), 0), torch.device("cpu"))
    assert calls == [[2]]


def test_draws_from_random_are_seeded_though_nobody_notices():
    def call(rows):
        return [random.random() for _ in rows]

    found = [independently(call, [0, 1], [3, 4], torch.device("cpu")) for _ in range(2)]
    assert found[0].kept == found[1].kept and not found[0].one_by_one


def test_an_error_is_an_images_and_no_draw():
    def call(rows):
        if 1 in rows:
            raise KeyError(rows[0])
        return rows

    outcome = independently(call, [0, 1, 2], [3, 4, 5], torch.device("cpu"))
    assert [rows for rows, _ in outcome.kept] == [[0], [2]]
    assert list(outcome.errors) == [1] and not outcome.one_by_one


@pytest.mark.parametrize("error", [NotApplicableError("not for this"), QueryBudgetError("spent")])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_what_ends_a_comparison_is_passed_on_at_once(error, one_by_one):
    calls = []

    def call(rows):
        calls.append(rows)
        raise error

    with pytest.raises(type(error)):
        independently(call, [0, 1], [3, 4], torch.device("cpu"), one_by_one=one_by_one)
    assert calls == ([[0]] if one_by_one else [[0, 1]])


def test_a_drawing_call_that_is_thrown_away_costs_nothing():
    def noisy(x, y):
        return MODEL(x + torch.rand_like(x)).sum(1).view(-1, 1, 1).expand(-1, 8, 8)

    found = quietly(MODEL, images(), {"noisy": noisy}, ["deletion"], batch_size=3)
    assert (found.cost("noisy").forward, found.cost("noisy").images) == (3, 3)
