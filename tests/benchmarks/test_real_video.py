"""Which clips teach, and how the scores before and after are compared; the figures themselves need hours."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
from benchmarks.real_video import chosen_clips, compared, main, record
from engine.config import EngineConfig
from learning.footage import is_held_out
from learning.store import SelectionStore


def _clip(path: Path, frames: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (160, 96))
    texture = np.random.default_rng(0).integers(0, 256, (96, 400, 3), np.uint8)
    for index in range(frames):
        writer.write(np.ascontiguousarray(texture[:, 5 * index : 5 * index + 160]))
    writer.release()


def test_sources_give_alike_and_what_is_kept_apart_gives_nothing(tmp_path: Path) -> None:
    for source, count in (("small", 5), ("large", 60)):
        for number in range(count):
            (tmp_path / source).mkdir(exist_ok=True)
            (tmp_path / source / f"{source}_{chr(97 + number % 26)}{'x' * (number // 26)}.avi").touch()
    everything = {path for path in tmp_path.rglob("*.avi") if not is_held_out(path)}
    small = {path for path in everything if path.parent.name == "small"}
    chosen = chosen_clips(tmp_path, 20)
    assert len(chosen) == len(set(chosen)) == 20
    assert set(chosen) <= everything
    assert small <= set(chosen)
    assert len([path for path in chosen_clips(tmp_path, 6) if path.parent.name == "large"]) == 3


def test_recording_is_done_once(tmp_path: Path) -> None:
    _clip(tmp_path / "clips" / "a.avi")
    store = tmp_path / "clips.store"
    counts = record([tmp_path / "clips" / "a.avi"], 12, store, EngineConfig())
    with SelectionStore(store) as reader:
        assert len(list(reader.frames())) == counts["kept"]
    before = store.stat().st_mtime_ns
    assert record([], 12, store, EngineConfig()) == counts
    assert store.stat().st_mtime_ns == before


def test_before_and_after_are_compared_in_pairs() -> None:
    found = compared({"a": 0.5, "b": 0.1, "c": 0.3}, {"a": 0.6, "b": 0.2, "c": 0.1})
    assert found["before"] == found["after"] == pytest.approx(0.3)
    assert found["gain"] == pytest.approx(0.0)
    # Differences 0.1, 0.1, -0.2: s = sqrt(0.03).
    assert found["standard_error"] == pytest.approx(0.1)


def test_without_footage_it_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--data", tmp_path, "--base", tmp_path / "m.pt", "--replay", tmp_path, "--work", tmp_path / "work"]
    assert main([str(text) for text in named]) == 3
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "work").exists()
