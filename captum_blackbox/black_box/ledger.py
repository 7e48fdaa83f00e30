"""What was asked and what was answered: counted, remembered, shared by processes."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from captum_blackbox.artifacts import check_header
from captum_blackbox.errors import ArtifactError

Answer = dict[str, Tensor]
"""One answer: name → row."""

_TABLES = """
CREATE TABLE IF NOT EXISTS header (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS count (only INTEGER PRIMARY KEY CHECK (only = 0), queries INTEGER);
CREATE TABLE IF NOT EXISTS answers (image BLOB PRIMARY KEY, answer BLOB) WITHOUT ROWID;
INSERT OR IGNORE INTO count VALUES (0, 0);
"""
_WAIT_SECONDS = 24 * 3600.0  # as long as another process may take for one batch of questions
_VARIABLES = 500  # SQLite's limit on placeholders in one statement is 999 in old builds


class Ledger:
    """The number of images asked, and their answers by content, in one SQLite file.

    Answers and count are written in one transaction before an answer is used, so a process that is
    killed loses at most the batch it was waiting for. Processes that share the file share the
    count; they ask one after the other, never the same image twice, and read without waiting.

    Args:
        path: The file, or ``":memory:"``.
        header: What the answers belong to; another header is refused.

    Raises:
        ArtifactError: The file cannot be written, is no such file, or belongs to something else.

    Example:
        >>> import torch
        >>> ledger = Ledger(":memory:", {"output": "logits"})
        >>> with ledger.asking():
        ...     ledger.count(1)
        ...     ledger.write({b"image": {"scores": torch.ones(2)}})
        >>> ledger.queries, ledger.read([b"image", b"other"])
        (1, {b'image': {'scores': tensor([1., 1.])}})
    """

    def __init__(self, path: str | Path, header: Mapping[str, Any]) -> None:
        self.path = str(path)
        self._connections: dict[int, sqlite3.Connection] = {}
        try:
            if self.path != ":memory:":
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            connection = self._connection()
            connection.executescript(_TABLES)
            self._check(connection, header)
        except (sqlite3.Error, OSError) as error:
            raise ArtifactError(
                f"cannot use {self.path!r} as a cache of answers: {error}; choose a file in a "
                "folder that can be written"
            ) from error

    @property
    def queries(self) -> int:
        """How many images were asked, by all processes and runs that used the file."""
        return int(self._connection().execute("SELECT queries FROM count").fetchone()[0])

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        """Return the known answers among ``keys``."""
        known: dict[bytes, Answer] = {}
        for start in range(0, len(keys), _VARIABLES):
            some = keys[start : start + _VARIABLES]
            marks = ",".join("?" * len(some))
            rows = self._connection().execute(
                f"SELECT image, answer FROM answers WHERE image IN ({marks})",  # noqa: S608
                some,
            )
            known.update((image, tensors_from_bytes(answer)) for image, answer in rows)
        return known

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Hold the right to ask; what was written stands even if the block raises later."""
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("COMMIT")

    def count(self, images: int) -> None:
        """Record that ``images`` more were asked; inside ``asking``."""
        self._connection().execute("UPDATE count SET queries = queries + ?", (images,))

    def write(self, answers: Mapping[bytes, Answer]) -> None:
        """Record answers by the key of their image; inside ``asking``."""
        self._connection().executemany(
            "INSERT OR REPLACE INTO answers VALUES (?, ?)",
            [(key, tensors_to_bytes(answer)) for key, answer in answers.items()],
        )

    def _connection(self) -> sqlite3.Connection:
        # A connection must not cross a fork, so each process opens its own.
        process = os.getpid()
        if process not in self._connections:
            connection = sqlite3.connect(
                self.path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            self._connections[process] = connection
        return self._connections[process]

    def _check(self, connection: sqlite3.Connection, header: Mapping[str, Any]) -> None:
        entries = {key: str(value) for key, value in header.items()}
        connection.executemany("INSERT OR IGNORE INTO header VALUES (?, ?)", entries.items())
        written = dict(connection.execute("SELECT key, value FROM header").fetchall())
        check_header(self.path, written, entries)
