"""Stores of many robots and of mined recordings become one selection store to train on."""

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import StoreError, UsageError
from engine.record.schema import APPLICATION_ID, TABLES, VERSION
from learning.fleet.alike import Known, fingerprint
from learning.fleet.balance import Candidate, choose
from learning.fleet.stores import Reference, read_frames
from learning.store.records import FrameRecord

_ROW_BYTES = 200
"""What a row costs besides its blobs, roughly; as the robots count."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A frame of one of the stores.

    Attributes:
        rank: the smallest of several frames with the same key is taken: exact ones, then those with less doubt.
    """

    reference: Reference
    key: tuple[str, str, int]
    rank: tuple[bool, float, str]


def merge_fleet(
    stores: Sequence[str], out: Path, limit: int | None, told: Callable[[str, int], None] = lambda stage, done: None
) -> dict[str, int]:
    """Write the frames of all stores that are worth it into a new selection store.

    The same frame (session, source and number) counts once, the same picture with the same selection counts once, and
    the rest is ordered by what it adds to what was chosen before, which is its `usefulness` in the new store. Which
    order the stores are named in makes no difference.

    Args:
        limit: frames at most; None for all.
        told: given the stage and how many frames it has dealt with.

    Returns:
        Frames `read`, `same`, `alike`, `damaged`, `left_out` (by the limit) and `kept`.

    Raises:
        UsageError: `out` exists, or the limit is below 1.
        StoreError: a store that cannot be read, or `out` cannot be written.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--frames {limit}: must be 1 or more")
    if out.exists():
        raise UsageError(f"--out {out}: exists already; name a new file")
    counts = dict.fromkeys(("read", "same", "alike", "damaged", "left_out", "kept"), 0)
    best: dict[tuple[str, str, int], _Found] = {}
    for store in stores:
        for reference, frame in read_frames(store):
            counts["read"] += 1
            told("reading", counts["read"])
            key = frame.session, frame.source, frame.number
            found = _Found(reference, key, (not frame.exact, frame.loss_bound, frame.model_hash))
            if key in best:
                counts["same"] += 1
                found = min(found, best[key], key=lambda one: one.rank)
            best[key] = found
    wanted = {found.reference for found in best.values()}
    candidates = _candidates(stores, wanted, counts, told)
    chosen = choose([candidate for _, candidate in candidates], limit)
    counts["left_out"] = len(candidates) - len(chosen)
    _write(stores, out, {candidates[index][0]: gain for index, gain in chosen}, told)
    counts["kept"] = len(chosen)
    return counts


def _candidates(
    stores: Sequence[str], wanted: set[Reference], counts: dict[str, int], told: Callable[[str, int], None]
) -> list[tuple[Reference, Candidate]]:
    """Every different frame; of several alike the one with the most novelty stays."""
    found = []
    waiting, done = set(wanted), 0
    for store in stores:
        for reference, frame in read_frames(store):
            if reference not in waiting:
                continue
            waiting.remove(reference)  # a store named twice is read twice
            done += 1
            told("comparing", done)
            try:
                found.append((fingerprint(frame), reference, _candidate(frame)))
            except StoreError:
                counts["damaged"] += 1
    found.sort(key=lambda item: (-item[2].novelty.sum(), item[2].order))
    known = Known()
    out = [(reference, candidate) for mark, reference, candidate in found if known.add(mark)]
    counts["alike"] = len(found) - len(out)
    return out


def _candidate(frame: FrameRecord) -> Candidate:
    lengths = [len(item.embedding) for item in frame.selections if item.embedding is not None]
    length = lengths[0] if lengths else 1
    embeddings = np.full((len(frame.selections), length), np.nan, np.float32)
    for row, item in zip(embeddings, frame.selections, strict=True):
        if item.embedding is not None and len(item.embedding) == length:
            row[:] = item.embedding
    novelty = np.array([item.novelty for item in frame.selections], np.float64)
    return Candidate(novelty, f"{frame.model_hash}/{length}", embeddings, (frame.session, frame.source, frame.number))


def _write(stores: Sequence[str], out: Path, chosen: dict[Reference, float], told: Callable[[str, int], None]) -> None:
    """The chosen frames as a selection store that appears under its name when it is complete."""
    part = out.with_name(f"{out.name}.part")
    waiting = dict(chosen)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        connection = sqlite3.connect(part)
        try:
            connection.executescript(TABLES)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            for store in stores:
                for reference, frame in read_frames(store):
                    if reference in waiting:
                        _insert(connection, frame, waiting.pop(reference))
                        told("writing", len(chosen) - len(waiting))
            connection.commit()
        finally:
            connection.close()
        if waiting:
            raise StoreError(f"{len(waiting)} frames left their stores meanwhile; repeat when nobody records")
        os.replace(part, out)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"--out {out}: {getattr(error, 'strerror', None) or error}; make room and repeat") from None
    finally:
        part.unlink(missing_ok=True)


def _insert(connection: sqlite3.Connection, frame: FrameRecord, usefulness: float) -> None:
    session = _id_of(connection, "session", "uuid", frame.session, {"started_ns": 0, "engine": "merged"})
    model = _id_of(connection, "model", "hash", frame.model_hash, {"name": frame.model_name})
    pictures = len(frame.jpeg) + len(frame.previous_jpeg or b"") + len(frame.doubt_png)
    masks = sum(len(item.rle) + 4 * (0 if item.embedding is None else len(item.embedding)) for item in frame.selections)
    values = {
        "session_id": session,
        "model_id": model,
        **{name: getattr(frame, name) for name in ("generation", "source", "number", "capture_ns", "pts_ns")},
        "height": frame.size[0],
        "width": frame.size[1],
        **{name: getattr(frame, name) for name in ("jpeg", "previous_jpeg", "previous_capture_ns", "flow_px")},
        "doubt": frame.doubt_png,
        "exact": int(frame.exact),
        **{name: getattr(frame, name) for name in ("lag", "loss_bound", "margin")},
        "usefulness": usefulness,
        "bytes": pictures + masks + _ROW_BYTES * (1 + len(frame.selections)),
    }
    frame_id = _add(connection, "frame", values)
    names = ("object_id", "rle", "area", "score", "foreground", "age", "novelty", "uncertainty", "motion_px")
    for item in frame.selections:
        x0, y0, x1, y1 = item.box
        vector = None if item.embedding is None else np.asarray(item.embedding, "<f4").tobytes()
        box = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
        own = {name: getattr(item, name) for name in names}
        _add(connection, "selection", {"frame_id": frame_id, **own, **box, "embedding": vector})


def _id_of(connection: sqlite3.Connection, table: str, key: str, value: str, more: dict[str, object]) -> int:
    row = connection.execute(f"SELECT id FROM {table} WHERE {key} = ?", (value,)).fetchone()
    return int(row[0]) if row else _add(connection, table, {key: value, **more})


def _add(connection: sqlite3.Connection, table: str, values: dict[str, object]) -> int:
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    cursor = connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def as_json(counts: dict[str, int]) -> str:
    """The counts for a file."""
    return json.dumps(counts, indent=1)
