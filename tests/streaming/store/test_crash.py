"""Killed at random moments, a store is whole and holds every frame whose commit was told."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from learning.store.reader import connect
from streaming.store.writer import StoreWriter
from tests.conftest import REPOSITORY

KILLS = 60

# One process that forks the writers: starting an interpreter for each would take most of the time.
WRITERS = """
import os, sys
from pathlib import Path
from streaming.store.writer import StoreWriter
from tests.streaming.store.scenes import make_rows
path, quota_mb, rounds = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
for _ in range(rounds):
    child = os.fork()
    if child == 0:
        writer = StoreWriter(path, quota_mb=quota_mb)
        number = 0
        while True:
            writer.append(*make_rows(number, 0.5 + number / 1e6, jpeg_bytes=20_000, selections=3))
            os.write(1, f"kept {writer.session} {number}\\n".encode())
            number += 1
    os.write(1, f"child {child}\\n".encode())
    os.waitpid(child, 0)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: a kill does not ask whether the disk is fast."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def kill_at_random(path: Path, quota_mb: float, rounds: int) -> set[tuple[str, int]]:
    """Let writers run and kill each with SIGKILL; returns the (session, number) whose commit was told."""
    rng = random.Random(5)
    told: set[tuple[str, int]] = set()
    arguments = [sys.executable, "-c", WRITERS, str(path), str(quota_mb), str(rounds)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        child, wanted = 0, 0
        for line in process.stdout:
            what, *values = line.split()
            if what == "child":
                child, wanted = int(values[0]), rng.randrange(8)
            else:
                told.add((values[0], int(values[1])))
                wanted -= 1
            if child and wanted <= 0:
                time.sleep(rng.random() * 0.012)
                os.kill(child, signal.SIGKILL)
                child = 0
    assert process.returncode == 0
    return told


@pytest.mark.skipif(sys.platform != "linux", reason="forks and kills")
def test_no_committed_frame_is_lost_to_kill_9(folder: Path) -> None:
    path = folder / "a.store"
    told = kill_at_random(path, 2048, KILLS)
    assert len({session for session, _ in told}) > KILLS / 2, "the writers were killed before they wrote"
    with closing(connect(path, write=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        rows = connection.execute(
            "SELECT uuid, number, (SELECT count(*) FROM selection WHERE frame_id = frame.id), length(jpeg)"
            " FROM frame JOIN session ON session.id = session_id"
        ).fetchall()
    assert told <= {(uuid, number) for uuid, number, _, _ in rows}
    assert {(selections, size) for _, _, selections, size in rows} == {(3, 20_000)}, "a frame came in part"
    # At most the one transaction per kill whose commit was not told in time.
    assert len(rows) - len(told) <= KILLS
    StoreWriter(path).close()


@pytest.mark.skipif(sys.platform != "linux", reason="forks and kills")
def test_a_full_store_survives_kill_9_while_frames_make_room(folder: Path) -> None:
    path = folder / "a.store"
    kill_at_random(path, 0.25, 15)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        frames, selections = (
            connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("frame", "selection")
        )
    assert 0 < frames <= 12
    assert selections == 3 * frames
