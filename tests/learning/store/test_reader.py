"""A recorded store read back: order, splits, refusals, and reading while somebody writes."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engine.config import RecordConfig
from engine.errors import StoreError, UsageError
from engine.record import schema
from engine.record.recorder import Recorder
from learning.store import SelectionStore
from learning.store import reader as reading
from streaming.store.writer import StoreWriter
from tests.streaming.store.scenes import make_final, make_frame, make_rows


def test_reader_and_writer_mean_the_same_file() -> None:
    assert (reading.APPLICATION_ID, reading.VERSION) == (schema.APPLICATION_ID, schema.VERSION)


def test_every_frame_is_found_in_order_and_at_random(recorded: Path) -> None:
    with SelectionStore(recorded) as store:
        frames = list(store.frames())
        assert [frame.id for frame in frames] == store.frame_ids() == sorted(store.frame_ids())
        assert len(frames) == 12
        for frame in reversed(frames):
            again = store.frame(frame.id)
            assert (again.number, again.source, again.jpeg) == (frame.number, frame.source, frame.jpeg)
            assert [s.object_id for s in again.selections] == [7]
        with pytest.raises(StoreError, match="frame 999"):
            store.frame(999)


def test_info_counts_what_is_there(recorded: Path) -> None:
    with SelectionStore(recorded) as store:
        info = store.info()
    assert (info["frames"], info["selections"], info["objects"]) == (12, 12, 2)
    assert info["sources"] == {"left": 6, "right": 6}
    assert info["models"] == [{"name": "tiny", "hash": "c0ffee", "frames": 12}]
    assert info["exact_share"] == 1.0
    assert info["mean_novelty"] == pytest.approx(0.5)
    assert info["capture_ns"] == [1_000_000_000, 6_000_000_000]


def test_an_empty_store_is_no_error(tmp_path: Path) -> None:
    StoreWriter(tmp_path / "a.store").close()
    with SelectionStore(tmp_path / "a.store") as store:
        assert store.frame_ids() == store.frame_ids("train") == []
        assert store.info()["frames"] == 0
        assert store.info()["exact_share"] is None


def test_the_split_takes_blocks_of_time_and_keeps_them(tmp_path: Path) -> None:
    recorder = Recorder(StoreWriter(tmp_path / "a.store", session="5e55"), RecordConfig(interval=1))
    for index in range(0, 1500, 10):  # one frame every ten seconds
        recorder.step(make_frame(index), [make_final(index)])
    recorder.close()
    with SelectionStore(tmp_path / "a.store") as store:
        train, held = store.frame_ids("train"), store.frame_ids("held_out")
        assert sorted(train + held) == store.frame_ids()
        assert 0.08 < len(held) / 150 < 0.35
        blocks = [{store.frame(i).capture_ns // (20 * 10**9) for i in ids} for ids in (train, held)]
        assert not blocks[0] & blocks[1]
        assert [frame.id for frame in store.frames("held_out")] == held
        assert all(store.frame(i).held_out for i in held)
        with pytest.raises(UsageError, match="'test'"):
            store.frame_ids("test")


def test_a_store_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "a.store")
    writer.append(*make_rows(0))
    with SelectionStore(tmp_path / "a.store") as store:
        ids = store.frame_ids()
        writer.append(*make_rows(1))
        assert len(store.frame_ids()) == len(ids) + 1
        numbers = []
        for frame in store.frames():
            numbers.append(frame.number)
            writer._connection.execute("DELETE FROM frame WHERE number = 1")
        assert numbers == [0], "a frame evicted meanwhile is left out"
    writer.close()


def test_a_store_in_a_read_only_folder_can_be_read(recorded: Path) -> None:
    recorded.parent.chmod(0o500)
    try:
        with SelectionStore(recorded) as store:
            assert len(store.frame_ids()) == 12
    finally:
        recorded.parent.chmod(0o700)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no such selection store"), (b"a diary, nothing else" * 50, "no selection store")]
)
def test_what_is_no_store_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "a.store"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=said):
        SelectionStore(path)


def test_other_databases_and_newer_stores_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "songs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    with pytest.raises(StoreError, match="no selection store"):
        SelectionStore(path)
    newer = tmp_path / "a.store"
    StoreWriter(newer).close()
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="version 99"):
        SelectionStore(newer)


def test_damage_inside_a_row_is_told_by_the_frame_that_has_it(recorded: Path) -> None:
    with closing(sqlite3.connect(recorded)) as connection, connection:
        connection.execute("UPDATE frame SET jpeg = x'ffd8ff' WHERE id = 3")
        connection.execute("UPDATE selection SET rle = '11' WHERE frame_id = 4")
    with SelectionStore(recorded) as store:
        with pytest.raises(StoreError, match="frame 3: its picture"):
            store.frame(3).image()
        with pytest.raises(StoreError, match="mask of object 7 is damaged"):
            store.frame(4).selections[0].mask()
        assert np.array_equal(store.frame(5).image().shape, (48, 80, 3))
