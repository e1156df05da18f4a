"""Recordings and the store that one undisturbed worker makes of them."""

from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the parquet extra")

from learning.mine import __main__ as command
from tests.learning.mine import clips


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips and one that is none."""
    folder = tmp_path_factory.mktemp("recordings")
    for seed in range(3):
        clips.write_video(folder / f"clip{seed}.mp4", 30, seed)
    (folder / "torn.mp4").write_bytes((folder / "clip0.mp4").read_bytes()[:900])
    return folder


@pytest.fixture(scope="session")
def mined(recordings: Path, motion_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their store, made in one go by one worker."""
    store = tmp_path_factory.mktemp("mined") / "store"
    assert command.main([str(recordings), "--out", str(store), "--model", str(motion_model)]) == 0
    return store
