"""Results that do not depend on the batch: all at once, or image by image where need be."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from captum_blackbox.compare.context import NotApplicableError
from captum_blackbox.errors import QueryBudgetError
from captum_blackbox.student.distillation.random_state import number_from, seed_everything

Result = TypeVar("Result")

STOPPING = (NotApplicableError, QueryBudgetError)
"""What is no failure of an image: it is passed on."""


@dataclass
class Outcome(Generic[Result]):
    """What some images gave.

    Attributes:
        kept: Images → their result.
        errors: Image → what was raised for it.
        one_by_one: Whether the images had to be taken one by one because of random numbers.
    """

    kept: list[tuple[list[int], Result]] = field(default_factory=list)
    errors: dict[int, Exception] = field(default_factory=dict)
    one_by_one: bool = False


def salted(seeds: Sequence[int], name: str) -> list[int]:
    """Return seeds of their own for what has this name, alike whenever it is asked.

    Example:
        >>> salted([1, 2], "a") == salted([1, 2], "a"), salted([1, 2], "a") == salted([1, 2], "b")
        (True, False)
    """
    salt = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return [number_from(seed, salt) for seed in seeds]


def independently(
    call: Callable[[list[int]], Result],
    rows: Sequence[int],
    seeds: Sequence[int],
    device: torch.device,
    *,
    one_by_one: bool = False,
) -> Outcome[Result]:
    """Call for all images at once, or again one by one if it draws random numbers or raises.

    A call that draws from a global generator of torch or NumPy would give an image what its place
    in the batch happens to draw. Taken alone, each image is seeded by itself. Draws from ``random``
    are seeded as well, but go unnoticed: checkers of types draw from it, too. To be run inside
    ``random_state_kept``.

    Args:
        call: Images, by number → a result.
        rows: Images.
        seeds: Of every image there is.
        device: Whose generator counts, beside the CPU's.
        one_by_one: It is known to draw.

    Example:
        >>> def noise(rows):
        ...     return torch.rand(len(rows))
        >>> cpu, seeds = torch.device("cpu"), [3, 4, 5]
        >>> both = independently(noise, [1, 2], seeds, cpu)
        >>> one = independently(noise, [2], seeds, cpu)
        >>> [rows for rows, _ in both.kept], torch.equal(both.kept[1][1], one.kept[0][1])
        ([[1], [2]], True)
    """
    outcome: Outcome[Result] = Outcome(one_by_one=one_by_one)
    if len(rows) > 1 and not one_by_one:
        whole, outcome.one_by_one = _together(call, rows, seeds[rows[0]], device)
        if whole is not None:
            outcome.kept.append(whole)
            return outcome
    for row in rows:
        seed_everything(device, seeds[row])
        try:
            outcome.kept.append(([row], call([row])))
        except STOPPING:
            raise
        except Exception as error:  # one image must not end a comparison
            outcome.errors[row] = error
    return outcome


def _together(
    call: Callable[[list[int]], Result], rows: Sequence[int], seed: int, device: torch.device
) -> tuple[tuple[list[int], Result] | None, bool]:
    """Return what one call for all gives, if that can be kept, and whether it drew."""
    seed_everything(device, seed)
    before = _state(device)
    try:
        result = call(list(rows))
    except STOPPING:
        raise
    except Exception:  # it will be raised again, for the image that it belongs to
        return None, False
    draws = not _same(before, _state(device))
    return (None if draws else (list(rows), result)), draws


def _state(device: torch.device) -> tuple[Any, ...]:
    own = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0)
    numpy: Any = np.random.get_state()  # noqa: NPY002 - users' methods draw from it
    return torch.get_rng_state(), own, numpy[1].tobytes(), numpy[2:]


def _same(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    tensors = zip(first[:2], second[:2], strict=True)
    return first[2:] == second[2:] and all(torch.equal(a, b) for a, b in tensors)
