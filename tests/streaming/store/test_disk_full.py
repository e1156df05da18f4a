"""A full disk: the engine goes on, says so once, and records again when there is room."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import RecordConfig
from engine.errors import StoreError
from engine.record.recorder import Recorder
from learning.store import SelectionStore
from learning.store.upkeep import check
from streaming.store.writer import StoreWriter
from tests.conftest import REPOSITORY
from tests.streaming.store.scenes import make_final, make_frame

SIZE = (96, 160)


def test_recording_stops_and_goes_on_and_says_each_once(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(400_000))
    recorder = Recorder(StoreWriter(small_disk / "a.store"), RecordConfig(interval=1))
    seen = 0

    def see_frames(count: int) -> None:
        nonlocal seen
        for index in range(seen, seen + count):
            recorder.step(make_frame(index, size=SIZE), [make_final(index, size=SIZE)])
        seen += count

    while recorder.causes["disk_full"] < 10:
        assert seen < 200, "half a megabyte did not become full"
        see_frames(1)
    before = recorder.kept
    assert before > 3
    assert [line for line in caplog.messages if "the disk is full" in line] == caplog.messages
    assert len(caplog.messages) == 1

    ballast.unlink()
    see_frames(5)
    assert recorder.kept == before + 5
    assert len(caplog.messages) == 2
    assert "recording again, 10 frames were lost" in caplog.messages[1]
    assert recorder.kept + sum(recorder.causes.values()) == seen
    recorder.close()
    assert check(small_disk / "a.store") == []
    with SelectionStore(small_disk / "a.store") as store:
        assert len(store.frame_ids()) == recorder.kept


def test_a_disk_that_is_full_at_the_start_is_one_line(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(2**20 - 4096))
    with pytest.raises(StoreError, match="disk is full"):
        StoreWriter(small_disk / "a.store")


LIMITED = """
import resource, sys
from pathlib import Path
from streaming.store.writer import NotKept, StoreWriter
from tests.streaming.store.scenes import make_rows
writer = StoreWriter(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
told = []
number = 0
while len(told) < 3:
    try:
        writer.append(*make_rows(number, jpeg_bytes=20_000))
    except NotKept as error:
        told.append(str(error))
    number += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for number in range(number, number + 4):
    writer.append(*make_rows(number, jpeg_bytes=20_000))
writer.close()
print(number + 1 - len(told), *told)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_file_that_may_not_grow_is_like_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr
    frames, *told = done.stdout.split()
    assert set(told) == {"disk_full"}
    with SelectionStore(path) as store:
        assert len(store.frame_ids()) == int(frames) > 4
