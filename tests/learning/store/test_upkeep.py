"""Merging, shrinking, checking, and the command line around them."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import StoreError, UsageError
from learning.store import SelectionStore
from learning.store.__main__ import main
from learning.store.upkeep import check, merge, vacuum
from streaming.store.writer import StoreWriter
from tests.learning.store.conftest import record
from tests.streaming.store.scenes import make_rows


def content(path: Path) -> set[tuple]:
    with SelectionStore(path) as store:
        return {
            (f.session, f.source, f.number, f.jpeg, f.usefulness, tuple((s.object_id, s.rle) for s in f.selections))
            for f in store.frames()
        }


def test_merging_joins_without_duplicates_and_again_changes_nothing(tmp_path: Path) -> None:
    stores = [tmp_path / f"{name}.store" for name in "abc"]
    for store in stores:
        record(store, frames=3)
    out = tmp_path / "new" / "all.store"
    assert merge(out, stores[:2]) == {"added": 12, "already_there": 0}
    assert content(out) == content(stores[0]) | content(stores[1])
    assert merge(out, stores) == {"added": 6, "already_there": 12}
    everything = content(out)
    assert everything == set.union(*(content(store) for store in stores))
    assert merge(out, [stores[2], stores[0]]) == {"added": 0, "already_there": 12}
    assert content(out) == everything
    assert check(out) == []
    # A merged store is a store: an engine goes on with it.
    writer = StoreWriter(out)
    writer.append(*make_rows(0))
    writer.close()
    assert not list(out.parent.glob("*.part"))


def test_merging_takes_along_what_still_lies_in_the_log(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "a.store")
    for number in range(3):
        writer.append(*make_rows(number))
    assert (tmp_path / "a.store-wal").stat().st_size > 0
    merge(tmp_path / "out.store", [tmp_path / "a.store"])
    writer.close()
    assert len(content(tmp_path / "out.store")) == 3


def test_merging_nonsense_is_one_line(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="itself"):
        merge(recorded, [recorded])
    with pytest.raises(StoreError, match="no such"):
        merge(tmp_path / "out.store", [tmp_path / "missing.store"])
    assert not (tmp_path / "out.store").exists()
    (tmp_path / "diary").write_text("dear diary")
    with pytest.raises(StoreError, match="no selection store"):
        merge(recorded, [tmp_path / "diary"])


def test_vacuum_gives_freed_pages_back(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    writer = StoreWriter(path)
    for number in range(40):
        writer.append(*make_rows(number, jpeg_bytes=20_000))
    writer.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM frame WHERE number >= 4")
    size_mb = vacuum(path)
    assert size_mb["before"] > 0.8
    assert size_mb["after"] < 0.2
    with SelectionStore(path) as store:
        assert [frame.number for frame in store.frames()] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE frame SET jpeg = x'00' WHERE id = 2", "frame 2: its picture"),
        ("UPDATE frame SET width = 81 WHERE id = 2", "picture is (48, 80)"),
        ("UPDATE selection SET area = area + 1 WHERE id = 5", "its row says"),
        ("UPDATE selection SET x = x + 1 WHERE id = 5", "mask lies in"),
        ("UPDATE selection SET rle = 'xyz' WHERE id = 5", "damaged"),
        ("DELETE FROM session", "refers to nothing"),
    ],
)
def test_check_finds_what_is_wrong(recorded: Path, capsys: pytest.CaptureFixture, statement: str, said: str) -> None:
    assert check(recorded) == []
    with closing(sqlite3.connect(recorded)) as connection, connection:
        connection.execute(statement)
    assert any(said in problem for problem in check(recorded))
    assert main(["check", str(recorded)]) == 5
    captured = capsys.readouterr()
    assert said in captured.out
    assert captured.err.count("\n") == 1


def test_check_finds_damaged_pages(recorded: Path) -> None:
    data = bytearray(recorded.read_bytes())
    data[3 * 4096 : 3 * 4096 + 200] = b"\x55" * 200
    recorded.write_bytes(data)
    assert check(recorded)
    assert len(check(recorded, limit=1)) == 1


def test_the_commands_do_what_the_page_says(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["info", str(recorded), "--json", str(tmp_path / "info.json")]) == 0
    assert (tmp_path / "info.json").exists()
    assert main(["export", "coco", str(recorded), str(tmp_path / "coco")]) == 0
    assert main(["export", "ytvis", str(recorded), str(tmp_path / "vis"), "--min-score", "0.9"]) == 0
    assert main(["merge", str(tmp_path / "m.store"), str(recorded)]) == 0
    assert main(["vacuum", str(recorded)]) == 0
    assert main(["check", str(recorded)]) == 0
    out = capsys.readouterr().out
    assert "12 images, 12 annotations" in out
    assert "2 videos, 0 annotations" in out
    assert "12 frames added" in out
    assert "sound" in out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["info", "missing.store"], 5), (["export", "png", "a", "b"], 2), ([], 2), (["merge", "x", "y", "--fast"], 2)],
)
def test_mistakes_are_one_line_and_the_right_code(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_reading_a_store_needs_no_torch() -> None:
    program = "import sys, learning.store.__main__; sys.exit('torch' in sys.modules or 'zmq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
