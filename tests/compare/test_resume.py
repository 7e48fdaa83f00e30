"""A comparison that was interrupted ends with the same bits as one that was not."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
from compared import images, network, quietly
from comparing_job import LATE, METRICS, comparison
from jobs import run_job

from captum_blackbox import BlackBox
from captum_blackbox.compare import Comparison, FunctionMetric
from captum_blackbox.errors import ArtifactError

JOB = Path(__file__).with_name("comparing_job.py")


CALLS = []  # of a method, in a run that nothing interrupts


class Stop(BaseException):
    pass


def stop_after(calls):
    left = [calls]

    def spoil():
        left[0] -= 1
        if left[0] < 0:
            raise Stop

    return spoil


def assert_same(one, other):
    torch.testing.assert_close(one.values, other.values, rtol=0, atol=0, equal_nan=True)
    assert one.failures == other.failures and one.notes == other.notes
    assert one.targets.tolist() == other.targets.tolist()
    for a, b in zip(one.costs, other.costs, strict=True):
        assert (a.images, a.forward, a.backward) == (b.images, b.forward, b.backward)


@pytest.fixture(scope="module")
def whole():
    found = comparison(None, lambda: CALLS.append(1))
    assert {
        (each.method, each.image, each.reason) for each in found.failures if not each.metric
    } == {("noisy", LATE, "ValueError: never this one")}
    return found


@pytest.mark.parametrize("calls", [0, 3, 9, 12])
def test_interrupted_and_resumed(whole, tmp_path, calls):
    path = tmp_path / "kept"
    with pytest.raises(Stop):
        comparison(path, stop_after(calls))
    with pytest.raises(ArtifactError, match="is unfinished: [0-9]+ of 15 are done"):
        Comparison.load(path)
    resumed = comparison(path)
    assert_same(resumed, whole)
    assert_same(Comparison.load(path), whole)


def test_killed_and_resumed(whole, tmp_path):
    path, asked = tmp_path / "kept", []
    done = run_job(JOB, path, 9)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert_same(comparison(path, lambda: asked.append(1)), whole)
    assert 0 < len(asked) < len(CALLS)


def test_what_is_done_is_not_done_again(tmp_path):
    path, asked = tmp_path / "kept", []
    comparison(path)
    comparison(path, lambda: asked.append(1))
    assert asked == [1]  # the image that failed is tried again


def test_the_method_is_asked_often_enough_to_be_interrupted(whole):
    assert len(CALLS) > 12


def test_a_file_of_something_else_is_refused_and_says_of_what(tmp_path):
    path = tmp_path / "kept"
    model = network()
    arguments = {
        "model_or_box": model,
        "inputs": images(),
        "methods": ["random", "saliency"],
        "metrics": ["deletion"],
        "target": 1,
    }
    quietly(**arguments, resume=path)
    masks = torch.ones(3, 8, 8)
    for change, word in (
        ({"model_or_box": network(seed=3)}, "model is"),
        ({"model_or_box": BlackBox(lambda x: model(x), output="logits")}, "model is"),
        ({"inputs": images(seed=4)}, "images is"),
        ({"inputs": images(2)}, "images is"),
        ({"methods": ["random"]}, "methods is"),
        ({"methods": {"random": "random", "saliency": "rise"}}, "methods is"),
        ({"metrics": ["insertion"]}, "metrics is"),
        ({"target": 2}, "the class of image 0 is 1 in the file, 2 here"),
        ({"seed": 5}, "seed is 0 in the file, 5 here"),
        ({"masks": masks}, "masks is None in the file"),
        ({"data": images(9)}, "data is None in the file"),
    ):
        with pytest.raises(ArtifactError) as caught:
            quietly(**{**arguments, **change}, resume=path)
        assert word in str(caught.value), change
        assert "does not belong here" in str(caught.value)
    quietly(**arguments, resume=path)


def test_a_box_of_the_same_name_with_other_answers_is_refused(tmp_path):
    def boxed(model):
        model.eval()
        return lambda x: model(x)  # all are called alike

    path, arguments = tmp_path / "kept", (images(), ["random"], ["deletion"])
    quietly(boxed(network()), *arguments, target=1, resume=path)
    quietly(boxed(network()), *arguments, target=1, resume=path)
    with pytest.raises(ArtifactError, match="the answer to image 0 is"):
        quietly(boxed(network(seed=3)), *arguments, target=1, resume=path)


def test_settings_of_a_metric_count_and_places_in_memory_do_not(tmp_path):
    from captum_blackbox.compare import Deletion

    path = tmp_path / "kept"

    def mine():
        return FunctionMetric(
            "mine", lambda c, m, maps: maps.mean((1, 2, 3)), higher_is_better=True
        )

    quietly(network(), images(), ["random"], [Deletion(step=4), mine()], resume=path)
    quietly(network(), images(), ["random"], [Deletion(step=4), mine()], resume=path)
    with pytest.raises(ArtifactError, match="metrics is"):
        quietly(network(), images(), ["random"], [Deletion(step=5), mine()], resume=path)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "kept"
    path.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="is not a safetensors file"):
        quietly(network(), images(), ["random"], ["deletion"], resume=path)


def test_a_saved_comparison_is_complete(tmp_path):
    found = quietly(network(), images(), ["random", "saliency"], METRICS)
    found.save(tmp_path / "saved")
    loaded = Comparison.load(tmp_path / "saved")
    assert_same(loaded, found)
    assert loaded.to_markdown() == found.to_markdown()
    assert loaded.settings == found.settings
    shutil.copy(tmp_path / "saved", tmp_path / "resumed")
    again = quietly(
        network(), images(), ["random", "saliency"], METRICS, resume=tmp_path / "resumed"
    )
    assert_same(again, found)
