"""Active cells of past batches, kept so that the network need not run on them again."""

from collections.abc import Mapping

from torch import Tensor

from captum_blackbox.dissection.active_cells import ActiveCells

_DENSEST = 0.1  # share of active cells above which running the network again costs less
_GROWTH = 1.25  # what is kept has to grow by this before cells are dropped again
_NAMES = ("images", "units", "places", "values")


class CellStore:
    """Active cells by the number of their batch, as many as fit.

    What does not fit is left out: the network has to run again on that batch.

    Args:
        most_bytes: How much to keep, on the CPU.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._batches: dict[int, ActiveCells] = {}
        self._unsaved: list[int] = []
        self._bytes = 0
        self._worth_a_look = 0.0  # bytes from which forgetting can make room

    def keep(self, batch: int, cells: ActiveCells, total: int, bound: Tensor) -> None:
        """Keep the cells of a batch that are above the bound, if they are few of the ``total``."""
        if len(cells) > _DENSEST * total or self.most_bytes == 0:
            return
        cells = cells.to("cpu")
        needed = _bytes(cells)
        if self._bytes + needed > self.most_bytes and self._bytes >= self._worth_a_look:
            self._forget_below(bound.cpu())
        if self._bytes + needed <= self.most_bytes:
            self._batches[batch] = cells
            self._unsaved.append(batch)
            self._bytes += needed

    def _forget_below(self, bound: Tensor) -> None:
        """Drop the cells that a risen bound has overtaken."""
        for batch, cells in self._batches.items():
            self._batches[batch] = cells.still_above(bound)
        self._bytes = sum(map(_bytes, self._batches.values()))
        self._worth_a_look = _GROWTH * self._bytes

    def find(self, batch: int) -> ActiveCells | None:
        """Return the cells of a batch if they were kept."""
        return self._batches.get(batch)

    def unsaved(self) -> dict[str, Tensor]:
        """Return what was kept since the last call."""
        found = {
            f"{batch}.{name}": tensor
            for batch in self._unsaved
            for name, tensor in zip(_NAMES, self._batches[batch].tensors(), strict=True)
        }
        self._unsaved = []
        return found

    def load(self, state: Mapping[str, Tensor], batches: int, bound: Tensor) -> None:
        """Take up what :meth:`unsaved` returned of the first ``batches``, as far as it counts."""
        for batch in sorted({int(name.partition(".")[0]) for name in state}):
            if batch < batches:
                # They were written when the bound was lower: as they are they may not fit.
                cells = ActiveCells(*(state[f"{batch}.{name}"] for name in _NAMES))
                cells = cells.still_above(bound)
                self._batches[batch] = cells
                self._bytes += _bytes(cells)


def _bytes(cells: ActiveCells) -> int:
    return sum(each.numel() * each.element_size() for each in cells.tensors())
