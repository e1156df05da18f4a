"""The engine never waits for the store, whatever the disk does."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.config import RecordConfig
from engine.record.recorder import Recorder
from learning.store import SelectionStore
from streaming.store.sink import StoreSink
from streaming.store.writer import StoreWriter
from tests.streaming.store.scenes import make_final, make_frame


def test_everything_is_written_and_counted_when_there_is_time(tmp_path: Path) -> None:
    sink = StoreSink(Recorder(StoreWriter(tmp_path / "a.store"), RecordConfig(interval=2)), size=64)
    for index in range(10):
        sink.step(make_frame(index), [make_final(index), make_final(index, kind="provisional")])
    sink.step(None, [])
    sink.close()
    sink.close()
    summary = sink.summary()
    assert (summary["kept"], summary["not_kept"]) == (5, {"interval": 5})
    assert not (tmp_path / "a.store-wal").exists(), "the log was not moved into the file"
    with SelectionStore(tmp_path / "a.store") as store:
        assert len(store.frame_ids()) == 5
        assert {frame.session for frame in store.frames()} == {summary["session"]}


def test_a_store_that_hangs_costs_frames_but_no_time(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    sink = StoreSink(Recorder(StoreWriter(path), RecordConfig(interval=1)), size=4)
    frames, finals = [make_frame(i) for i in range(40)], [make_final(i) for i in range(40)]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for frame, final in zip(frames, finals, strict=True):
            sink.step(frame, [final])
        other.execute("ROLLBACK")
    sink.step(None, [])
    sink.close()
    summary = sink.summary()
    assert summary["not_kept"]["queue_full"] >= 30, "a write waits 2 s for the lock; the engine must not"
    assert summary["kept"] + sum(summary["not_kept"].values()) == 40
    with SelectionStore(path) as store:
        kept = list(store.frames())
    assert len(kept) == summary["kept"] > 0
    # After lost frames the picture seen last is not the one before this one.
    assert all(f.previous_capture_ns in (None, f.capture_ns - 1_000_000_000) for f in kept)


def test_an_error_nobody_thought_of_ends_neither_engine_nor_recording(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = StoreSink(Recorder(StoreWriter(tmp_path / "a.store"), RecordConfig(interval=1)), size=64)
    broken = make_final(1)
    broken = make_final(1, labels=broken.labels.astype(complex))
    for index in range(4):
        sink.step(make_frame(index), [broken if index == 1 else make_final(index)])
    sink.close()
    summary = sink.summary()
    assert (summary["kept"], summary["not_kept"]) == (3, {"write_error": 1})
    assert sum("recording failed" in line for line in caplog.messages) == 1
