"""The store file: created, appended to, kept within its quota, and refused when it is not ours."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engine.errors import StoreError
from engine.record.schema import APPLICATION_ID, TABLES, VERSION
from streaming.store.writer import NotKept, StoreWriter
from tests.streaming.store.scenes import make_rows

PAGE = Path(__file__).resolve().parents[3] / "docs" / "store.md"


def numbers(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM frame ORDER BY id")]


def test_the_tables_are_those_of_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    described = re.search(r"```sql\n(.*?)```", page, re.DOTALL)
    assert described is not None
    without_remarks = re.sub(r"\s*--.*", "", described[1])
    assert without_remarks.split() == TABLES.split()
    assert f"{APPLICATION_ID:#x}".upper() in page.upper()
    assert f"`PRAGMA user_version` is {VERSION}" in page


def test_a_store_is_created_with_its_folder_and_appended_to_by_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.store"
    for run in range(2):
        writer = StoreWriter(path)
        for number in range(3):
            assert writer.append(*make_rows(number)) == (3 * run + number + 1, [])
        writer.close()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("SELECT count(*) FROM session").fetchone() == (run + 1,)
            assert connection.execute("SELECT count(*) FROM model").fetchone() == (1,)
            assert connection.execute("SELECT count(*) FROM selection").fetchone() == (6 * (run + 1),)
    assert numbers(path) == [0, 1, 2, 0, 1, 2]


def test_a_committed_frame_is_seen_by_others_at_once(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "a.store")
    with closing(sqlite3.connect(tmp_path / "a.store")) as reader:
        for number in range(3):
            writer.append(*make_rows(number))
            assert reader.execute("SELECT count(*) FROM frame").fetchone() == (number + 1,)
    writer.close()


def test_the_same_frame_is_not_written_twice(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "a.store")
    writer.append(*make_rows(1))
    with pytest.raises(NotKept, match="duplicate"):
        writer.append(*make_rows(1))
    writer.append(*make_rows(2))
    writer.close()
    assert numbers(tmp_path / "a.store") == [1, 2]


def test_the_least_useful_leave_first_and_the_older_of_equals(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "a.store", quota_mb=1)
    worth = np.random.default_rng(0).choice([0.1, 0.2, 0.3, 0.4], 160)
    kept: list[tuple[float, int]] = []
    frame_of: dict[int, int] = {}
    for number, value in enumerate(worth.tolist()):
        row, selections = make_rows(number, value, jpeg_bytes=20_000)
        try:
            frame_id, gone = writer.append(row, selections)
        except NotKept:
            assert kept[0][0] > value, "a frame was refused although a less useful one was there"
            continue
        assert gone == [frame_of[number] for _, number in kept[: len(gone)]]
        kept = sorted([*kept[len(gone) :], (value, number)])
        frame_of[number] = frame_id
        assert writer.bytes <= 2**20
    writer.close()
    assert numbers(tmp_path / "a.store") == sorted(number for _, number in kept)
    assert (tmp_path / "a.store").stat().st_size < 1.1 * 2**20
    assert len(kept) > 35, "the quota was not used"
    with closing(sqlite3.connect(tmp_path / "a.store")) as connection:
        assert connection.execute("SELECT count(*) FROM selection").fetchone() == (2 * len(kept),)


def test_a_frame_larger_than_the_quota_is_refused_and_nothing_leaves_for_it(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "a.store", quota_mb=1)
    for number in range(5):
        writer.append(*make_rows(number, 0.1))
    with pytest.raises(NotKept, match="quota"):
        writer.append(*make_rows(5, 0.9, jpeg_bytes=2**21))
    writer.close()
    assert numbers(tmp_path / "a.store") == [0, 1, 2, 3, 4]


def test_the_embeddings_kept_last_are_remembered_across_runs(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "a.store")
    rows = [make_rows(number, selections=1) for number in range(5)]
    for row, selections in rows:
        writer.append(row, selections)
    writer.close()
    again = StoreWriter(tmp_path / "a.store")
    wanted = [np.frombuffer(selections[0].embedding, "<f4") for _, selections in rows[2:]]
    np.testing.assert_array_equal([embedding for _, embedding in again.embeddings(3)], wanted)
    assert [frame_id for frame_id, _ in again.embeddings(3)] == [3, 4, 5]
    again.close()


def foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")


def newer_store(path: Path) -> None:
    StoreWriter(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")


def torn_store(path: Path) -> None:
    writer = StoreWriter(path)
    for number in range(20):
        writer.append(*make_rows(number))
    writer.close()
    path.write_bytes(path.read_bytes()[:6000])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("hello, I am a diary"), "no selection store"),
        (foreign_database, "another program"),
        (newer_store, "version 2, at most 1"),
        (torn_store, "damaged"),
        (lambda path: path.mkdir(), "directory"),
    ],
)
def test_what_is_not_ours_is_refused_in_one_line_and_left_alone(tmp_path: Path, make, said: str) -> None:
    path = tmp_path / "a.store"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError, match=said) as caught:
        StoreWriter(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_locked_store_is_refused_at_the_start_and_skipped_later(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    writer = StoreWriter(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another program for 2 s"):
            StoreWriter(path)
        with pytest.raises(NotKept, match="locked"):
            writer.append(*make_rows(1))
        other.execute("ROLLBACK")
    writer.append(*make_rows(2))
    writer.close()
    assert numbers(path) == [2]


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        StoreWriter(tmp_path / "file" / "a.store")
