"""Two processes train one student (DECISIONS 25: gloo, started by torchrun)."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from captum_blackbox.artifacts import load_artifact
from captum_blackbox.black_box import BlackBox
from captum_blackbox.student.distillation.distiller import distill

JOB = Path(__file__).with_name("distillation_job.py")


def job(folder, command):
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, JOB, "processes", folder],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    job(folder, [*launcher, "--master-addr", "127.0.0.1", "--master-port", str(port)])
    return folder


def reports(folder, rank=0):
    return json.loads((folder / f"{rank}.json").read_text())


def test_both_processes_end_with_identical_weights_and_buffers(together):
    first, second = (load_artifact(together / f"{rank}.safetensors")[0] for rank in (0, 1))
    assert "hard.1.running_mean" in first
    assert_close(second, first, rtol=0, atol=0)
    for name in ("plain", "cached", "hard"):
        mine, other = reports(together, 0)[name], reports(together, 1)[name]
        mine.pop("seconds")
        other.pop("seconds")
        assert mine == other


def test_two_processes_equal_one_with_the_doubled_batch(together):
    spec = importlib.util.spec_from_file_location("distillation_job", JOB)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    student = module.network(hard=False)
    images = torch.rand(22, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    report = distill(
        BlackBox(module.teacher, output="logits"),
        student,
        images,
        epochs=3,
        batch_size=8,  # 8 + 7 + 7 images: the shares of two processes differ in size
        optimizer=lambda each: torch.optim.SGD(each, lr=0.1, momentum=0.9),
        min_fidelity=0.0,
        show_progress=False,
    )
    tensors, _ = load_artifact(together / "0.safetensors")
    for name, weights in student.state_dict().items():
        assert_close(tensors[f"plain.{name}"], weights, rtol=1e-5, atol=1e-6)
    both = reports(together)["plain"]
    assert_close(both["loss_curve"], list(report.loss_curve), rtol=1e-5, atol=0)
    assert both["agreement"] == report.agreement
    assert_close([both["kl"], both["r2"]], [report.kl, report.r2], rtol=1e-4, atol=1e-6)


def test_queries_are_counted_over_both_processes(together):
    assert reports(together)["plain"]["queries"] == 22 * 3
    assert reports(together)["plain"]["evaluated_images"] == 22
    assert reports(together)["hard"]["queries"] == 24 * 2


def test_a_shared_cache_is_asked_once_for_each_image(together):
    for rank in (0, 1):
        header = load_artifact(together / f"{rank}.safetensors")[1]
        assert header["queries"] == reports(together, rank)["cached"]["queries"] == 22


def test_only_the_first_process_wrote_the_checkpoint(together):
    left_over = [each.name for each in together.iterdir() if each.name.startswith(".")]
    assert left_over == []
    assert load_artifact(together / "run.safetensors")[1]["processes"] == 2
