"""Which label a value of a mask stands for."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from captum_blackbox.concepts.concepts import Annotation, Label
from captum_blackbox.concepts.image_files import Integers
from captum_blackbox.errors import DataError, InputError

Names = Sequence[str] | Mapping[int, str]
"""Value → name, or the names of the values 1, 2, …"""

_MOST_VALUES = 1 << 24


class ValueTable:
    """Value → label number through one look-up; a value without an entry is refused.

    Args:
        numbers: Value → label number, 0 for none; at least one.
        advice: What to do about a value that has no entry.

    Raises:
        InputError: A value is beyond 24 bits.

    Example:
        >>> table = ValueTable({0: 0, 7: 1, 255: 0}, "name it")
        >>> table.numbers(np.array([7, 0, 255]), "the mask")
        array([1, 0, 0], dtype=int32)
        >>> table.numbers(np.array([7, 8, 8]), "the mask")
        Traceback (most recent call last):
        ...
        captum_blackbox.errors.DataError: the mask holds the value 8, which no label has; name it
    """

    def __init__(self, numbers: Mapping[int, int], advice: str) -> None:
        largest = max(map(abs, numbers))
        if largest >= _MOST_VALUES:
            raise InputError(f"expected values below {_MOST_VALUES}, 24 bits, got {largest}")
        self._advice = advice
        self._first = min(numbers) - 1
        # One unknown entry on either side, which everything beyond falls on.
        self._table = np.full(max(numbers) - self._first + 2, -1, dtype=np.int32)
        self._table[np.fromiter(numbers, np.intp) - self._first] = list(numbers.values())

    def numbers(self, values: Integers, where: str) -> NDArray[np.int32]:
        """Return the label number of each value.

        Raises:
            DataError: A value has no entry; the message starts with ``where``.
        """
        places = values.astype(np.intp)
        found = np.asarray(np.take(self._table, places - self._first, mode="clip"))
        if found.size and found.min() < 0:
            unknown = int(values[found < 0][0])
            raise DataError(
                f"{where} holds the value {unknown}, which no label has; {self._advice}"
            )
        return found

    def entries(self) -> list[tuple[int, int]]:
        """Return all values with their label numbers, for a hash."""
        known = np.flatnonzero(self._table >= 0)
        return [(int(place) + self._first, int(self._table[place])) for place in known]


def named_values(names: Names, ignore: Collection[int] | None) -> dict[int, str]:
    """Return value → name, the empty name for values that are ignored.

    Args:
        names: See ``Names``.
        ignore: Values that carry no label, whether they have a name or not; by default 0 where it
            has none.

    Raises:
        InputError: There is no name, or the names are one text.

    Example:
        >>> named_values(["sky", "sea"], None)
        {1: 'sky', 2: 'sea', 0: ''}
    """
    if isinstance(names, str):
        raise InputError(f"names is a list of texts or value → text, got the text {names!r}")
    pairs = names if isinstance(names, Mapping) else dict(enumerate(names, 1))
    named = {int(value): name for value, name in pairs.items() if name}
    if ignore is None:
        ignore = () if 0 in named else (0,)
    named.update(dict.fromkeys(ignore, ""))
    if not any(named.values()):
        raise InputError("names has no name for a value that is not ignored")
    return named


def tables(
    values: Iterable[tuple[str, Mapping[int, str]]], advice: str
) -> tuple[list[Label], dict[str, ValueTable]]:
    """Number the labels of several categories through.

    Args:
        values: Category and value → name, the empty name for none; values with the same name
            are one label.
        advice: What to do about a value without an entry.

    Returns:
        The labels, and category → table.

    Example:
        >>> tables([("object", {0: "", 3: "cat"}), ("color", {1: "red"})], "")[0]
        [Label(name='cat', category='object'), Label(name='red', category='color')]
    """
    labels: list[Label] = []
    table = {}
    for category, named in values:
        first = len(labels) + 1
        distinct = dict.fromkeys(name for name in named.values() if name)
        labels += [Label(name, category) for name in distinct]
        number = {"": 0} | {name: first + place for place, name in enumerate(distinct)}
        entries = {value: number[name] for value, name in named.items()}
        table[category] = ValueTable(entries, advice)
    return labels, table


def layer_annotation(numbers: NDArray[np.int32]) -> Annotation:
    """Return one layer of label numbers ``(h, w)`` as an annotation."""
    return Annotation(torch.from_numpy(numbers[None]))


def whole_annotation(number: int, size: tuple[int, int]) -> Annotation:
    """Return a label of the image as a whole, or with 0 of nothing, as an annotation."""
    return Annotation(torch.empty((0, *size), dtype=torch.int32), (number,) if number else ())
