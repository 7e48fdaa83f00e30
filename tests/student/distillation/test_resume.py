"""A run that stops can go on, and only the run that it was."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from captum_blackbox.artifacts import load_artifact
from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import ArtifactError, BlackBoxError
from captum_blackbox.student.distillation.checkpoint import load_checkpoint, save_checkpoint
from captum_blackbox.student.distillation.distiller import distill

JOB = Path(__file__).with_name("distillation_job.py")
IMAGES = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def linear(classes=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))


def says(images):
    return torch.stack([images.mean((1, 2, 3)), images[:, 0, 0, 0]], 1)


def run(student, checkpoint, box=None, images=IMAGES, **settings):
    box = box or BlackBox(says, output="logits")
    settings = {"epochs": 3, "batch_size": 8, "min_fidelity": 0.0, **settings}
    return distill(box, student, images, checkpoint=checkpoint, show_progress=False, **settings)


def epochs_done(checkpoint):
    state = load_checkpoint(checkpoint, {})
    return -1 if state is None else state["progress"]["epoch"]


def start(checkpoint, delay):
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, JOB, "resumable", checkpoint, str(delay)], env=environment
    )


def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(tmp_path):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    uninterrupted, killed = start(whole, 0), start(parts, 0.3)
    try:
        deadline = time.monotonic() + 120
        while epochs_done(parts) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(60) == -signal.SIGKILL
        assert epochs_done(parts) in (2, 3)
        again = start(parts, 0)
        assert uninterrupted.wait(120) == again.wait(120) == 0
    finally:
        for process in (uninterrupted, killed):
            process.kill()
    tensors, header = load_artifact(whole)
    others, other_header = load_artifact(parts)
    assert_close(others, tensors, rtol=0, atol=0)
    assert {name for name in tensors if ".optimizer." in name and "exp_avg" in name}
    state, other = load_checkpoint(whole, {}), load_checkpoint(parts, {})
    del header["state"], other_header["state"]
    assert other_header == header
    for name in ("epoch", "loss_curve", "agreement", "kl", "best", "best_epoch"):
        assert other["progress"][name] == state["progress"][name], name
    assert state["progress"]["epoch"] == 5
    # Validation, 10 images, was asked twice; what was asked in the lost epoch is not known.
    assert other["progress"]["queries"] == state["progress"]["queries"] + 10 == 5 * 24 + 20


def test_a_finished_run_is_returned_without_asking(tmp_path):
    checkpoint, first, second = tmp_path / "run", linear(), linear()
    report = run(first, checkpoint)
    asked = BlackBox(says, output="logits", query_budget=0)
    again = run(second, checkpoint, box=asked)
    assert again == report
    assert asked.queries == 0
    assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


def test_a_box_that_raises_leaves_the_last_checkpoint(tmp_path):
    checkpoint, calls = tmp_path / "run", []

    def fails(images):
        calls.append(len(images))
        if len(calls) == 4:  # the second step of the second epoch
            raise ConnectionError("the line is dead")
        return says(images)

    student = linear()
    with pytest.raises(BlackBoxError, match="the line is dead"):
        run(student, checkpoint, box=BlackBox(fails, output="logits"))
    assert epochs_done(checkpoint) == 1
    run(student, checkpoint)
    whole = linear()
    run(whole, None)
    assert_close(student.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 4}, "epochs is 3 in the file, 4 here"),
        ({"temperature": 2.0}, "temperature is 4.0 in the file, 2.0 here"),
        ({"seed": 1}, "seed is 0 in the file, 1 here"),
        ({"images": IMAGES[:12]}, "images is 16 in the file, 12 here"),
        ({"batch_size": 4}, "steps is 2 in the file, 4 here"),
        ({"images": IMAGES.flip(0)}, "first_and_last_image is '"),
        ({"validation": IMAGES[:3]}, "validation_images is None in the file, 3 here"),
    ],
)
def test_another_run_is_refused(tmp_path, change, message):
    checkpoint = tmp_path / "run"
    run(linear(), checkpoint)
    with pytest.raises(ArtifactError) as error:
        run(linear(), checkpoint, **change)
    assert str(error.value).startswith(f"{str(checkpoint)!r} does not belong here: ")
    assert message in str(error.value)


def test_another_student_optimizer_or_box_is_refused(tmp_path):
    checkpoint = tmp_path / "run"
    run(linear(), checkpoint)
    with pytest.raises(ArtifactError, match=r"student is 'Sequential of 2 tensors, .*in the file"):
        run(nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False)), checkpoint)
    with pytest.raises(ArtifactError, match=r"optimizer is 'Adam\(lr=0.001.* 'Adam\(lr=0.1"):
        run(linear(), checkpoint, optimizer=lambda each: torch.optim.Adam(each, lr=0.1))
    probs = BlackBox(lambda x: says(x).softmax(1), output="probs")
    with pytest.raises(ArtifactError, match="output is 'logits' in the file, 'probs' here"):
        run(linear(), checkpoint, box=probs)


def test_a_module_of_the_same_kind_with_other_weights_is_another_box(tmp_path):
    checkpoint = tmp_path / "run"
    run(linear(), checkpoint, box=BlackBox(linear(), output="logits"))
    other = linear()
    with torch.no_grad():
        other[1].bias.add_(1)
    with pytest.raises(ArtifactError, match=r"box is '[0-9a-f]{32}' in the file, '[0-9a-f]{32}'"):
        run(linear(), checkpoint, box=BlackBox(other, output="logits"))


def test_an_unwritable_checkpoint_is_found_before_anything_is_asked(tmp_path):
    (tmp_path / "file").write_text("")
    box = BlackBox(says, output="logits")
    with pytest.raises(
        ArtifactError, match=r"cannot write .*choose a file in a folder that can be"
    ):
        run(linear(), tmp_path / "file" / "run", box=box, validation=IMAGES)
    assert box.queries == 0


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "run").write_text("not ours")
    with pytest.raises(ArtifactError, match="is not a safetensors file"):
        run(linear(), tmp_path / "run")


def test_every_value_comes_back_from_a_checkpoint_as_it_was(tmp_path):
    state = {
        0: {"step": torch.tensor(3.0), "betas": (0.9, 1 / 3), "none": None, "flag": True},
        "groups": [{"params": [0, 1], "name": "a"}, {}, []],
        "large": 1e-300,
        "bits": torch.tensor([float("inf"), -0.0, 1e-40], dtype=torch.float64),
    }
    save_checkpoint(tmp_path / "a", state, {"seed": 0})
    loaded = load_checkpoint(tmp_path / "a", {"seed": 0})
    assert_close(loaded[0].pop("step"), state[0].pop("step"))
    assert_close(loaded.pop("bits"), state.pop("bits"), rtol=0, atol=0)
    assert loaded == state
    assert type(loaded[0]["betas"]) is tuple
    assert load_checkpoint(tmp_path / "missing", {}) is None


def test_what_needs_a_pickle_is_refused_by_name(tmp_path):
    with pytest.raises(ArtifactError) as error:
        save_checkpoint(tmp_path / "a", {"optimizer": {"state": {0: object()}}}, {})
    assert str(error.value) == (
        "state.optimizer.state.0 is a object, which cannot be kept in a checkpoint; tensors, "
        "numbers, strings, and lists, tuples and dictionaries of them can"
    )


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "Adagrad", "NAdam"])
def test_every_optimizer_resumes_exactly(tmp_path, name, monkeypatch):
    def optimizer(parameters):
        return getattr(torch.optim, name)(parameters, lr=0.01)

    calls = []

    def fails(images):
        calls.append(1)
        if len(calls) == 5:
            raise ConnectionError("later")
        return says(images)

    whole, parts = linear(), linear()
    run(whole, None, optimizer=optimizer)
    box = BlackBox(fails, output="logits")
    with pytest.raises(BlackBoxError):
        run(parts, tmp_path / "run", box=box, optimizer=optimizer)
    run(parts, tmp_path / "run", box=box, optimizer=optimizer)
    assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=0)
