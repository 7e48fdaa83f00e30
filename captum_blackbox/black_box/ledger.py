"""What was asked and what was answered: counted, remembered, shared by processes."""

import contextlib
import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from captum_blackbox.artifacts import check_header
from captum_blackbox.black_box.encoding import Row
from captum_blackbox.errors import ArtifactError

_TABLES = (
    "CREATE TABLE IF NOT EXISTS header (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS count (only INTEGER PRIMARY KEY CHECK (only = 0), queries INTEGER)",
    "CREATE TABLE IF NOT EXISTS answers (image BLOB PRIMARY KEY, form TEXT, answer BLOB) "
    "WITHOUT ROWID",
    "INSERT OR IGNORE INTO count VALUES (0, 0)",
)
_APPLICATION = 0x43424258  # marks the file as ours, for SQLite and `file`
_IN_MEMORY = ":memory:"
_PAUSE_SECONDS = 0.001  # between looks at a lock: short, so that a quick asker starves nobody
_VARIABLES = 500  # SQLite's limit on placeholders in one statement is 999 in old builds

_ledgers: "weakref.WeakSet[Ledger]" = weakref.WeakSet()
_inherited: list[sqlite3.Connection] = []


class Ledger:
    """The number of images asked, and their answers by content, in one SQLite file.

    Answers and count are written in one transaction before an answer is used, so a process that is
    killed loses at most the batch it was waiting for. Processes that share the file share the
    count; they ask one after the other, never the same image twice, and read without waiting.

    Args:
        path: The file, or ``":memory:"``.
        header: What the answers belong to, as JSON; a file of something else is refused.

    Raises:
        ArtifactError: The file cannot be written, is no such file, or belongs to something else.

    Example:
        >>> ledger = Ledger(":memory:", {"output": "labels"})
        >>> with ledger.asking():
        ...     ledger.count(1)
        ...     ledger.write({b"image": ("form", b"answer")})
        >>> ledger.queries, ledger.read([b"image", b"other"])
        (1, {b'image': ('form', b'answer')})
    """

    _sqlite: sqlite3.Connection | None

    def __init__(self, path: str | Path, header: Mapping[str, Any]) -> None:
        self.path = str(path)
        self._header = dict(header)
        self._process = 0
        self._connect()

    @property
    def queries(self) -> int:
        """How many images were asked, by all processes and runs that used the file."""
        return int(self._execute("SELECT queries FROM count").fetchone()[0])

    def entry(self, key: str, value: object = None) -> Any:  # noqa: ANN401 - JSON
        """Return what the header says of ``key``.

        Where it says nothing, a given ``value`` is written first; inside ``asking``.
        """
        if value is not None:
            self._execute("INSERT OR IGNORE INTO header VALUES (?, ?)", (key, json.dumps(value)))
        found = self._execute("SELECT value FROM header WHERE key = ?", (key,)).fetchone()
        return None if found is None else json.loads(found[0])

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """Return the known answers among ``keys``."""
        known: dict[bytes, Row] = {}
        for start in range(0, len(keys), _VARIABLES):
            some = keys[start : start + _VARIABLES]
            marks = ",".join("?" * len(some))
            query = f"SELECT image, form, answer FROM answers WHERE image IN ({marks})"  # noqa: S608
            for image, form, answer in self._execute(query, some).fetchall():
                known[image] = (form, answer)
        return known

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Hold the right to ask; what was written stands even if the block raises later.

        Raises:
            ArtifactError: What was written cannot be kept: the disk is full.
        """
        connection = self._connection()
        with self._lock:
            try:
                self._begin(connection)
                yield
            finally:
                self._commit(connection)

    def count(self, images: int) -> None:
        """Record that ``images`` more were asked; inside ``asking``."""
        self._execute("UPDATE count SET queries = queries + ?", (images,))

    def write(self, answers: Mapping[bytes, Row]) -> None:
        """Record answers by the key of their image; inside ``asking``."""
        with self._explained():
            self._connection().executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)",
                [(key, *row) for key, row in answers.items()],
            )

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        if self.path != _IN_MEMORY and not (self._sqlite and self._sqlite.in_transaction):
            self._closing()
            self._sqlite = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy, or a spawned process, opens the same ledger with."""
        content = self._connection().serialize() if self.path == _IN_MEMORY else b""
        return {"path": self.path, "header": self._header, "content": content}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the ledger again; one in memory becomes a copy."""
        self.path, self._header = state["path"], state["header"]
        self._process = 0
        self._connect(state["content"])

    def _connection(self) -> sqlite3.Connection:
        # Memory that was inherited in a fork is the child's own; a file is not.
        is_inherited = self._process != os.getpid() and self.path != _IN_MEMORY
        return self._connect() if self._sqlite is None or is_inherited else self._sqlite

    def _connect(self, content: bytes = b"") -> sqlite3.Connection:
        with self._explained():
            if self.path != _IN_MEMORY:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=0, isolation_level=None, check_same_thread=False
            )
            self._closing = weakref.finalize(self, _close, connection, os.getpid())
            if content:
                connection.deserialize(content)
            is_new = self._is_new(connection)
            _patiently(connection, "PRAGMA journal_mode=WAL")
            _patiently(connection, "PRAGMA synchronous=NORMAL")
        if self._process != os.getpid():
            # Where a thread held it during a fork, nobody releases it in the child.
            self._process, self._lock = os.getpid(), threading.Lock()
        self._sqlite = connection
        _ledgers.add(self)
        if is_new:
            with self.asking():
                self._make_tables()
        written = {key: self.entry(key) for key in self._header}
        check_header(self.path, written, self._header)
        return connection

    def _make_tables(self) -> None:
        self._execute(f"PRAGMA application_id={_APPLICATION}")
        for statement in _TABLES:
            self._execute(statement)
        # Where another process was faster, the header is its own.
        if self._execute("SELECT count(*) FROM header").fetchone()[0] == 0:
            for key, value in self._header.items():
                self._execute("INSERT INTO header VALUES (?, ?)", (key, json.dumps(value)))

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        with self._explained():
            return _patiently(self._connection(), statement, values)

    def _begin(self, connection: sqlite3.Connection) -> None:
        # A block that was interrupted at the very end has left its transaction open: it goes on.
        with self._explained():
            if not connection.in_transaction:
                _patiently(connection, "BEGIN IMMEDIATE")

    def _commit(self, connection: sqlite3.Connection) -> None:
        with self._explained():
            try:
                if connection.in_transaction:
                    _patiently(connection, "COMMIT")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _is_new(self, connection: sqlite3.Connection) -> bool:
        # In this order: another process may be making the tables, both in one transaction.
        tables = _patiently(connection, "SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = _patiently(connection, "PRAGMA application_id").fetchone()[0]
        if tables > 0 and application != _APPLICATION:
            raise ArtifactError(
                f"{self.path!r} is a database, but no cache of answers; choose another file"
            )
        return bool(tables == 0)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ArtifactError(
                f"cannot use {self.path!r} as a cache of answers: {error}; choose another file, "
                "in a folder that can be written"
            ) from error


def _patiently(
    connection: sqlite3.Connection, statement: str, values: Sequence[Any] = ()
) -> sqlite3.Cursor:
    """Wait for a lock as long as it takes: it is released even if its holder dies."""
    # SQLite would wait itself, but not for every lock, unfairly, and deaf to Ctrl-C.
    while True:
        try:
            return connection.execute(statement, values)
        except sqlite3.OperationalError as error:
            # One that Python raises itself has no code.
            code = getattr(error, "sqlite_errorcode", 0)
            if code & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(_PAUSE_SECONDS)


def _close(connection: sqlite3.Connection, process: int) -> None:
    if process == os.getpid():
        connection.close()
    else:
        _inherited.append(connection)  # SQLite forbids a child to close what its parent opened


def _close_all() -> None:
    for ledger in list(_ledgers):
        ledger.close()


if hasattr(os, "register_at_fork"):
    # A file that is open during a fork confuses SQLite in parent and child, even if it is never
    # used again: each takes the locks of the other for its own, and answers get lost.
    os.register_at_fork(before=_close_all)
