"""Fit patterns as a process of its own: to be killed in the middle, or to be one of two."""

import os
import signal
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_blackbox.patterns import fit_patterns

REGIMES = ("positive", "two_component", "linear")


def case():
    """Return a model with BatchNorm and a sum, and 11 uneven batches of data."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(2, 3, 3, padding=1)
            self.norm = nn.BatchNorm2d(3)
            self.conv = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            x = self.norm(self.stem(x)).relu()
            return self.head((x + self.conv(x)).relu().mean((2, 3)))

    torch.manual_seed(3)
    model = Net().double().eval()
    model.norm.running_mean.normal_()
    data = torch.randn(43, 2, 5, 5, dtype=torch.float64)
    return model, DataLoader(TensorDataset(data, torch.arange(43)), batch_size=4)


def main(folder, what):
    """Fit; ``what`` is ``"killed"`` to die after six batches, ``"whole"`` not to."""
    model, loader = case()
    seen = 0

    def count(*_):
        nonlocal seen
        seen += 1
        if what == "killed" and seen == 8:  # tracing is the first
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_pre_hook(count)
    fitted = fit_patterns(
        model,
        loader,
        REGIMES,
        checkpoint=f"{folder}/checkpoint" if what != "shared" else None,
        checkpoint_every=2,
        show_progress=False,
    )
    rank = os.environ.get("RANK", "0")
    for regime, patterns in fitted.items():
        patterns.save(f"{folder}/{what}-{regime}-{rank}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
