"""Merge, shrink and check selection stores."""

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import StoreError, UsageError
from learning.store.reader import SelectionStore, connect, explain
from learning.store.records import FrameRecord


def merge(target: Path, sources: Sequence[Path]) -> dict[str, int]:
    """Add the frames of `sources` to `target`, made if need be; a frame it has already is not added again.

    Two frames are the same when session, source and number are. Interrupted, it has added a part of the
    frames, each with all its selections; run again it adds the rest.

    Returns:
        Frames `added` and `already_there`.

    Raises:
        UsageError: no source, or the target among them.
        StoreError: a file that is no store, locked, damaged, or cannot be written.
    """
    if not sources:
        raise UsageError("merge: name at least one store to add")
    if any(source.resolve() == target.resolve() for source in sources):
        raise UsageError(f"merge: {target} cannot be added to itself")
    counts = {"added": 0, "already_there": 0}
    if not target.exists():
        counts["added"] += _copy(sources[0], target)
        sources = sources[1:]
    for source in sources:
        with contextlib.closing(connect(source)) as reader, contextlib.closing(connect(target, write=True)) as writer:
            try:
                _add(reader, writer, counts)
            except sqlite3.Error as error:
                raise StoreError(f"merge of {source} into {target}: {explain(error)}") from None
    return counts


def _copy(source: Path, target: Path) -> int:
    """A whole copy that appears under its name only when it is complete; returns its frames."""
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with contextlib.closing(connect(source)) as reader, contextlib.closing(sqlite3.connect(part)) as writer:
            reader.backup(writer)
            (frames,) = writer.execute("SELECT count(*) FROM frame").fetchone()
            # The log of a file that is renamed would be left behind.
            writer.execute("PRAGMA journal_mode = DELETE")
        os.replace(part, target)
    except (OSError, sqlite3.Error) as error:
        part.unlink(missing_ok=True)
        reason = explain(error) if isinstance(error, sqlite3.Error) else error.strerror or error
        raise StoreError(f"{target}: {reason}") from None
    with contextlib.closing(connect(target, write=True)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return int(frames)


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def _add(reader: sqlite3.Connection, writer: sqlite3.Connection, counts: dict[str, int]) -> None:
    reader.row_factory = sqlite3.Row
    sessions = _mapped(reader, writer, "session", "uuid")
    models = _mapped(reader, writer, "model", "hash")
    shared = set(_columns(writer, "frame"))
    known = {tuple(row) for row in writer.execute("SELECT session_id, source, number FROM frame")}
    for (frame_id,) in reader.execute("SELECT id FROM frame ORDER BY id").fetchall():
        row = reader.execute("SELECT * FROM frame WHERE id = ?", (frame_id,)).fetchone()
        if row is None:
            continue  # evicted by its engine in the meantime
        fields = {name: value for name, value in _fields(row).items() if name in shared}
        fields |= {"session_id": sessions[row["session_id"]], "model_id": models[row["model_id"]]}
        if (fields["session_id"], fields["source"], fields["number"]) in known:
            counts["already_there"] += 1
            continue
        selections = reader.execute("SELECT * FROM selection WHERE frame_id = ? ORDER BY id", (frame_id,)).fetchall()
        writer.execute("BEGIN IMMEDIATE")
        new_id = _insert(writer, "frame", fields)
        for selection in selections:
            _insert(writer, "selection", _fields(selection) | {"frame_id": new_id})
        writer.execute("COMMIT")
        counts["added"] += 1


def _mapped(reader: sqlite3.Connection, writer: sqlite3.Connection, table: str, key: str) -> dict[int, int]:
    """Ids of the reader's rows in the writer's table, rows added where they are missing."""
    out = {}
    for row in reader.execute(f"SELECT * FROM {table}").fetchall():
        found = writer.execute(f"SELECT id FROM {table} WHERE {key} = ?", (row[key],)).fetchone()
        out[row["id"]] = found[0] if found else _insert(writer, table, _fields(row))
    return out


def _fields(row: sqlite3.Row) -> dict[str, Any]:
    """Columns and values of a row, without the id it has in its own store."""
    return {name: value for name, value in zip(row.keys(), row, strict=True) if name != "id"}


def _insert(connection: sqlite3.Connection, table: str, fields: dict[str, Any]) -> int:
    names, marks = ", ".join(fields), ", ".join("?" * len(fields))
    cursor = connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(fields.values()))
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def vacuum(path: Path) -> dict[str, float]:
    """Give the freed pages back to the disk; returns the size in MB `before` and `after`.

    Raises:
        StoreError: somebody else uses the store, or the disk has no room for the new copy.
    """
    before = path.stat().st_size if path.is_file() else 0
    with contextlib.closing(connect(path, write=True)) as connection:
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {explain(error)}") from None
    return {"before": before / 2**20, "after": path.stat().st_size / 2**20}


def check(path: Path, limit: int = 20) -> list[str]:
    """What is wrong with a store, at most `limit` lines; nothing when it is sound.

    Looks at the pages of the file, the references between rows, and whether every picture and mask can be
    decoded and is what its row says.

    Raises:
        StoreError: not a store at all.
    """
    with contextlib.closing(connect(path)) as connection:
        try:
            problems = [row[0] for row in connection.execute(f"PRAGMA integrity_check({limit})") if row[0] != "ok"]
            problems += [
                f"row {row[1]} of {row[0]} refers to nothing" for row in connection.execute("PRAGMA foreign_key_check")
            ]
        except sqlite3.Error as error:
            return [explain(error)]
    if problems:
        return problems[:limit]
    with SelectionStore(path) as store:
        for frame in store.frames():
            problems += _problems(frame)
            if len(problems) >= limit:
                break
    return problems[:limit]


def _problems(frame: FrameRecord) -> list[str]:
    problems = []
    try:
        frame.image()
        frame.previous_image()
        frame.doubt()
    except StoreError as error:
        problems.append(str(error))
    for item in frame.selections:
        name = f"frame {frame.id}, object {item.object_id}"
        try:
            mask = item.mask()
        except StoreError as error:
            problems.append(f"frame {frame.id}: {error}")
            continue
        if int(mask.sum()) != item.area:
            problems.append(f"{name}: mask has {int(mask.sum())} pixels, its row says {item.area}")
            continue
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if item.area else (0, 0, 0, 0)
        if tuple(int(v) for v in box) != item.box:
            problems.append(f"{name}: mask lies in {tuple(int(v) for v in box)}, its row says {item.box}")
    return problems
