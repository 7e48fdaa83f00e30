"""What failed for a reason that may pass is tried again by a second call, and nothing else is."""

import pytest
import torch
from compared import images, network, quietly

from captum_blackbox import BlackBox
from captum_blackbox.compare import Comparison, FunctionMetric, NotApplicableError, progress

BAD = 1  # the image that things fail on


def bright(context, method, maps):
    return maps.double().mean((1, 2, 3))


def metric(function=bright, name="bright"):
    return FunctionMetric(name, function, higher_is_better=True)


class Recovering:
    """A method, or a metric, that has no memory for one image while it is ill."""

    def __init__(self):
        self.is_ill, self.asked = True, []
        self.error = torch.OutOfMemoryError("the device is full")

    def explain(self, x, target):
        self._look_at(x)
        return x

    def judge(self, context, method, maps):
        self._look_at(context.images)
        return bright(context, method, maps)

    def _look_at(self, x):
        if self.is_ill and any(torch.equal(each, images(4)[BAD]) for each in x):
            raise self.error
        self.asked += [[torch.equal(each, image) for image in images(4)].index(True) for each in x]


def again(path, methods, metrics, **kwargs):
    return quietly(network(), images(4), methods, metrics, resume=path, batch_size=2, **kwargs)


def test_an_image_that_failed_is_explained_again_and_no_other(tmp_path):
    method = Recovering()
    given = {"it": method.explain}, [metric()]
    first = again(tmp_path / "a", *given)
    assert [(each.image, each.reason) for each in first.failures] == [
        (BAD, "OutOfMemoryError: the device is full")
    ]
    assert first.scores("it", "bright").isnan().tolist() == [False, True, False, False]
    method.is_ill, method.asked = False, []
    second = again(tmp_path / "a", *given)
    assert method.asked == [BAD] and second.failures == ()
    assert second.scores("it", "bright").tolist() == images(4).double().mean((1, 2, 3)).tolist()
    assert second.cost("it").images == 4
    method.asked = []
    assert again(tmp_path / "a", *given).failures == () and method.asked == []


def test_what_fails_again_is_said_once_and_the_file_stays_complete(tmp_path):
    method = Recovering()
    given = {"it": method.explain, "fine": lambda x, y: x}, [metric()]
    first = again(tmp_path / "a", *given)
    second = again(tmp_path / "a", *given)
    assert second.failures == first.failures != ()
    assert Comparison.load(tmp_path / "a").failures == first.failures


def test_a_metric_that_failed_judges_again_and_no_other_does(tmp_path):
    ill, healthy, method = Recovering(), Recovering(), Recovering()
    healthy.is_ill = method.is_ill = False
    given = {"it": method.explain}, [metric(ill.judge, "ill"), metric(healthy.judge, "healthy")]
    first = again(tmp_path / "a", *given)
    assert [(each.metric, each.image) for each in first.failures] == [("ill", BAD)]
    ill.is_ill = False
    for each in (ill, healthy, method):
        each.asked = []
    second = again(tmp_path / "a", *given)
    assert (ill.asked, healthy.asked, method.asked) == ([BAD], [], [BAD])
    assert second.failures == () and bool(second.values.isfinite().all())
    assert second.cost("it").images == 5  # one map was made twice


def test_a_method_that_could_not_be_made_is_made_again(tmp_path):
    state = {"is_ill": True, "made": 0}

    def made(model):
        state["made"] += 1
        if state["is_ill"]:
            raise ConnectionError("no answer")
        return lambda x, y: x

    given = {"it": made, "fine": lambda x, y: x}, [metric()]
    first = again(tmp_path / "a", *given)
    assert [(each.method, each.image) for each in first.failures] == [("it", None)]
    assert Comparison.load(tmp_path / "a").failures == first.failures
    state["is_ill"] = False
    second = again(tmp_path / "a", *given)
    assert second.failures == () and torch.equal(second.values[0], second.values[1])
    assert again(tmp_path / "a", *given).failures == () and state["made"] == 2


def test_a_method_that_could_not_be_made_a_second_time_keeps_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_LEAST_WORK", 0)  # every batch is kept
    method, state = Recovering(), {"error": None}
    method.is_ill = False

    def made(model):
        if state["error"] is not None:
            raise state["error"]
        return explain

    def explain(x, target):
        if len(method.asked) == 2 and state["stops"]:
            raise KeyboardInterrupt
        return method.explain(x, target)

    given = {"it": made}, [metric()]
    state["stops"] = True
    with pytest.raises(KeyboardInterrupt):
        again(tmp_path / "a", *given)
    state["error"] = ConnectionError("no answer")
    found = again(tmp_path / "a", *given)
    assert found.values[0, 0].isfinite().tolist() == [True, True, False, False]
    state.update(error=None, stops=False)
    found = again(tmp_path / "a", *given)
    assert method.asked == [0, 1, 2, 3] and found.failures == ()


def test_what_is_not_applicable_is_not_tried_again(tmp_path):
    asked = []

    def never(model):
        asked.append("method")
        raise NotApplicableError("needs a transformer")

    def nowhere(context, method, maps):
        asked.append("metric")
        raise NotApplicableError("needs words")

    given = {"never": never, "it": lambda x, y: x}, [metric(), metric(nowhere, "nowhere")]
    first = again(tmp_path / "a", *given)
    assert asked == ["method", "metric", "metric"]  # the metric once for each batch
    assert again(tmp_path / "a", *given).failures == first.failures
    assert len(asked) == 3


def test_a_call_that_is_interrupted_while_it_tries_again_leaves_the_file_complete(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(progress, "_LEAST_WORK", 0)  # every batch is kept
    one, other = Recovering(), Recovering()
    given = {"one": one.explain, "other": other.explain}, [metric()]
    first = again(tmp_path / "a", *given)
    one.is_ill, other.error = False, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        again(tmp_path / "a", *given)
    kept = Comparison.load(tmp_path / "a")
    assert [each.method for each in first.failures] == ["one", "other"]
    assert [each.method for each in kept.failures] == ["other"]
    other.is_ill, one.asked = False, []
    last = again(tmp_path / "a", *given)
    assert last.failures == () and one.asked == [] and torch.equal(last.values[0], last.values[1])


def test_numbers_of_an_image_that_was_left_in_the_middle_are_not_in_the_file(tmp_path):
    one, other = Recovering(), Recovering()
    given = {"it": lambda x, y: x}, [metric(one.judge, "one"), metric(other.judge, "other")]
    first = again(tmp_path / "a", *given)
    one.is_ill, other.error = False, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        again(tmp_path / "a", *given)
    kept = Comparison.load(tmp_path / "a")
    assert kept.failures == first.failures
    assert kept.values[0, :, BAD].isnan().all() and kept.cost("it").images == 4


@pytest.mark.parametrize("target", [None, 2])
def test_a_model_that_did_not_answer_for_an_image_is_asked_again(tmp_path, target):
    inner, state = network().eval(), {"bad": BAD}

    def answers(x):
        bad = state["bad"]
        if bad is not None and any(torch.equal(each, images(4)[bad]) for each in x):
            raise torch.OutOfMemoryError("the device is full")
        return inner(x)

    def compared(path):
        box = BlackBox(answers, output="logits")
        return quietly(box, images(4), ["random"], ["deletion"], target=target, resume=path)

    whole = quietly(
        BlackBox(lambda x: inner(x), output="logits"), images(4), ["random"], ["deletion"],
        target=target,
    )  # fmt: skip
    first = compared(tmp_path / "a")
    assert {each.image for each in first.failures} == {BAD}
    assert "the device is full" in first.failures[0].reason
    state["bad"] = None
    second = compared(tmp_path / "a")
    assert second.failures == () and second.targets.tolist() == whole.targets.tolist()
    torch.testing.assert_close(second.values, whole.values)
    state["bad"] = 3  # what is known stays known
    third = compared(tmp_path / "a")
    assert third.failures == () and third.targets.tolist() == whole.targets.tolist()
    assert torch.equal(third.values, second.values)


def test_a_smaller_batch_goes_on_with_the_same_file(tmp_path):
    method = Recovering()
    given = network(), images(4), {"it": method.explain}, [metric()]
    quietly(*given, resume=tmp_path / "a", batch_size=4)
    method.is_ill, method.asked = False, []
    found = quietly(*given, resume=tmp_path / "a", batch_size=1)
    assert method.asked == [BAD] and found.failures == ()
    assert found.settings["batch_size"] == 1


def test_failures_stand_in_the_order_of_methods_metrics_and_images(tmp_path):
    def dies(context, method, maps):
        raise ZeroDivisionError

    def place(failure):
        return failure.method, failure.metric, failure.image

    ill = Recovering()
    given = {"b": ill.explain, "a": lambda x, y: x}, [metric(dies, "one"), metric(dies, "another")]
    first = again(tmp_path / "a", *given)
    rows = [("b", None, BAD)]
    rows += [("b", name, image) for name in ("one", "another") for image in (0, 2, 3)]
    rows += [("a", name, image) for name in ("one", "another") for image in range(4)]
    assert list(map(place, first.failures)) == rows
    assert again(tmp_path / "a", *given).failures == first.failures
