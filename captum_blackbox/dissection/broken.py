"""Which images could not be read."""

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from captum_blackbox.errors import warn_user
from captum_blackbox.statistics import Statistic
from captum_blackbox.statistics.running import check_names


class Broken(Statistic):
    """The numbers of images that are left out.

    Args:
        images: How many there are in all.

    Attributes:
        flags: 1 for each image that is left out, ``(images,)`` uint8.

    Example:
        >>> broken = Broken(3)
        >>> broken.load_state({"reasons": as_bytes({1: "'a.png' is empty"})})
        >>> broken.numbers(), broken.messages()
        ([1], ("image 1: 'a.png' is empty",))
    """

    def __init__(self, images: int) -> None:
        self.flags = torch.zeros(images, dtype=torch.uint8)
        self._reasons: dict[int, str] = {}

    def empty(self) -> "Broken":
        """Return one of as many images, all whole."""
        return Broken(len(self.flags))

    def update(self, reasons: Mapping[int, str]) -> None:
        """Leave out images, for these reasons, and warn of each."""
        for number, reason in reasons.items():
            self.flags[number] = 1
            self._reasons[number] = reason
            warn_user(f"left out: {reason}")

    def numbers(self) -> list[int]:
        """Return the images that are left out."""
        return sorted(self._reasons)

    def messages(self) -> tuple[str, ...]:
        """Return a line for each image, with the reason."""
        return tuple(f"image {number}: {self._reasons[number]}" for number in self.numbers())

    def merge(self, other: "Broken") -> None:
        """Leave out what ``other`` leaves out."""
        self._leave_out({**self._reasons, **other._reasons})  # noqa: SLF001 - of the same class

    def state(self) -> dict[str, Tensor]:
        """Return the reasons as the bytes of JSON."""
        return {"reasons": as_bytes(self._reasons)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state`."""
        check_names(state, ["reasons"])
        text = bytes(state["reasons"].tolist()).decode() or "{}"
        self._leave_out({int(number): reason for number, reason in json.loads(text).items()})

    def _leave_out(self, reasons: Mapping[int, str]) -> None:
        self._reasons = dict(reasons)
        self.flags.zero_()
        self.flags[self.numbers()] = 1


def as_bytes(reasons: Mapping[int, str]) -> Tensor:
    """Return reasons as the bytes of JSON, uint8; none if there are none."""
    text = json.dumps(reasons) if reasons else ""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)
