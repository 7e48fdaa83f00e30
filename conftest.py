"""What every test gets, the examples in the docstrings included."""

import os

# Tests run beside each other: one thread each, also for the programs that they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# Where nothing names a device it is the CPU, also on a machine with a GPU, in full precision.
os.environ.setdefault("ACCELERATE_USE_CPU", "true")
torch.backends.cudnn.allow_tf32 = False


def pytest_runtest_setup() -> None:
    """Start each test from the same random numbers."""
    torch.manual_seed(0)
