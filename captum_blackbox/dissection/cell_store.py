"""Active cells of past batches, kept so that the network need not run on them again."""

from collections.abc import Callable, Mapping

from torch import Tensor

from captum_blackbox.dissection.active_cells import ActiveCells

_DENSEST = 0.1  # share of active cells above which running the network again costs less
_SMALL = 16 << 20  # bytes that are not worth a look for what can be dropped
_GROWTH = 1.5  # what is kept may grow by this before the next look
_PATIENCE = 16  # where nothing can be dropped: one look in so many batches, growing with them
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
        self._after_look = 0  # bytes that were left when cells were last dropped
        self._asked, self._asked_at_look = 0, 0

    def takes(self, active: int, total: int) -> bool:
        """Return whether so many active cells of a total are few enough to be kept."""
        return active <= _DENSEST * total and self.most_bytes > 0

    def keep(self, batch: int, cells: ActiveCells, total: int, bound: Callable[[], Tensor]) -> None:
        """Keep the active cells of a batch, if they are few of its ``total``.

        Where there is no room, those are dropped that a risen ``bound`` has overtaken.
        """
        self._asked += 1
        if not self.takes(len(cells), total):
            return
        cells = cells.to("cpu")
        after = self._bytes + _bytes(cells)
        if after > self._next_look:
            self._forget_below(bound().cpu())
        if self._bytes + _bytes(cells) <= self.most_bytes:
            self._batches[batch] = cells
            self._unsaved.append(batch)
            self._bytes += _bytes(cells)

    @property
    def _next_look(self) -> int | float:
        """How many bytes to reach before it is worth looking for cells to drop."""
        if self._asked - self._asked_at_look > max(_PATIENCE, self._asked // _PATIENCE):
            return self.most_bytes
        full = max(self.most_bytes, self._after_look + self.most_bytes // _PATIENCE)
        return min(full, max(_SMALL, _GROWTH * self._after_look))

    def _forget_below(self, bound: Tensor) -> None:
        """Drop the cells that a risen bound has overtaken; those above it never grow in number."""
        for batch, cells in self._batches.items():
            self._batches[batch] = cells.still_above(bound)
        self._bytes = sum(map(_bytes, self._batches.values()))
        self._after_look, self._asked_at_look = self._bytes, self._asked

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
        self._bytes = sum(map(_bytes, self._batches.values()))  # some may lie in two files


def _bytes(cells: ActiveCells) -> int:
    return sum(each.numel() * each.element_size() for each in cells.tensors())
