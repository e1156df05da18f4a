"""python -m learning.pretrain: train a network for one of several objectives; each has options of its own.

`--objective NAME --help` lists them.
"""

import argparse
import copy
import json
import math
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# A spinning OpenMP thread makes a step many times slower as soon as anything else runs; read before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import torch
from rich.console import Console

from engine.errors import EngineError, ModelError, UsageError
from learning.batches import Batch, Batches, Prefetch
from learning.losses import proposal_losses, total
from learning.networks.compact import Compact, CompactConfig, Maps
from learning.synthesis.shards import Shards
from learning.validate import Figures, validate

LEARNING_RATE = 1.6e-3
_WARM_UP_STEPS = 200
_EMA_DECAY = 0.999
_FULL_SIZE_FROM = 0.78
"""Share of the time after which whole frames are trained instead of crops: slower, but what the engine will feed."""

_CROP, _FULL = (192, 320), (256, 448)
_FULL_BATCH = 10
_LABEL_SHARE = 0.2
"""Share of frames labelled by the engine in a batch; the rest is synthetic."""

_NOT_OURS = (OSError, EOFError, LookupError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError)
"""What reading a file that another program wrote, or that is cut off, may raise."""


def load_matching(network: torch.nn.Module, path: Path) -> list[str]:
    """Copy the tensors of a model.pt that `network` has under the same name and shape.

    Returns:
        Names of the tensors of `network` that keep their fresh values.

    Raises:
        ModelError: no such file, or no tensor fits.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)["state"]
        if not isinstance(stored, dict):
            raise TypeError(f"its state is a {type(stored).__name__}")
    except _NOT_OURS as error:
        raise ModelError(
            f"--init {path}: not a model.pt of this program ({' '.join(str(error).split())[:80]})"
        ) from None
    own = network.state_dict()
    fitting = {
        n: v.to(own[n].dtype)
        for n, v in stored.items()
        if n in own and isinstance(v, torch.Tensor) and own[n].shape == v.shape
    }
    if not fitting:
        raise ModelError(f"--init {path}: none of its {len(stored)} tensors fits this network")
    network.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def make_optimiser(parameters: Iterable[torch.nn.Parameter], rate: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels but neither biases nor normalisations."""
    decay, plain = [], []
    for parameter in parameters:
        (decay if parameter.ndim > 1 else plain).append(parameter)
    groups = [{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors moved."""
    for name, value in vars(batch).items():
        setattr(batch, name, value.to(device, non_blocking=True))
    return batch


def mixed_precision_maps(network: Compact, batch: Batch) -> Maps:
    """Dense outputs of a batch, computed in bfloat16 where that is safe."""
    with torch.autocast(batch.image.device.type, torch.bfloat16):
        return network.maps(
            batch.image.contiguous(memory_format=torch.channels_last),
            batch.motion.contiguous(memory_format=torch.channels_last),
        )


@torch.no_grad()
def follow(average: torch.nn.Module, network: torch.nn.Module, decay: float) -> None:
    """Move the moving average a step of 1 - decay towards the network."""
    pairs = zip(average.state_dict().values(), network.state_dict().values(), strict=True)
    means, values = zip(*(p for p in pairs if p[0].is_floating_point()), strict=True)
    torch._foreach_lerp_(means, values, 1 - decay)


def model_content(network: Compact, training: dict[str, Any]) -> dict[str, Any]:
    """What a model.pt holds: weights in half precision, the size of the network, how it was trained."""
    return {
        "objective": "proposals",
        "config": asdict(network.config),
        "state": {n: v.half() if v.is_floating_point() else v for n, v in network.state_dict().items()},
        "training": training,
    }


def save_whole(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint that is either there complete or not at all, whenever the process is killed."""
    part = path.with_name(f"{path.name}.part")
    torch.save(content, part)
    part.rename(path)


class Trainer:
    """State of one run: network, moving average, optimiser, clock.

    Args:
        shards: folder with train_* and held_* shards.
        minutes: length of the run on the wall clock; the learning rate follows the clock.
        labels: folders with label_* shards of real frames (`python -m learning.label`), one per source.
        init: model.pt to start from; tensors of other names or shapes start fresh.
        rate: peak of the learning rate.

    Raises:
        UsageError: minutes, batch or rate not above zero.
        ModelError: `init` does not fit, or `out` holds the run of another network.
        StoreError: no shards where they should be.
    """

    def __init__(
        self,
        shards: Path,
        out: Path,
        minutes: float,
        device: str,
        seed: int,
        batch: int,
        labels: Sequence[Path] = (),
        init: Path | None = None,
        rate: float = LEARNING_RATE,
    ) -> None:
        for name, value in (("minutes", minutes), ("batch", batch), ("rate", rate)):
            if not 0 < value < math.inf:
                raise UsageError(f"--{name} {value}: must be above 0")
        if seed < 0:
            raise UsageError(f"--seed {seed}: must be 0 or more")
        torch.manual_seed(seed)
        self.device = torch.device(device)
        self.out, self.seconds, self.seed, self.rate = out, minutes * 60, seed, rate
        self.network = Compact(CompactConfig()).to(self.device, memory_format=torch.channels_last)
        if init is not None:
            load_matching(self.network, init)
        self.average = copy.deepcopy(self.network).eval()
        self.optimiser = make_optimiser(self.network.parameters(), rate)
        self.step, self.elapsed = 0, 0.0
        self.history: list[dict[str, float]] = []
        self.labels = [Shards(folder, "label") for folder in labels]
        self.origin = {
            "init": None if init is None else str(init),
            "labels": [str(folder) for folder in labels],
            "rate": rate,
        }
        self.held = Batches(Shards(shards, "held"), 8, _FULL, seed)
        self.batches = Batches(Shards(shards), batch, _CROP, seed, self.labels, _LABEL_SHARE)
        if (out / "last.pt").exists():
            self._resume()

    @property
    def progress(self) -> float:
        """Share of the time that has passed."""
        return min(self.elapsed / self.seconds, 1.0)

    def _resume(self) -> None:
        try:
            state = torch.load(self.out / "last.pt", map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.elapsed, self.history = state["step"], state["elapsed_s"], state["history"]
        except _NOT_OURS as error:
            reason = " ".join(str(error).split())[:80]
            raise ModelError(
                f"--out {self.out}: its last.pt is not a run of this network ({reason}): give another --out"
            ) from None
        # The weights of a resumed run come from where it once began.
        self.origin["init"] = state.get("init", self.origin["init"])
        # Another stream of samples than before the interruption.
        self.batches = Batches(
            self.batches.shards, self.batches.size, _CROP, self.seed + self.step, self.labels, _LABEL_SHARE
        )

    def save(self) -> None:
        """Write last.pt (resumable) and model.pt (averaged weights only), each by an atomic rename."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed,
            "history": self.history,
            "init": self.origin["init"],
        }
        training = {"step": self.step, "minutes": self.elapsed / 60, "seed": self.seed, "history": self.history}
        save_whole(state, self.out / "last.pt")
        save_whole(model_content(self.average, {**training, **self.origin}), self.out / "model.pt")

    def train_step(self, prefetch: Prefetch) -> dict[str, float]:
        """One update; returns the terms of the loss."""
        warm_up = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        rate = self.rate * warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batch = to_device(prefetch.next(), self.device)
        self.network.train()
        losses = proposal_losses(self.network, mixed_precision_maps(self.network, batch), batch)
        loss = total(losses)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        follow(self.average, self.network, min(_EMA_DECAY, (1 + self.step) / (10 + self.step)))
        return {"total": float(loss.detach()), **{n: float(v.detach()) for n, v in losses.items()}}

    def validate(self) -> Figures:
        """Held-out figures of the averaged network, appended to the history."""
        figures = validate(self.average, self.held, self.device)
        self.history.append({"step": self.step, "minutes": self.elapsed / 60, **asdict(figures)})
        return figures


def run(trainer: Trainer, console: Console, save_every_s: float, steps: int | None = None) -> None:
    """Train until the clock (or the number of steps) runs out, saving and validating on the way."""
    trainer.out.mkdir(parents=True, exist_ok=True)
    prefetch = Prefetch(trainer.batches)
    saved, said, begin = time.monotonic(), time.monotonic(), trainer.elapsed
    recent: dict[str, float] = {}
    first_step, start = trainer.step, time.monotonic()
    try:
        while trainer.progress < 1 and (steps is None or trainer.step - first_step < steps):
            terms = trainer.train_step(prefetch)
            recent = {n: 0.97 * recent.get(n, v) + 0.03 * v for n, v in terms.items()}
            trainer.elapsed = begin + time.monotonic() - start
            if trainer.progress > _FULL_SIZE_FROM:
                trainer.batches.crop, trainer.batches.size = _FULL, _FULL_BATCH
            if time.monotonic() - said > 20:
                said = time.monotonic()
                rate = (trainer.step - first_step) / (said - start)
                text = " ".join(f"{n} {v:.3f}" for n, v in recent.items())
                console.print(f"{trainer.elapsed / 60:5.1f} min  step {trainer.step}  {rate:.2f} steps/s  {text}")
            if time.monotonic() - saved > save_every_s:
                figures = trainer.validate()
                console.print(f"held-out at step {trainer.step}: {figures}")
                trainer.save()
                saved = time.monotonic()
    finally:
        prefetch.close()
    figures = trainer.validate()
    console.print(f"held-out at the end, step {trainer.step}: {figures}")
    trainer.save()
    (trainer.out / "history.json").write_text(json.dumps(trainer.history, indent=1))


def train_proposals(arguments: Sequence[str]) -> None:
    """Train the shipped network on shards of synthetic samples and frames the engine labelled.

    Raises:
        EngineError: what went wrong, with its exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m learning.pretrain --objective proposals",
        description="proposals, background and embedding from shards of samples",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of shards from python -m learning.synthesis")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an interrupted run there resumes")
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--save-every", type=float, default=240, help="seconds between checkpoints")
    parser.add_argument(
        "--labels", type=Path, nargs="+", default=[], help="folders of python -m learning.label, one per source"
    )
    parser.add_argument("--init", type=Path, help="model.pt to start from")
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="peak of the learning rate")
    args = parser.parse_args(arguments)
    if args.save_every <= 0:
        raise UsageError(f"--save-every {args.save_every:g}: must be above 0")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda, but torch sees no CUDA device: use --device cpu")
    # Batches are drawn on one thread beside the step; more would take the cores from it.
    cv2.setNumThreads(1)
    trainer = Trainer(
        args.data, args.out, args.minutes, args.device, args.seed, args.batch, args.labels, args.init, args.rate
    )
    run(trainer, Console(), args.save_every)


def train_amd(arguments: Sequence[str]) -> None:
    """Train the appearance and motion pathways of AMD on unlabelled clips; options: `learning.amd.pretrain`."""
    from learning.amd.pretrain import train

    train(arguments)


def train_mug(arguments: Sequence[str]) -> None:
    """Train MuG's network at four granularities on unlabelled clips; options: `learning.mug.train`."""
    from learning.mug.train import train

    train(arguments)


OBJECTIVES: dict[str, Callable[[Sequence[str]], None]] = {
    "proposals": train_proposals,
    "amd": train_amd,
    "mug": train_mug,
}
"""What can be trained; each function parses the rest of the command line and raises EngineError."""


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m learning.pretrain", description=__doc__, add_help=False)
    parser.add_argument("--objective", help=" | ".join(OBJECTIVES))
    chosen, rest = parser.parse_known_args(argv)
    try:
        if chosen.objective is None:
            if "--help" in rest or "-h" in rest:
                parser.print_help()
                return 0
            raise UsageError(f"--objective is missing: choose one of {', '.join(OBJECTIVES)}")
        if chosen.objective not in OBJECTIVES:
            raise UsageError(f"--objective {chosen.objective} is unknown: choose one of {', '.join(OBJECTIVES)}")
        OBJECTIVES[chosen.objective](rest)
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
