"""Workers killed without warning at random moments: every row is there, once, and the same."""

import json
import multiprocessing
import random
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the parquet extra")

from engine.config import EngineConfig
from engine.perceive.network import Network
from learning.mine.job import Job, mine_recording
from learning.mine.offline import offline_config
from learning.mine.recordings import find_recordings
from learning.mine.shards import MinedStore
from tests.learning.mine import clips

KILLS = 10
_ROUNDS = 100
_PATIENCE_S = 900


def test_ten_workers_die_in_the_middle_and_nothing_is_lost_or_there_twice(
    mined: Path, recordings: Path, motion_model: Path, tmp_path: Path
) -> None:
    """Two at a time; one of them is killed while its shard is unfinished, and its recording given to another."""
    # Forked from a server that has imported everything and started nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["learning.mine.job"])
    store = MinedStore(str(tmp_path / "store"))
    store.open(json.loads((mined / "settings.json").read_text()))
    config, digest = offline_config(EngineConfig(), 150), Network(motion_model, threads=1).hash
    jobs = [
        Job(recording, store.uri, "run", str(motion_model), digest, config)
        for recording in find_recordings([str(recordings)])
        if recording.name != "torn"
    ]
    rng, killed, waiting = random.Random(0), 0, list(jobs)
    for _ in range(_ROUNDS):
        if not waiting and killed >= KILLS:
            break
        if not waiting:
            # Faster than we could kill: once more, from nothing.
            Path(rng.choice(store.shards())).unlink()
            waiting = list(jobs)
        workers = [(job, context.Process(target=mine_recording, args=(job,))) for job in waiting[:2]]
        for _, worker in workers:
            worker.start()
        if killed < KILLS:
            _kill_one(tmp_path / "store", [worker for _, worker in workers], rng)
        for job, worker in workers:
            worker.join(_PATIENCE_S)
            assert worker.exitcode in (0, -signal.SIGKILL)
            killed += worker.exitcode != 0
            if worker.exitcode == 0:
                waiting.remove(job)
        rng.shuffle(waiting)
    assert killed >= KILLS
    assert clips.rows(tmp_path / "store") == clips.rows(mined)
    assert len(store.shards()) == len(jobs)
    assert list((tmp_path / "store" / ".parts").rglob("*.parquet"))
    store.tidy("run")
    assert not (tmp_path / "store" / ".parts").exists()


def _kill_one(store: Path, workers: list[multiprocessing.Process], rng: random.Random) -> None:
    """Wait until one of them has an unfinished shard, a random while longer, and kill it without warning."""
    by_pid = {worker.pid: worker for worker in workers}
    give_up_s = time.monotonic() + _PATIENCE_S
    while any(worker.is_alive() for worker in workers):
        assert time.monotonic() < give_up_s
        writing = {int(path.name.split("-")[1]) for path in store.glob(".parts/*/*.parquet")}
        found = [pid for pid in by_pid if pid in writing and by_pid[pid].is_alive()]
        if found:
            time.sleep(rng.uniform(0, 0.15))
            by_pid[rng.choice(found)].kill()
            return
        time.sleep(0.005)
