"""Distillations to start in other processes: killed and started again, or two at a time."""

import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from captum_blackbox.artifacts import save_artifact
from captum_blackbox.black_box import BlackBox
from captum_blackbox.student.distillation.distiller import distill


class Noisy(Dataset):
    """Images that every global generator has a hand in."""

    def __init__(self, count=24):
        self.images = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        noise = torch.randn(1, 6, 6) + random.random() + np.random.rand()  # noqa: NPY002
        return self.images[index] + 0.1 * noise


def teacher(images):
    """Three classes; draws random numbers itself, as a box may."""
    np.random.rand()  # noqa: NPY002
    return torch.stack([images.mean((1, 2, 3)), images.amax((1, 2, 3)), images[:, 0, 0, 0]], 1)


def network(*, hard=True):
    """A student, with everything that makes a run hard to repeat, or with nothing of it."""
    torch.manual_seed(0)
    norm, dropout = (nn.BatchNorm2d(4), nn.Dropout(0.3)) if hard else (nn.Identity(),) * 2
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), norm, nn.ReLU(), dropout, nn.Flatten(), nn.Linear(64, 3)
    )


def resumable(checkpoint, delay):
    """Run to the end, slowly enough to be killed on the way."""

    def slow(images):
        time.sleep(float(delay))
        return teacher(images)

    distill(
        BlackBox(slow, output="logits"),
        network(),
        Noisy(),
        epochs=5,
        batch_size=8,
        validation=torch.rand(10, 1, 6, 6, generator=torch.Generator().manual_seed(2)),
        checkpoint=checkpoint,
        max_gradient_norm=1.0,
        min_fidelity=0.0,
        show_progress=False,
    )


def processes(folder):
    """Train three students, together with whoever else was started; write what became of them."""
    folder, rank = Path(folder), Accelerator().process_index
    images = torch.rand(22, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    settings = {"batch_size": 4, "min_fidelity": 0.0, "show_progress": False}

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    plain, reports = network(hard=False), {}
    with torch.no_grad():
        plain[0].weight += rank  # the first process decides where to start
    box = BlackBox(teacher, output="logits")
    report = distill(box, plain, images, epochs=3, optimizer=sgd, **settings)
    reports["plain"] = report.to_dict()

    cached = BlackBox(teacher, output="logits", cache=folder / "answers.sqlite")
    report = distill(
        cached, network(hard=False), images, epochs=2, validation=images[:5], **settings
    )
    reports["cached"] = report.to_dict()

    hard = network()
    for _ in range(2):  # the second time it is finished
        report = distill(
            box, hard, Noisy(), epochs=2, checkpoint=folder / "run.safetensors", **settings
        )
    reports["hard"] = report.to_dict()
    state = {f"plain.{k}": v for k, v in plain.state_dict().items()}
    state |= {f"hard.{k}": v for k, v in hard.state_dict().items()}
    save_artifact(folder / f"{rank}.safetensors", state, {"queries": cached.queries})
    (folder / f"{rank}.json").write_text(json.dumps(reports))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"resumable": resumable, "processes": processes}[sys.argv[1]](*sys.argv[2:])
