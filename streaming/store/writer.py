"""Appends frames to a selection store, one transaction each, and keeps the file within its quota."""

import contextlib
import dataclasses
import importlib.metadata
import sqlite3
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.errors import StoreError
from engine.record.recorder import NotKept as NotKept
from engine.record.rows import FrameRow, SelectionRow
from engine.record.schema import APPLICATION_ID, TABLES, VERSION

_LOCK_TIMEOUT_S = 2.0
"""How long another program may hold the store before a write is given up."""

_MAGIC = b"SQLite format 3\0"


class StoreWriter:
    """One SQLite file, created or appended to; used by one thread at a time.

    Args:
        path: the store.
        quota_mb: what the live pages of the file may take; the least useful frames make room.
        session: uuid hex of this run.

    Attributes:
        session: uuid hex of this run.

    Raises:
        StoreError: the file is locked, damaged, of a newer version, or somebody else's.
    """

    def __init__(self, path: Path, *, quota_mb: float = 2048, session: str | None = None) -> None:
        self.path = path
        self.session = session or uuid.uuid4().hex
        self._quota_bytes = int(quota_mb * 2**20)
        self._models: dict[str, int] = {}
        self._session_id = 0
        self._check_file()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"--record {path}: {error}") from None
        try:
            self._open()
        except StoreError:
            self._connection.close()
            raise
        except sqlite3.Error as error:
            self._connection.close()
            raise StoreError(f"--record {path}: {_advice(error)}") from None

    def _check_file(self) -> None:
        """Refuse what is no SQLite file before SQLite touches it."""
        try:
            if not self.path.exists():
                return
            with self.path.open("rb") as file:
                start = file.read(len(_MAGIC))
        except OSError as error:
            raise StoreError(f"--record {self.path}: {error.strerror or error}") from None
        if start and start != _MAGIC:
            raise StoreError(f"--record {self.path}: no selection store (starts with {start!r}); name another file")

    def _open(self) -> None:
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION_ID:
            raise StoreError(f"--record {self.path}: a database of another program; name another file")
        if version > VERSION:
            raise StoreError(f"--record {self.path}: store version {version}, at most {VERSION} is written: update")
        self._connection.execute("PRAGMA journal_mode = WAL")
        # A robot loses power: a committed frame must be on the disk, and at a few frames a second that is cheap.
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        with self._transaction():
            if not tables:
                for statement in TABLES.split(";\n"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {VERSION}")
            self._connection.execute("SELECT id FROM frame ORDER BY usefulness, id LIMIT 1").fetchone()
            self._session_id = self._insert_session()

    def _insert_session(self) -> int:
        self._connection.execute(
            "INSERT OR IGNORE INTO session (uuid, started_ns, engine) VALUES (?, ?, ?)",
            (self.session, time.time_ns(), importlib.metadata.version("unseen-engine")),
        )
        (number,) = self._connection.execute("SELECT id FROM session WHERE uuid = ?", (self.session,)).fetchone()
        return int(number)

    @contextlib.contextmanager
    def _transaction(self):  # type: ignore[no-untyped-def]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            # After a full disk SQLite may have rolled back already.
            if self._connection.in_transaction:
                self._connection.rollback()

    @property
    def bytes(self) -> int:
        """What the live pages of the file take."""
        (size,) = self._connection.execute("PRAGMA page_size").fetchone()
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        return int(size * (pages - free))

    def append(self, frame: FrameRow, selections: Sequence[SelectionRow]) -> tuple[int, list[int]]:
        """Write one frame and its selections; when this returns they are on the disk.

        Returns:
            The id of the frame, and the ids of less useful ones that made room.

        Raises:
            NotKept: `quota`, `duplicate`, `disk_full`, `locked` or `write_error`; the store is as it was.
        """
        try:
            with self._transaction():
                size = frame.bytes + sum(row.bytes for row in selections)
                evicted = self._make_room(size, frame.usefulness)
                frame_id = self._insert(frame, size, selections)
            return frame_id, evicted
        except sqlite3.Error as error:
            raise NotKept(_cause(error)) from error

    def _make_room(self, size_bytes: int, usefulness: float) -> list[int]:
        evicted = []
        while self.bytes + size_bytes > self._quota_bytes:
            least = self._connection.execute(
                "SELECT id, usefulness FROM frame ORDER BY usefulness, id LIMIT 1"
            ).fetchone()
            if least is None or least[1] > usefulness:
                raise NotKept("quota")
            self._connection.execute("DELETE FROM frame WHERE id = ?", (least[0],))
            evicted.append(int(least[0]))
        return evicted

    def _insert(self, frame: FrameRow, size_bytes: int, selections: Sequence[SelectionRow]) -> int:
        fields = dataclasses.asdict(frame)
        model_id = self._model(fields.pop("model_hash"), fields.pop("model_name"))
        fields |= {"session_id": self._session_id, "model_id": model_id, "bytes": size_bytes}
        fields["exact"] = int(frame.exact)
        frame_id = self._connection.execute(_insertion("frame", fields), fields).lastrowid
        for row in selections:
            fields = dataclasses.asdict(row) | {"frame_id": frame_id}
            self._connection.execute(_insertion("selection", fields), fields)
        assert frame_id is not None
        return frame_id

    def _model(self, digest: str, name: str) -> int:
        self._connection.execute("INSERT OR IGNORE INTO model (hash, name) VALUES (?, ?)", (digest, name))
        (number,) = self._connection.execute("SELECT id FROM model WHERE hash = ?", (digest,)).fetchone()
        return int(number)

    def embeddings(self, count: int) -> list[tuple[int, np.ndarray]]:
        """(frame id, embedding float32 [E]) of the latest `count` selections that have one, oldest first."""
        rows = self._connection.execute(
            "SELECT frame_id, embedding FROM selection WHERE embedding IS NOT NULL"
            " ORDER BY frame_id DESC, id DESC LIMIT ?",
            (count,),
        ).fetchall()
        return [(frame_id, np.frombuffer(embedding, "<f4")) for frame_id, embedding in reversed(rows)]

    def close(self) -> None:
        """Move the log into the file and let go of it."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


def _insertion(table: str, fields: dict[str, object]) -> str:
    return f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({', '.join(f':{name}' for name in fields)})"


def _cause(error: sqlite3.Error) -> str:
    """The cause as it is counted; SQLite's texts are part of its interface, its codes reach Python from 3.11 on."""
    if isinstance(error, sqlite3.IntegrityError):
        return "duplicate"
    text = str(error)
    if "full" in text or "disk I/O error" in text:
        return "disk_full"
    return "locked" if "locked" in text else "write_error"


def _advice(error: sqlite3.Error) -> str:
    text = str(error)
    if "locked" in text:
        return f"locked by another program for {_LOCK_TIMEOUT_S:.0f} s; end that one or name another file"
    if "malformed" in text or "not a database" in text or "no such" in text:
        return f"damaged ({text}); move it away, python -m learning.store check tells more"
    if "full" in text:
        return "the disk is full; free some space or name a file elsewhere"
    return f"cannot be opened ({text}); is the folder writable?"
