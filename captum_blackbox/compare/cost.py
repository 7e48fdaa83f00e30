"""What a method costs: passes, answers of a black box, and time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch

from captum_blackbox.compare.method import Method
from captum_blackbox.hooks import passes_counted

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """What a method cost, over all images that it explained.

    Attributes:
        images: How many these are. One that is explained again, by a second run because a metric
            failed on it, counts again.
        forward: Images that networks passed forward, and that a black box answered.
        backward: Images whose output a gradient was sent back from.
        seconds: Of explaining.
        making_seconds: Of making the method, that is of fitting it; 0 for most.
    """

    images: int = 0
    forward: int = 0
    backward: int = 0
    seconds: float = 0.0
    making_seconds: float = 0.0

    def each(self, number: int | float) -> float:
        """Return a number of this cost per image; NaN if no image was explained."""
        return number / self.images if self.images else float("nan")


class Spent(NamedTuple):
    """What one call cost."""

    forward: int
    backward: int
    seconds: float


def measured(
    call: Callable[[], Result], method: Method, device: torch.device
) -> tuple[Result, Spent]:
    """Return what a call gives, and what it cost."""
    before = sum(box.asked for box in method.boxes)
    start = _now(device)
    with passes_counted(method.networks) as passes:
        result = call()
    seconds = _now(device) - start
    answered = sum(box.asked for box in method.boxes) - before
    return result, Spent(passes.forward + answered, passes.backward, seconds)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
