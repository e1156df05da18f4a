"""What a process takes of the processor: counted from outside, per frame, and while nothing comes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import cpu_use
from benchmarks.cpu_use import processor_s, use
from benchmarks.paced_clip import with_rate
from engine.errors import StoreError
from streaming.sources import open_source

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def test_only_what_the_process_uses_itself_is_counted() -> None:
    before_s = processor_s(os.getpid())
    work_until_s = time.process_time() + 0.3
    while time.process_time() < work_until_s:
        pass
    # The counter moves in ticks of a hundredth.
    assert processor_s(os.getpid()) - before_s >= 0.27
    program = "import time; print('up', flush=True); time.sleep(600)"
    sleeper = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        figures = use(sleeper.pid, iter([10, 25]).__next__, 0.5)
    finally:
        sleeper.kill()
        sleeper.communicate()
    assert figures["cpu_percent"] <= 10
    assert figures["fps"] <= 15 / 0.5
    assert figures["cpu_ms_per_frame"] == pytest.approx(1e3 * figures["cpu_percent"] / 100 / figures["fps"], abs=0.1)


def test_a_process_that_is_gone_is_one_line() -> None:
    with pytest.raises(StoreError, match="processor time of"):
        processor_s(2**22 + 1)


def test_the_report_tells_running_and_paused(motion_model: Path, tmp_path: Path) -> None:
    report = tmp_path / "cpu.json"
    arguments = ["--source", "demo://?size=120x160&fps=20&frames=0", "--models", str(motion_model), "--seconds", "1"]
    assert cpu_use.main([*arguments, "--json", str(report)]) == 0
    (row,) = json.loads(report.read_text(encoding="utf-8"))["models"]
    assert row["model"]["name"] == motion_model.stem
    assert row["running"]["fps"] > 0
    assert row["running"]["cpu_percent"] > 0
    assert row["idle"]["fps"] <= 1
    assert row["idle"]["cpu_percent"] < row["running"]["cpu_percent"]


def test_a_clip_plays_at_another_rate_with_the_same_pictures(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (64, 48))
    for level in range(0, 250, 25):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    (tmp_path / "copy").mkdir()
    copy = with_rate(str(clip), 30.0, tmp_path / "copy")
    slow, fast = open_source(str(clip)), open_source(copy)
    assert (slow.fps, fast.fps) == (pytest.approx(25.0), pytest.approx(30.0))
    pairs = list(zip(slow, fast, strict=True))
    assert len(pairs) == 10
    assert all((a.image == b.image).all() for a, b in pairs)
    assert pairs[-1][1].pts_ns == pytest.approx(pairs[-1][0].pts_ns * 25 / 30, abs=1e6)


def test_what_has_no_clock_of_its_own_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "picture.png"
    assert cv2.imwrite(str(picture), np.zeros((8, 8, 3), np.uint8))
    for source, told in ((str(picture), "is no MP4 file"), ("demo", "is no file")):
        assert cpu_use.main(["--source", source, "--fps", "30"]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert len(error.splitlines()) == 1


def test_an_engine_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such file"):
        cpu_use.main(["--models", str(tmp_path / "absent.onnx"), "--seconds", "1"])
