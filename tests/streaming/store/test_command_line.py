"""`python -m engine.run --record STORE` end to end."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import StoreError
from engine.run import main
from learning.store import SelectionStore
from learning.store.upkeep import check


def run(store: Path, stats: Path, frames: int, *options: str) -> tuple[int, dict]:
    source = f"demo://?frames={frames}&seed=4&size=240x428"
    code = main(["--source", source, "--no-publish", "--record", str(store), "--stats-json", str(stats), *options])
    return code, json.loads(stats.read_text()) if stats.exists() else {}


def test_a_run_is_recorded_and_the_next_one_appends(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    store = tmp_path / "a.store"
    kept = 0
    for number in (1, 2):
        code, stats = run(store, tmp_path / f"{number}.json", 30, "--set", "record.interval=3")
        assert code == 0
        record = stats["record"]
        assert record["kept"] + sum(record["not_kept"].values()) == stats["frames"] == 30
        assert record["kept"] >= 3
        kept += record["kept"]
        assert f"{store}, {record['kept']} frames kept" in capsys.readouterr().err
    with SelectionStore(store) as reader:
        frames = list(reader.frames())
        assert len(frames) == kept
        assert len({frame.session for frame in frames}) == 2
        assert {frame.model_hash for frame in frames} == {stats["model"]["hash"]}
        assert all(frame.exact or frame.loss_bound <= 0.02 for frame in frames)
        for frame in frames:
            assert frame.image().shape == (240, 428, 3)
            assert frame.cover().max() == 1 + len(frame.selections)
            assert all(selection.embedding is not None for selection in frame.selections)
    assert check(store) == []


def test_a_file_of_somebody_else_is_refused_before_the_first_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary")
    code, stats = run(diary, tmp_path / "stats.json", 5)
    assert code == 5
    assert stats.get("frames", 0) == 0
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: --record {diary}: no selection store")
    assert diary.read_text() == "dear diary"


@pytest.mark.slow
def test_an_engine_that_is_killed_leaves_a_sound_store(tmp_path: Path) -> None:
    store = tmp_path / "a.store"
    source = "demo://?frames=100000&seed=4&size=240x428"
    command = [sys.executable, "-m", "engine.run", "--source", source, "--no-publish", "--record", str(store)]
    for run_number in (1, 2):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as engine:
            deadline_s = time.monotonic() + 120
            before = kept = 0
            while kept < before + 5:
                assert time.monotonic() < deadline_s, "nothing was recorded"
                assert engine.poll() is None
                time.sleep(0.05)
                # Not there yet, or just being made.
                with contextlib.suppress(StoreError), SelectionStore(store) as reader:
                    kept = len(reader.frame_ids())
                    before = before or (kept if run_number == 2 else 0)
            engine.kill()
        assert check(store) == []
        with SelectionStore(store) as reader:
            assert len(reader.frame_ids()) >= kept
