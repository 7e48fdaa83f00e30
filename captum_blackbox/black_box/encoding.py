"""Images as keys and answers as bytes: what a cache of answers is made of."""

import hashlib
import json
from collections.abc import Sequence
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from captum_blackbox.artifacts import tensor_bytes
from captum_blackbox.errors import OutputError

Columns: TypeAlias = tuple[Tensor, ...]
"""What a batch was answered: one tensor for scores or labels, two for a top-k."""

Row: TypeAlias = tuple[str, bytes]
"""The answer to one image: dtypes and shapes as JSON, and the values of all columns."""


def content_keys(images: Tensor) -> list[bytes]:
    """Return a key of 32 bytes for each image: equal for equal values, shape and dtype.

    Example:
        >>> first, second = content_keys(torch.zeros(2, 1, 1, 1))
        >>> first == second, first == content_keys(torch.zeros(1, 1, 1, 1).double())[0]
        (True, False)
    """
    start = hashlib.blake2b(f"{tuple(images.shape[1:])} {images.dtype}".encode(), digest_size=32)
    values = tensor_bytes(images)
    size = len(values) // len(images)
    keys = []
    for first in range(0, len(values), size):
        digest = start.copy()
        digest.update(values[first : first + size])
        keys.append(digest.digest())
    return keys


def encoded(columns: Columns) -> list[Row]:
    """Return one row per image; nothing is rounded.

    Example:
        >>> form, values = encoded((torch.tensor([3, 4]),))[1]
        >>> form, len(values)
        ('[["int64", []]]', 8)
    """
    layout = [(str(each.dtype).removeprefix("torch."), each.shape[1:]) for each in columns]
    flat = [each.cpu().contiguous().reshape(len(each), -1).view(torch.uint8) for each in columns]
    form = json.dumps(layout)
    return [(form, row.tobytes()) for row in torch.cat(flat, 1).numpy()]


def decoded(rows: Sequence[Row]) -> Columns:
    """Return the columns that were :func:`encoded`.

    Raises:
        OutputError: The answers do not have the same shape.

    Example:
        >>> decoded(encoded((torch.tensor([3, 4]),)))
        (tensor([3, 4]),)
    """
    form = rows[0][0]
    if any(other != form for other, _ in rows):
        return joined([_decoded(form, [values]) for form, values in rows])
    return _decoded(form, [values for _, values in rows])


def joined(parts: Sequence[Columns]) -> Columns:
    """Return the answers to several batches as those to one.

    Raises:
        OutputError: They do not have the same shape.
    """
    if len(parts) == 1:
        return parts[0]
    columns = list(zip(*parts, strict=True))
    for column in columns:
        widths = sorted({tuple(part.shape[1:]) for part in column})
        if len(widths) > 1:
            raise OutputError(
                f"the black box gives answers of shape {widths[0]} to some images and of shape "
                f"{widths[1]} to others; it must list the same number of classes for each"
            )
    return tuple(map(torch.cat, columns))


def _decoded(form: str, values: Sequence[bytes]) -> Columns:
    flat = torch.frombuffer(bytearray(b"".join(values)), dtype=torch.uint8).view(len(values), -1)
    columns, start = [], 0
    for dtype, shape in json.loads(form):
        kind: torch.dtype = getattr(torch, dtype)
        stop = start + kind.itemsize * prod(shape)
        # A copy, since a view as a wider dtype must begin at a multiple of its size.
        column = flat[:, start:stop].clone(memory_format=torch.contiguous_format).view(kind)
        columns.append(column.reshape(len(values), *shape))
        start = stop
    return tuple(columns)
