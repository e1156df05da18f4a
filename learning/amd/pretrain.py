"""Training of AMD on unlabelled clips: `python -m learning.pretrain --objective amd`."""

import argparse
import json
import math
import pickle
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console

from engine.errors import ModelError, UsageError
from learning.amd.channel import RULES, segment_motion
from learning.amd.checkpoint import model_content
from learning.amd.clips import FRAMES_PER_SOURCE, Clips, Pairs, build
from learning.amd.objective import Weights, held_out_distances, reconstruction, to_images
from learning.networks.amd import Amd, AmdConfig
from learning.pretrain import save_whole
from learning.report.charts import Line, line_chart
from learning.report.page import table, write_page

RATE, WEIGHT_DECAY = 1e-4, 1e-6
"""Adam, as in the paper."""

SEGMENTS_FIRST = 0.6
"""Share of a run in which the appearance pathway learns alone, which is several times as fast."""

_CROP = (64, 96)
_HELD_PAIRS = 32
_CHANNEL_BATCHES, _CHANNEL_BATCH = 12, 8
_OCCLUSION_FROM = 200
"""Steps before the forward-backward check: flows that agree with nothing yet would hide nearly every pixel."""

_WARM_UP_STEPS = 100
_NOT_OURS = (OSError, EOFError, LookupError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError)


class AmdTrainer:
    """State of one run: network, optimiser, clock.

    Args:
        clips: frames to train on and held-out ones.
        out: folder of the run; one that was interrupted there resumes.
        config: size of the network.
        minutes: length on the wall clock; the rate falls with it, by a cosine to a twentieth.
        steps: length in updates instead.
        rate: of Adam.
        channel: rule by which the object's segment is found at the end, one of `channel.RULES`.
        weights: of the terms that are ours; `Weights(0, 0)` is the paper's objective.
        segments_first: share of the run in which the appearance pathway learns alone, from the measured flow.

    Raises:
        UsageError: a length, batch or rate not above zero.
        ModelError: `out` holds the run of another network.
    """

    def __init__(
        self,
        clips: Clips,
        out: Path,
        config: AmdConfig,
        *,
        minutes: float = 45.0,
        steps: int | None = None,
        device: str = "cpu",
        seed: int = 0,
        batch: int = 8,
        rate: float = RATE,
        channel: str = "flow",
        weights: Weights | None = None,
        segments_first: float = SEGMENTS_FIRST,
    ) -> None:
        if not 0 <= segments_first < 1:
            raise UsageError(f"--segments-first {segments_first:g}: must be at least 0 and below 1")
        for name, value in (("minutes", minutes), ("batch", batch), ("rate", rate), ("steps", steps)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"--{name} {value}: must be above 0")
        torch.manual_seed(seed)
        self.device, self.out, self.seed, self.rate, self.batch = torch.device(device), out, seed, rate, batch
        self.seconds, self.steps, self.channel = minutes * 60, steps, channel
        self.weights, self.segments_first = weights or Weights(), segments_first
        self.clips = clips
        self.network = Amd(config).to(self.device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.Adam(self.network.parameters(), rate, weight_decay=WEIGHT_DECAY)
        self.step, self.elapsed = 0, 0.0
        self.history: list[dict[str, float]] = []
        self.held = Pairs(clips, clips.of(held_out=True), seed=1, flip=False).draw(_HELD_PAIRS)
        if (out / "last.pt").exists():
            self._resume()
        size = clips.frames.shape[1:3]
        crop = (min(_CROP[0], size[0]), min(_CROP[1], size[1]))
        # Another stream of pairs than before an interruption.
        self.pairs = Pairs(clips, clips.of(held_out=False), seed + self.step, crop)

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        share = self.step / self.steps if self.steps is not None else self.elapsed / self.seconds
        return min(share, 1.0)

    def _resume(self) -> None:
        try:
            state = torch.load(self.out / "last.pt", map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.elapsed, self.history = state["step"], state["elapsed_s"], state["history"]
        except _NOT_OURS as error:
            reason = " ".join(str(error).split())[:80]
            raise ModelError(
                f"--out {self.out}: its last.pt is not a run of this network ({reason}): give another --out"
            ) from None

    def save(self) -> None:
        """Write last.pt, which resumes; by an atomic rename."""
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed,
            "history": self.history,
        }
        save_whole(state, self.out / "last.pt")

    def finish(self) -> None:
        """Measure which segment is the object on training clips; write model.pt, history.json and curve.html."""
        pairs = Pairs(self.clips, self.clips.of(held_out=False), self.seed, flip=False)
        motion = segment_motion(self.network, (pairs.draw(_CHANNEL_BATCH) for _ in range(_CHANNEL_BATCHES)))
        training = {
            "step": self.step,
            "minutes": self.elapsed / 60,
            "seed": self.seed,
            "batch": self.batch,
            "rate": self.rate,
            "channel_rule": self.channel,
            "weights": asdict(self.weights),
            "segments_first": self.segments_first,
            "segment_motion": {name: values.tolist() for name, values in asdict(motion).items()},
            "history": self.history,
        }
        save_whole(model_content(self.network, motion.channel(self.channel), training), self.out / "model.pt")
        (self.out / "history.json").write_text(json.dumps(self.history, indent=1), encoding="utf-8")
        write_page(self.out / "curve.html", "AMD: training", _curve(self.history, training))

    def train_step(self) -> float:
        """One update; returns the loss."""
        warm_up = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * warm_up * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * self.progress)))
        first, second = (image.to(self.device) for image in to_images(self.pairs.draw(self.batch)))
        self.network.train()
        loss = reconstruction(
            self.network,
            first,
            second,
            occlusion=self.step >= _OCCLUSION_FROM,
            weights=self.weights,
            segments_alone=self.weights.fate > 0 and self.progress < self.segments_first,
        )
        if not torch.isfinite(loss):
            # One such update would make every weight useless.
            raise ModelError(f"step {self.step}: the loss is not a number: lower --rate, below {self.rate:g}")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    def validate(self, train_loss: float) -> dict[str, float]:
        """Held-out figures, appended to the history."""
        rebuilt, unmoved = held_out_distances(self.network, self.held)
        row = {
            "step": float(self.step),
            "minutes": self.elapsed / 60,
            "train": train_loss,
            "held_out": float(rebuilt.mean()),
            "unmoved": float(unmoved.mean()),
        }
        self.history.append(row)
        return row


def _curve(history: list[dict[str, float]], training: dict[str, Any]) -> str:
    steps = [row["step"] for row in history]
    lines = [Line(name, steps, [row[name] for row in history]) for name in ("train", "held_out", "unmoved")]
    motion = training["segment_motion"]
    rows = [
        [number, *(motion[name][number] for name in ("flow", "relative", "area"))]
        for number in range(len(motion["area"]))
    ]
    return (
        "<p>Photometric distance of rebuilt frames; <i>unmoved</i>: of frames that are not moved at all.</p>"
        + line_chart(lines, "updates", "distance")
        + table(["segment", "mean flow, px", "less the whole's, px", "area"], rows)
    )


def run(trainer: AmdTrainer, console: Console, save_every_s: float) -> None:
    """Train to the end of the clock or the steps, saving and validating on the way."""
    trainer.out.mkdir(parents=True, exist_ok=True)
    begin, start = trainer.elapsed, time.monotonic()
    saved, losses = start, [math.nan]
    while trainer.progress < 1:
        losses = [*losses[-99:], trainer.train_step()]
        trainer.elapsed = begin + time.monotonic() - start
        if time.monotonic() - saved > save_every_s:
            row = trainer.validate(float(np.nanmean(losses)))
            console.print(" ".join(f"{name} {value:.4f}" for name, value in row.items()), highlight=False)
            trainer.save()
            saved = time.monotonic()
    if len(losses) > 1:
        row = trainer.validate(float(np.nanmean(losses)))
        console.print("end: " + " ".join(f"{name} {value:.4f}" for name, value in row.items()), highlight=False)
        trainer.save()
    trainer.finish()


def train(arguments: Sequence[str]) -> None:
    """The command line after `--objective amd`.

    Raises:
        EngineError: what went wrong, with its exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m learning.pretrain --objective amd", description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder of videos; its sub-folders count alike")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an interrupted run there resumes")
    parser.add_argument("--cache", type=Path, help="decoded frames are kept here (default OUT/cache)")
    parser.add_argument("--drawn", type=int, default=0, metavar="N", help="add N pairs of drawn scenes")
    parser.add_argument("--frames-per-source", type=int, default=FRAMES_PER_SOURCE, metavar="N")
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--steps", type=int, help="length in updates instead of minutes")
    parser.add_argument("--segments", type=int, default=AmdConfig.segments, help="c (default 5)")
    parser.add_argument("--backbone", default=AmdConfig.backbone, help="compact | resnet50")
    parser.add_argument("--channel", default="flow", help=f"how the object's segment is found: {' | '.join(RULES)}")
    parser.add_argument("--dense", type=float, default=Weights.dense, help="weight of the motion pathway's error, px")
    parser.add_argument("--fate", type=float, default=Weights.fate, help="weight of what segments leave unexplained")
    parser.add_argument(
        "--segments-first", type=float, default=SEGMENTS_FIRST, help="share of the run in which segments learn alone"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=RATE, help="of Adam (default 1e-4)")
    parser.add_argument("--save-every", type=float, default=120, help="seconds between checkpoints")
    args = parser.parse_args(arguments)
    for name in ("save_every", "threads", "frames_per_source"):
        if getattr(args, name) <= 0:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(args, name):g}: must be above 0")
    for name in ("drawn", "seed", "dense", "fate"):
        if getattr(args, name) < 0:
            raise UsageError(f"--{name} {getattr(args, name):g}: must be 0 or more")
    if args.channel not in RULES:
        raise UsageError(f"--channel {args.channel} is unknown: choose one of {', '.join(RULES)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda, but torch sees no CUDA device: use --device cpu")
    config = AmdConfig(segments=args.segments, backbone=args.backbone)
    cv2.setNumThreads(1)
    torch.set_num_threads(args.threads)
    console = Console()
    args.out.mkdir(parents=True, exist_ok=True)
    clips = build(
        args.clips,
        args.cache or args.out / "cache",
        drawn=args.drawn,
        frames_per_source=args.frames_per_source,
        tell=console.print,
    )
    trainer = AmdTrainer(
        clips,
        args.out,
        config,
        minutes=args.minutes,
        steps=args.steps,
        device=args.device,
        seed=args.seed,
        batch=args.batch,
        rate=args.rate,
        channel=args.channel,
        weights=Weights(args.dense, args.fate),
        segments_first=args.segments_first,
    )
    run(trainer, console, args.save_every)
