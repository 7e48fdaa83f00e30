"""Which images could not be read."""

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

    Example:
        >>> broken = Broken(3)
        >>> broken.flags[1] = 1
        >>> broken.numbers()
        [1]
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
        return self.flags.nonzero().flatten().tolist()

    def messages(self) -> tuple[str, ...]:
        """Return a line for each image, with the reason where this process knows it."""
        return tuple(
            f"image {number}: {self._reasons[number]}"
            if number in self._reasons
            else f"image {number}"
            for number in self.numbers()
        )

    def merge(self, other: "Broken") -> None:
        """Leave out what ``other`` leaves out."""
        self.flags |= other.flags.cpu()

    def state(self) -> dict[str, Tensor]:
        """Return a flag for each image."""
        return {"flags": self.flags}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state`."""
        check_names(state, ["flags"])
        self.flags = state["flags"].clone().cpu()
