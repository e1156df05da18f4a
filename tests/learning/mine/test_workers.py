"""The same selections from one worker, from two, and from two that are killed again and again."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs Ray: pip install 'unseen-engine[ray]'")
pytest.importorskip("pyarrow", reason="needs the parquet extra")

from learning.mine import __main__ as command
from tests.learning.mine import clips

pytestmark = pytest.mark.slow

KILLS = 10
_PATIENCE_S = 3000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for seed in range(4):
        clips.write_video(folder / f"clip{seed}.mp4", 50 + 10 * seed, seed)
    (folder / "torn.mp4").write_bytes((folder / "clip0.mp4").read_bytes()[:900])
    return folder


@pytest.fixture(scope="module")
def alone(recordings: Path, motion_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("alone") / "store"
    assert command.main([str(recordings), "--out", str(store), "--model", str(motion_model)]) == 0
    return store


def test_workers_that_die_at_random_moments_change_nothing(
    alone: Path, recordings: Path, motion_model: Path, tmp_path: Path
) -> None:
    """A worker is killed while it writes a shard, once a random while has passed, until ten are dead."""
    store, rng, killed = tmp_path / "store", random.Random(0), set()
    arguments = (recordings, "--out", store, "--model", motion_model, "--workers", 2, "--retries", 3 * KILLS)
    child = clips.command(*arguments)
    give_up_s = time.monotonic() + _PATIENCE_S
    while child.poll() is None and len(killed) < KILLS:
        assert time.monotonic() < give_up_s
        busy = [int(path.name.split("-")[1]) for path in store.glob(".parts/*/*.parquet")]
        pid = next((pid for pid in busy if pid not in killed), None)
        time.sleep(0.01 if pid is None else rng.uniform(0, 0.3))
        if pid is not None:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.add(pid)
    assert child.wait(_PATIENCE_S) == 0
    child.communicate()
    assert len(killed) == KILLS
    assert clips.rows(store) == clips.rows(alone)
    report = json.loads((store / "report.json").read_text())
    assert report["recordings"] == 4
    assert [Path(item["uri"]).name for item in report["latest_run"]["failed"]] == ["torn.mp4"]
    assert not list(store.glob(".parts/*/*"))


def test_two_workers_find_what_one_finds(alone: Path, recordings: Path, motion_model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    child = clips.command(recordings, "--out", store, "--model", motion_model, "--workers", 2)
    assert child.wait(_PATIENCE_S) == 0
    child.communicate()
    assert clips.rows(store) == clips.rows(alone)
    workers = {account["pid"] for account in command.MinedStore(str(store)).accounts()}
    assert len(workers) == 2


def test_a_recording_that_always_takes_its_worker_with_it_is_given_up(
    recordings: Path, motion_model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    child = clips.command(
        recordings / "clip3.mp4", "--out", store, "--model", motion_model, "--workers", 2, "--retries", 1
    )
    give_up_s = time.monotonic() + _PATIENCE_S
    killed: set[int] = set()
    while child.poll() is None:
        assert time.monotonic() < give_up_s
        for path in store.glob(".parts/*/*.parquet"):
            pid = int(path.name.split("-")[1])
            if pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.01)
    assert child.returncode == 3
    assert b"lost its worker 2 times" in child.communicate()[1]
    assert not list((store / "shards").iterdir())
