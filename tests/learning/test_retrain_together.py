"""Processes that share every batch end where one alone does, also when one of them is lost on the way."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.errors import UsageError  # noqa: E402
from export.checkpoint import load_checkpoint  # noqa: E402
from learning.retrain import __main__ as command  # noqa: E402
from learning.retrain.finetune import FineTune  # noqa: E402
from learning.retrain.settings import PARTS, Settings  # noqa: E402
from learning.retrain.together import Task, train_together  # noqa: E402
from learning.synthesis.shards import Shards  # noqa: E402
from tests.conftest import REPOSITORY  # noqa: E402
from tests.learning import stored  # noqa: E402

STEPS, BATCH, RATE = 12, 4, 3e-3
LOST_AT = 5
_PATIENCE_S = 1800

# The process group alone, as Ray Train makes it: what is shared, without who starts it.
_PART = """
import sys
from pathlib import Path
import torch
from torch import distributed
from export.checkpoint import load_checkpoint
from learning.retrain.settings import Settings
from learning.retrain.together import SharedFineTune
from learning.synthesis.shards import Shards

torch.set_num_threads(1)
base, folder, shards, meeting = (Path(a) for a in sys.argv[1:5])
rank, steps, batch, rate = int(sys.argv[5]), int(sys.argv[6]), int(sys.argv[7]), float(sys.argv[8])
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
samples, settings = Shards(shards), Settings(steps=steps, batch=batch, rate=rate)
tuning = SharedFineTune(load_checkpoint(base).network, folder, samples, samples, settings, torch.device("cpu"))
tuning.run(1e9, lambda step, losses: None, lambda network: {}, 1)
torch.save(tuning.network.state_dict(), folder / f"rank{rank}.pt")
distributed.destroy_process_group()
"""

# In a process of its own: what Ray's libraries warn about is none of our tests' business.
_WITH_RAY = """
import os, signal, sys
from pathlib import Path
import psutil
from learning.retrain.settings import Settings
from learning.retrain.together import Task, train_together

base, folder, shards = (Path(a) for a in sys.argv[1:4])
steps, batch, rate, lost_at = int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]), int(sys.argv[7])
settings = Settings(steps=steps, batch=batch, rate=rate)
killed = []

def told(step, loss):
    if step >= lost_at and not killed:
        for process in psutil.Process().children(recursive=True):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)
                break

train_together(Task(base, folder, shards, shards, settings, "cpu", 1e-9, 1), 2, told)
print("killed", len(killed), flush=True)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "model.pt"
    stored.tiny_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def alone(base: Path, shard_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Smoothed loss of every step, one process: [3 seeds, steps]; the first seed is the one that is shared."""
    torch.set_num_threads(1)
    samples, rows = Shards(shard_folder), []
    for seed in range(3):
        settings = Settings(steps=STEPS, batch=BATCH, rate=RATE, seed=seed)
        folder = tmp_path_factory.mktemp("alone")
        tuning = FineTune(load_checkpoint(base).network, folder, samples, samples, settings, torch.device("cpu"))
        tuning.run(1e9, lambda step, losses: None, lambda network: {}, 1)
        rows.append([row["total"] for row in tuning.history])
    return np.array(rows)


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _check(state: dict[str, Any], alone: np.ndarray) -> None:
    """Every step once, and the loss of one process at each: nearer than other seeds are to one another."""
    assert state["step"] == STEPS
    assert [row["step"] for row in state["history"]] == list(range(1, STEPS + 1))
    together = np.array([row["total"] for row in state["history"]])
    seeds_apart = np.abs(alone[1:] / alone[0] - 1).max()
    # Half a batch at a time rounds otherwise in half precision, and steps add that up.
    apart = np.abs(together / alone[0] - 1)
    assert apart[: STEPS // 2].max() < 0.005
    assert apart.max() < seeds_apart / 3


def test_two_processes_reach_the_loss_of_one_with_the_same_weights_in_both(
    base: Path, shard_folder: Path, alone: np.ndarray, tmp_path: Path
) -> None:
    arguments = [base, tmp_path, shard_folder, tmp_path / "meeting"]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _PART, *map(str, [*arguments, rank, STEPS, BATCH, RATE])],
            cwd=REPOSITORY,
            env=_environment(),
        )
        for rank in range(2)
    ]
    assert [child.wait(_PATIENCE_S) for child in children] == [0, 0]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    _check(torch.load(tmp_path / "last.pt", weights_only=True), alone)


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_training_goes_on(
    base: Path, shard_folder: Path, alone: np.ndarray, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'unseen-engine[ray]'")
    pytest.importorskip("psutil", reason="needs psutil to find Ray's workers")
    (tmp_path / "selections").symlink_to(shard_folder)
    arguments = [base, tmp_path, shard_folder, STEPS, BATCH, RATE, LOST_AT]
    child = subprocess.run(
        [sys.executable, "-c", _WITH_RAY, *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_PATIENCE_S,
        env=_environment(),
    )
    assert child.returncode == 0
    assert "killed 1" in child.stdout.splitlines()
    _check(torch.load(tmp_path / "last.pt", weights_only=True), alone)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = Task(tmp_path, tmp_path, None, tmp_path, Settings(parts=PARTS, batch=3), "cpu", 1.0, 1)
    with pytest.raises(UsageError, match="must divide --batch 3"):
        train_together(task, 2, lambda step, loss: None)
    named = {"--store": tmp_path, "--base": tmp_path, "--registry": tmp_path, "--batch": 4, "--workers": 3}
    assert command.main([str(value) for pair in named.items() for value in pair]) == 2
    assert "--workers 3" in capsys.readouterr().err
