"""Several processes share every batch: data-parallel training by torch, started and restarted by Ray Train.

Every worker draws the same numbered batch and sends its part of it through the network; the outputs are put together,
so that the loss is that of the whole batch, however few objects a part holds, and each worker goes down on what its
part of the outputs had to do with it. The sum of these gradients is the gradient of one process, up to rounding. The
first worker alone measures and writes the checkpoint; when one is lost, Ray starts all again and they go on from there.
"""

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from engine.errors import EngineError, StoreError, UsageError
from export.checkpoint import load_checkpoint
from learning.batches import Batch
from learning.mine.workers import RayCluster, import_ray
from learning.networks.compact import Compact, Maps
from learning.pretrain import mixed_precision_maps
from learning.retrain.finetune import FineTune, Objective
from learning.retrain.settings import Settings
from learning.synthesis.shards import Shards

RESTARTS = 20
"""Times lost workers are replaced before the command gives up; the checkpoint stays."""


@dataclass(frozen=True)
class Task:
    """What the workers need; paths must lead to the same files on every machine.

    Attributes:
        folder: of the run: selections, checkpoint.
        old: held-out shards that stand for the old data.
    """

    base: Path
    folder: Path
    replay: Path | None
    old: Path
    settings: Settings
    device: str
    save_every_s: float
    looks: int


class SharedObjective(Objective):
    """The loss of a whole batch of which this process sees a part; the process group exists."""

    def maps_of(self, network: Compact, batch: Batch) -> Maps:
        """Outputs of the whole batch; gradients flow into those of this process only."""
        rank, world = distributed.get_rank(), distributed.get_world_size()
        own = Batch(**{name: value[rank::world] for name, value in vars(batch).items()})
        return Maps(*(_gathered(value, rank, world) for value in mixed_precision_maps(network, own)))


def _gathered(own: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    """[B, ...] in the order of the batch from [B / world, ...] of every process, sample i at process i mod world."""
    parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(world)]
    distributed.all_gather(parts, own.detach().contiguous())
    parts[rank] = own
    return torch.stack(parts, dim=1).flatten(0, 1)


class SharedFineTune(FineTune):
    """A fine-tuning that is one of several with the same weights; the process group exists."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._gradient_scale = float(distributed.get_world_size())
        self._objective = DistributedDataParallel(SharedObjective(self.network, self.teacher))

    def save(self) -> None:
        """Write the checkpoint, by the first worker only."""
        if distributed.get_rank() == 0:
            super().save()


def _work(config: dict[str, Any]) -> None:
    """What one worker does: from the checkpoint, if there is one, to the last step."""
    import cv2
    import ray.train.torch

    from learning.retrain.run import look_at

    task: Task = config["task"]
    cv2.setNumThreads(1)
    first = distributed.get_rank() == 0
    device = ray.train.torch.get_device()
    selections = task.folder / "selections"
    replay = None if task.replay is None else Shards(task.replay)
    base = load_checkpoint(task.base).network
    tuning = SharedFineTune(base, task.folder, Shards(selections), replay, task.settings, device)
    held, old = Shards(selections, "held"), Shards(task.old, "held")

    def told(step: int, losses: dict[str, float]) -> None:
        if first:
            config["steps"].put((step, losses["total"]))

    def look(network: Compact) -> dict[str, float]:
        return look_at(network, held, old, device) if first else {}

    tuning.run(task.save_every_s, told, look, task.looks)


def train_together(task: Task, workers: int, told: Callable[[int, float], None]) -> None:
    """Train to the last step with several workers; afterwards `folder`/last.pt is the checkpoint of that step.

    Args:
        told: given the step and the smoothed loss after every step.

    Raises:
        UsageError: Ray is not installed, or a batch is smaller than the number of workers.
        StoreError: workers were lost too often, or Ray does not start; the checkpoint stays.
    """
    if task.settings.batch % workers:
        raise UsageError(f"--workers {workers}: must divide --batch {task.settings.batch}")
    ray = import_ray("--workers above 1")
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.util.queue import Queue
    except ImportError:
        raise UsageError("--workers above 1 needs Ray Train: pip install 'unseen-engine[ray]'") from None
    cuda = task.device == "cuda"
    # Workers in another folder must find the same files.
    paths = {name: getattr(task, name) for name in ("base", "folder", "replay", "old")}
    task = dataclasses.replace(task, **{name: path and path.resolve() for name, path in paths.items()})
    with RayCluster(ray, workers):
        steps = Queue(actor_options={"num_cpus": 0})
        trainer = TorchTrainer(
            _work,
            train_loop_config={"task": task, "steps": steps},
            torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=cuda),
            run_config=RunConfig(
                name="workers",
                storage_path=str(task.folder / "ray"),
                failure_config=FailureConfig(max_failures=RESTARTS),
            ),
        )
        with _listening(steps, told):
            _fit(trainer)


def _fit(trainer: Any) -> None:
    try:
        trainer.fit()
    except Exception as error:  # whatever a worker raised arrives wrapped, in several ways
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, EngineError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is not None:
            raise cause from None
        reason = " ".join(str(error).split())[-200:]
        raise StoreError(f"--workers: training stopped ({reason}); repeat the command, it goes on") from None


class _listening:
    """Hands on what the first worker says about its steps, on a thread."""

    def __init__(self, steps: Any, told: Callable[[int, float], None]) -> None:
        self._steps, self._told = steps, told
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _listen(self) -> None:
        while True:
            try:
                step, loss = self._steps.get(timeout=0.5)
            except Empty:
                if self._done.is_set():
                    return
                continue
            self._told(step, loss)
