"""A small store, recorded as the engine records."""

from pathlib import Path

import pytest

from engine.config import RecordConfig
from engine.record.recorder import Recorder
from streaming.store.writer import StoreWriter
from tests.streaming.store.scenes import make_final, make_frame


def record(path: Path, sources: tuple[str, ...] = ("left", "right"), frames: int = 6) -> None:
    """Record `frames` frames of each source in a session of its own."""
    recorder = Recorder(StoreWriter(path), RecordConfig(interval=1))
    for index in range(frames):
        for source in sources:
            recorder.step(make_frame(index, source), [make_final(index, source)])
    recorder.close()


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Twelve frames of two sources, one object each."""
    path = tmp_path / "recorded.store"
    record(path)
    return path
