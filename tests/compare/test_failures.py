"""What fails is in the table, and the rest goes on."""

import math

import pytest
import torch
from compared import images, network, quietly
from networks import State
from torch import nn

from captum_blackbox import BlackBox
from captum_blackbox.compare import FunctionMetric
from captum_blackbox.errors import BlackBoxError, QueryBudgetError
from captum_blackbox.shapes import check_maps

BAD = 1  # the image that things fail on


def marked():
    given = images(4)
    given[BAD, 0, 0, 0] = 9.0
    return given


def is_bad(x):
    return (x[:, 0, 0, 0] == 9).any()


class FailsOnOne(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        if is_bad(x):
            raise RuntimeError("cannot look\nat this")
        return self.inner(x)


def others(values):
    return torch.cat([values[..., :BAD], values[..., BAD + 1 :]], -1)


@pytest.mark.parametrize("target", [None, 1])
def test_a_model_that_dies_on_one_image(target):
    model = FailsOnOne()
    before = State(model)
    found = quietly(model, marked(), ["saliency", "random"], ["deletion"], target=target)
    assert State(model).differences(before) == []
    assert found.values[:, 0, BAD].isnan().all()
    assert bool(others(found.values).isfinite().all())
    by_method = {each.method: each for each in found.failures}
    assert set(by_method) == {"saliency", "random"}
    assert {each.image for each in found.failures} == {BAD}
    assert all("cannot look at this" in each.reason for each in found.failures)
    expected = quietly(
        model.inner, marked(), ["saliency", "random"], ["deletion"], target=found.targets
    )
    torch.testing.assert_close(others(found.values), others(expected.values))
    assert "cannot look at this" in found.to_markdown()


def test_a_model_that_answers_for_no_image():
    with pytest.raises(BlackBoxError) as caught:
        quietly(FailsOnOne(), marked()[BAD : BAD + 1], ["random"], ["deletion"])
    assert "the model answers for no image: the black box raised RuntimeError" in str(caught.value)


def nan_map(x, target):
    maps = x.clone()
    maps[x[:, 0, 0, 0] == 9] = torch.nan
    return maps


def raises_on_one(x, target):
    if is_bad(x):
        raise KeyError("nowhere")
    return x


def test_methods_that_fail_on_one_image():
    methods = {"nan": nan_map, "raises": raises_on_one, "fine": lambda x, y: x}
    found = quietly(network(), marked(), methods, ["deletion", "insertion"])
    assert [(each.method, each.metric, each.image) for each in found.failures] == [
        ("nan", None, BAD),
        ("raises", None, BAD),
    ]
    assert found.failures[0].reason == "128 of 128 map values are NaN or infinite"
    assert found.failures[1].reason == "KeyError: 'nowhere'"
    good = others(found.values)
    # An image that is explained alone is rounded in another way than in a batch.
    torch.testing.assert_close(good[0], good[2])
    torch.testing.assert_close(good[1], good[2])
    assert found.cost("raises").images == 3
    # Ranks are over the images that all methods have.
    assert found.ranks("deletion") == pytest.approx({"nan": 2, "raises": 2, "fine": 2}, abs=0.7)
    assert found.difference("nan", "deletion", "fine").mean == pytest.approx(0, abs=1e-6)


def test_methods_that_cannot_be_made_or_give_no_maps():
    def broken(model):
        raise OSError("no such file")

    methods = {
        "broken": broken,
        "text": lambda x, y: "a map",
        "short": lambda x, y: x[:1, 0, 0],
        "object": lambda model: 3,
        "fine": "random",
    }
    found = quietly(network(), images(), methods, ["deletion"])
    reasons = {each.method: each.reason for each in found.failures}
    assert reasons["broken"] == "OSError: no such file"
    assert reasons["text"] == "expected a tensor of maps, got str"
    assert "got torch.float32 of shape (1, 8)" in reasons["short"]
    assert reasons["object"] == "expected an attribution with a method `attribute`, got int"
    assert {each.image for each in found.failures if each.method == "broken"} == {None}
    assert found.values[:4].isnan().all() and found.values[4].isfinite().all()
    assert math.isnan(found.overall_ranks["broken"]) and found.overall_ranks["fine"] == 1


def metric(name, function):
    return FunctionMetric(name, function, higher_is_better=True)


def test_metrics_that_fail():
    def dies(context, method, maps):
        if is_bad(context.images):
            raise ZeroDivisionError("oh")
        return maps.mean((1, 2, 3))

    def infinite(context, method, maps):
        return torch.where(context.images[:, 0, 0, 0] == 9, torch.inf, 1.0)

    metrics = [
        metric("dies", dies),
        metric("infinite", infinite),
        metric("scalar", lambda context, method, maps: maps.mean()),
        metric("fine", lambda context, method, maps: maps.mean((1, 2, 3))),
    ]
    found = quietly(network(), marked(), ["random"], metrics)
    assert found.scores("random", "dies")[BAD].isnan()
    torch.testing.assert_close(
        others(found.scores("random", "dies")), others(found.scores("random", "fine"))
    )
    reasons = {(each.metric, each.image): each.reason for each in found.failures}
    assert reasons["dies", BAD] == "ZeroDivisionError: oh"
    assert reasons["infinite", BAD] == "the metric gave no finite number"
    assert reasons["scalar", 0] == "'scalar' has to give a number for each of 1 images, got ()"
    assert len(found.failures) == 6
    assert found.scores("random", "scalar").isnan().all()
    assert found.mean("random", "infinite").images == 3


def test_a_used_up_budget_ends_it(tmp_path):
    box = BlackBox(network(), output="logits", query_budget=40)
    with pytest.raises(QueryBudgetError):
        quietly(box, images(), ["random"], ["deletion"], resume=tmp_path / "a", batch_size=1)
    assert box.queries <= 40
    box.query_budget = 1000
    found = quietly(box, images(), ["random"], ["deletion"], resume=tmp_path / "a", batch_size=1)
    assert found.failures == () and found.values.isfinite().all()


def test_warnings_become_notes():
    import warnings

    def warns(x, y):
        warnings.warn(f"careful with {len(x)}", stacklevel=1)
        return x

    methods = {"warns": warns, "zero": lambda x, y: 0 * x}
    found = quietly(network(), images(3), methods, ["deletion"], batch_size=2)
    assert found.notes == (
        "warns: careful with 2",
        "warns: careful with 1",
        "zero: some maps are 0 everywhere; what metrics make of them is the order of pixels",
    )
    assert "careful with 2" in found.to_markdown()


def test_notes_and_reasons_do_not_number_images_by_their_place_in_a_batch():
    """Image 2 is the first of its batch, and would be image 0 there."""
    flat = images(4)
    flat[2:] = 0.5

    def pointing(x, y):
        maps = x.clone()
        check_maps(maps * (x != 0.5), "it says nothing")
        return maps

    found = quietly(
        network(), flat, {"it": pointing}, ["pointing_game", "relevance_mass"], batch_size=2,
        masks=torch.ones(4, 8, 8),
    )  # fmt: skip
    assert found.values[0, 0].tolist() == [1, 1, 0, 0]
    assert found.notes == (
        "it: the map of some image is 0 everywhere: it says nothing",
        "it: the map of some image is the same everywhere and points nowhere; it counts as 0",
    )

    def broken(x, y):
        check_maps(torch.where(x == 0.5, torch.nan, x), "")
        return x

    found = quietly(network(), flat, {"it": broken}, ["deletion"], batch_size=2)
    assert [each.image for each in found.failures] == [2, 3]
    (reason,) = {each.reason for each in found.failures}
    assert reason.startswith("the map of the image is not finite in torch.float32; look for NaN")
