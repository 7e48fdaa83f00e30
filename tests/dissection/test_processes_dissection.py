"""Two processes dissect exactly as one does (gloo, started by torchrun)."""

import warnings

import dissecting_job as job
import pytest
from jobs import run_job, two_processes
from planted_units import assert_same_result
from torch.testing import assert_close

from captum_blackbox import Dissection
from captum_blackbox.errors import ExplanationWarning


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    done = run_job(job.__file__, folder, "together", 0, launcher=two_processes())
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def found(folder, case, layer):
    return [Dissection.load(folder / f"{case}-{layer}-{rank}.safetensors") for rank in (0, 1)]


def alone(case):
    data, options = job.TOGETHER[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExplanationWarning)
        return job.dissect(job.Counted(**data), **options)


@pytest.mark.parametrize("case", [case for case in job.TOGETHER if case != "sketch"])
def test_two_processes_equal_one_to_the_last_bit(together, case):
    """Also with uneven batches, with none for one of them, and with a share that is broken."""
    for layer, expected in alone(case).items():
        for result in found(together, case, layer):
            assert_same_result(result, expected)
            assert int(result.intersection.sum()) > 0


@pytest.mark.parametrize("layer", job.LAYERS)
def test_all_processes_end_with_the_same(together, layer):
    for case in job.TOGETHER:
        assert_same_result(*found(together, case, layer))


def test_all_know_why_images_are_left_out(together):
    for result in found(together, "broken", "2"):
        assert result.skipped == (
            "image 0: '0.jpg' is cut off",
            "image 6: '6.jpg' is cut off",
            "image 9: '9.png' is cut off",
        )


def test_sketches_merge_to_nearly_the_same(together):
    for layer, expected in alone("sketch").items():
        result, _ = found(together, "sketch", layer)
        assert result.settings["threshold_method"] == "sketch"
        # So few values are all kept: what is left is rounding.
        assert_close(result.thresholds, expected.thresholds, rtol=1e-9, atol=1e-9)
        assert_close(result.iou, expected.iou, rtol=0, atol=1e-6)


def test_nothing_is_left_of_what_was_unfinished(together):
    assert not list(together.glob("unfinished*"))
