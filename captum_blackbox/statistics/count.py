"""How much was seen."""

from collections.abc import Mapping

import torch
from torch import Tensor

from captum_blackbox.statistics.running import Statistic, check_names


class Count(Statistic):
    """How many batches and inputs were seen.

    Example:
        >>> count = Count()
        >>> count.update(32)
        >>> count.batches, count.inputs
        (1, 32)
    """

    def __init__(self) -> None:
        self._seen = torch.zeros(2, dtype=torch.int64)

    @property
    def batches(self) -> int:
        """How many batches."""
        return int(self._seen[0])

    @property
    def inputs(self) -> int:
        """How many inputs."""
        return int(self._seen[1])

    def empty(self) -> "Count":
        """Return one that has seen nothing."""
        return Count()

    def update(self, inputs: int) -> None:
        """Count a batch of so many inputs."""
        self._seen += torch.tensor([1, inputs])

    def merge(self, other: "Count") -> None:
        """Add what ``other`` has seen."""
        self._seen += other.state()["seen"]

    def state(self) -> dict[str, Tensor]:
        """Return both numbers."""
        return {"seen": self._seen}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state`."""
        check_names(state, ["seen"])
        self._seen = state["seen"].clone().cpu()
