"""Every random number of a run as a function of its seed, without moving the user's own."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def number_from(*parts: int) -> int:
    """Mix non-negative integers into one seed of 63 bits.

    Example:
        >>> number_from(0, 1) == number_from(0, 1), number_from(0, 1) == number_from(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


def generator_from(*parts: int) -> torch.Generator:
    """Return a generator on the CPU that starts from :func:`number_from`."""
    return torch.Generator().manual_seed(number_from(*parts))


def seed_everything(device: torch.device, *parts: int) -> None:
    """Seed torch, NumPy and ``random``; only inside :func:`random_state_kept`."""
    number = number_from(*parts)
    if device.type == "cpu":
        # Not torch.manual_seed, which reaches for every GPU.
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 - data sets of users draw from it
    random.seed(number)


@contextlib.contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Give torch, NumPy and ``random`` their state back when the block ends.

    Example:
        >>> before = torch.get_rng_state()
        >>> with random_state_kept(torch.device("cpu")):
        ...     seed_everything(torch.device("cpu"), 1)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    seeded: list[int] = []
    if device.type in {"cuda", "xpu"}:
        seeded = list(range(getattr(torch, device.type).device_count()))
    try:
        with torch.random.fork_rng(seeded, device_type=device.type if seeded else "cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
