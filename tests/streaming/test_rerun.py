"""`--rerun`, with the real library where it is installed."""

import importlib.machinery
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from engine.errors import StoreError, UsageError
from engine.frame import Frame
from engine.run import main
from streaming.sinks import rerun as sink_module
from streaming.sinks.rerun import RerunSink
from tests.streaming.scenes import make_scene

SIZE = (48, 64)


def frame(index: int) -> Frame:
    image = np.random.default_rng(index).integers(0, 255, (*SIZE, 3), np.uint8)
    return Frame(image, index, time.time_ns(), "cam")


def test_without_the_library_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
        return None

    monkeypatch.setattr(sink_module, "find_spec", find_spec)
    assert main(["--source", "demo", "--no-publish", "--rerun"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --rerun needs rerun-sdk: pip install 'unseen-engine[rerun]' (about 700 MB)"
    ]


def test_what_was_seen_is_in_the_file(tmp_path: Path) -> None:
    rerun = pytest.importorskip("rerun", reason="needs rerun-sdk (700 MB)")
    path = tmp_path / "run.rrd"
    sink = RerunSink(path)
    for index in range(3):
        sink.step(frame(index), [make_scene(index, size=SIZE)])
    sink.step(None, [make_scene(3, size=SIZE, objects=())])
    sink.close()
    printed = subprocess.run(
        [sys.executable, "-m", "rerun_cli", "rrd", "print", str(path)], capture_output=True, text=True, check=True
    ).stdout
    for entity in ("/cam/image", "/cam/image/masks", "/cam/image/objects"):
        assert entity in printed, rerun.__version__
    with pytest.raises(StoreError, match="exists already"):
        RerunSink(path)


def test_another_name_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="needs rerun-sdk (700 MB)")
    with pytest.raises(UsageError, match=r"ending in \.rrd"):
        RerunSink(tmp_path / "run.txt")


def test_it_stops_before_the_disk_is_full_and_says_so_once(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("rerun", reason="needs rerun-sdk (700 MB)")
    sink = RerunSink(small_disk / "run.rrd")
    for index in range(5):
        sink.step(frame(index), [make_scene(index, size=SIZE)])
    sink.close()
    assert len([line for line in caplog.messages if "the engine goes on" in line]) == 1
