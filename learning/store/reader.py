"""Reads a selection store, also while an engine writes to it."""

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from engine.errors import StoreError, UsageError
from learning.store.records import FrameRecord, SelectionRecord

APPLICATION_ID = 0x556E5365
VERSION = 1
SPLITS = ("train", "held_out")

_FRAME_COLUMNS = {
    "id": "frame.id",
    "session": "session.uuid",
    "source": "source",
    "number": "number",
    "capture_ns": "capture_ns",
    "pts_ns": "pts_ns",
    "width": "width",
    "height": "height",
    "model_name": "model.name",
    "model_hash": "model.hash",
    "generation": "generation",
    "exact": "exact",
    "lag": "lag",
    "loss_bound": "loss_bound",
    "margin": "margin",
    "usefulness": "usefulness",
    "flow_px": "flow_px",
    "previous_capture_ns": "previous_capture_ns",
}
_PICTURES = {"jpeg": "jpeg", "previous_jpeg": "previous_jpeg", "doubt_png": "doubt"}
_NO_PICTURES = {"jpeg": "x''", "previous_jpeg": "NULL", "doubt_png": "x''"}
_SELECTION_COLUMNS = (
    "object_id",
    "rle",
    "x",
    "y",
    "width",
    "height",
    "area",
    "score",
    "foreground",
    "age",
    "novelty",
    "uncertainty",
    "motion_px",
    "embedding",
)


def connect(path: Path, *, write: bool = False) -> sqlite3.Connection:
    """An open connection to an existing store, checked to be one.

    Raises:
        StoreError: missing, locked, damaged, somebody else's, or of a newer version.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no such selection store")
    uri = path.resolve().as_uri()
    modes = ["mode=rw"] if write else ["mode=ro", "immutable=1"]
    for mode in modes:
        connection = sqlite3.connect(f"{uri}?{mode}", uri=True, timeout=5, isolation_level=None)
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            break
        except sqlite3.Error as error:
            connection.close()
            # A store in a folder that may not be written has no log to read along with.
            if mode == modes[-1] or "unable to open" not in str(error):
                raise StoreError(f"{path}: {explain(error)}") from None
    if application != APPLICATION_ID:
        connection.close()
        raise StoreError(f"{path}: a database, but no selection store")
    if version > VERSION:
        connection.close()
        raise StoreError(f"{path}: store version {version}, this reader knows {VERSION}: update")
    return connection


def explain(error: sqlite3.Error) -> str:
    """One line about what SQLite refused, and what to do."""
    text = str(error)
    if "not a database" in text:
        return "no selection store"
    if "locked" in text:
        return "locked by another program; try again when it is done"
    if "malformed" in text or "no such" in text:
        return f"damaged ({text}); python -m learning.store check tells more"
    if "full" in text:
        return "the disk is full; free some space"
    return text


class SelectionStore:
    """Frames and selections of one store, in the order they were written.

        with SelectionStore(path) as store:
            for frame in store.frames("train"):
                ...

    Args:
        path: the SQLite file.

    Raises:
        StoreError: missing, locked, damaged, somebody else's, or of a newer version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._connection = connect(self.path)

    def frame_ids(self, split: str | None = None) -> list[int]:
        """Ids of all frames, ascending: a stable order for random access.

        Args:
            split: "train" or "held_out", see `FrameRecord.held_out`; None for all.

        Raises:
            UsageError: another split.
        """
        if split is not None and split not in SPLITS:
            raise UsageError(f"split {split!r}: one of {', '.join(SPLITS)}, or None, is needed")
        if split is None:
            return [row[0] for row in self._query("SELECT id FROM frame ORDER BY id")]
        wanted = split == "held_out"
        rows = self._query(_frames(_NO_PICTURES))
        return [row[0] for row in rows if _frame_record(row, _NO_PICTURES, ()).held_out == wanted]

    def frame(self, frame_id: int) -> FrameRecord:
        """One frame with its selections.

        Raises:
            StoreError: it is not, or no longer, in the store.
        """
        found = self._frame(frame_id)
        if found is None:
            raise StoreError(f"{self.path}: frame {frame_id} is not, or no longer, in the store")
        return found

    def frames(self, split: str | None = None) -> Iterator[FrameRecord]:
        """All frames of a split, one at a time; those evicted meanwhile are left out."""
        for frame_id in self.frame_ids(split):
            found = self._frame(frame_id)
            if found is not None:
                yield found

    def info(self) -> dict[str, Any]:
        """Counts, sizes and shares of what is stored."""
        frames, exact, first_ns, last_ns, size, useful = self._query(
            "SELECT count(*), sum(exact), min(capture_ns), max(capture_ns), sum(bytes), avg(usefulness) FROM frame"
        )[0]
        selections, novelty, uncertainty = self._query(
            "SELECT count(*), avg(novelty), avg(uncertainty) FROM selection"
        )[0]
        objects = self._query(
            "SELECT count(*) FROM (SELECT DISTINCT session_id, source, object_id"
            " FROM selection JOIN frame ON frame.id = frame_id)"
        )[0][0]
        return {
            "frames": frames,
            "selections": selections,
            "objects": objects,
            "sessions": self._query("SELECT count(*) FROM session")[0][0],
            "models": [
                {"name": name, "hash": digest, "frames": count}
                for name, digest, count in self._query(
                    "SELECT name, hash, count(*) FROM frame JOIN model ON model.id = model_id"
                    " GROUP BY model.id ORDER BY model.id"
                )
            ],
            "sources": dict(self._query("SELECT source, count(*) FROM frame GROUP BY source ORDER BY source")),
            "exact_share": exact / frames if frames else None,
            "mean_novelty": novelty,
            "mean_uncertainty": uncertainty,
            "mean_usefulness": useful,
            "capture_ns": [first_ns, last_ns] if frames else None,
            "content_mb": (size or 0) / 2**20,
            "file_mb": self.path.stat().st_size / 2**20,
        }

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> "SelectionStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _query(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {explain(error)}") from None

    def _frame(self, frame_id: int) -> FrameRecord | None:
        rows = self._query(_frames(_PICTURES, "WHERE frame.id = ?"), (frame_id,))
        if not rows:
            return None
        selections = self._query(
            f"SELECT {', '.join(_SELECTION_COLUMNS)} FROM selection WHERE frame_id = ? ORDER BY id", (frame_id,)
        )
        frame = _frame_record(rows[0], _PICTURES, ())
        return dataclasses.replace(frame, selections=tuple(_selection_record(row, frame.size) for row in selections))


def _frames(pictures: dict[str, str], where: str = "") -> str:
    columns = ", ".join((_FRAME_COLUMNS | pictures).values())
    return (
        f"SELECT {columns} FROM frame JOIN session ON session.id = session_id JOIN model ON model.id = model_id"
        f" {where} ORDER BY frame.id"
    )


def _frame_record(
    row: tuple[Any, ...], pictures: dict[str, str], selections: tuple[SelectionRecord, ...]
) -> FrameRecord:
    fields = dict(zip(_FRAME_COLUMNS | pictures, row, strict=True))
    size = fields.pop("height"), fields.pop("width")
    fields["exact"] = bool(fields["exact"])
    return FrameRecord(size=size, selections=selections, **fields)


def _selection_record(row: tuple[Any, ...], size: tuple[int, int]) -> SelectionRecord:
    fields = dict(zip(_SELECTION_COLUMNS, row, strict=True))
    x, y, width, height = (fields.pop(name) for name in ("x", "y", "width", "height"))
    embedding = fields.pop("embedding")
    vector = None if embedding is None else np.frombuffer(embedding, "<f4")
    return SelectionRecord(size=size, box=(x, y, x + width, y + height), embedding=vector, **fields)
