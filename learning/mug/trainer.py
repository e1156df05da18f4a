"""One run of MuG's training: its losses, its state, one step at a time."""

import copy
import math
import pickle
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.errors import ModelError
from learning.mug.batches import FrameBatches, VideoBatch, VideoBatches, as_tensors, normalised
from learning.mug.bursts import Bursts
from learning.mug.losses import (
    WEIGHTS,
    bootstrapped_target,
    frame_loss,
    long_loss,
    short_loss,
    video_loss,
)
from learning.mug.plan import GRANULARITIES, Plan
from learning.mug.stills import Stills
from learning.mug.tracking import PATCHES, SIGMA_CELLS, make_rare, random_corner, there_and_back
from learning.networks.mug import Mug, MugConfig
from learning.pretrain import follow, make_optimiser, save_whole

READ_OUT = "read-out"
"""The term that trains the foreground map read with the memory; not a granularity and not switched off."""

_WARM_UP_STEPS = 30
_EMA_DECAY = 0.995
_HELD_BATCHES = 3
_FRAMES = 32
"""Single frames per step while the frame granularity is alone, and photographs beside the videos of later steps: a
quarter of it."""

_NOT_A_RUN = (OSError, EOFError, LookupError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError)
"""What reading a file that another program wrote, or that is cut off, may raise."""


def losses(
    network: Mug,
    batch: VideoBatch,
    target: Tensor,
    corner: Tensor,
    granularities: Sequence[str],
    patches: str = PATCHES[0],
    stills: tuple[Tensor, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Terms of the loss that are switched on, not yet weighted, and the read-out's.

    Without the frame granularity the two maps are still read out, but teach the features nothing.

    Args:
        target: of the foreground maps, [N, K, 1, H/4, W/4] in [0, 1].
        corner: where the tracked patches start, int64 [N, 2].
        patches: what they are cut out of, one of `PATCHES`.
        stills: photographs [S, 3, H, W] and their targets [S, 1, H/4, W/4]; the frame granularity learns from them too.
    """
    count, frames = batch.images.shape[:2]
    images, frame_target = batch.images.flatten(0, 1), target.flatten(0, 1)
    if stills is not None:
        images, frame_target = torch.cat([images, stills[0]]), torch.cat([frame_target, stills[1]])
    x = network.backbone(images.contiguous(memory_format=torch.channels_last)).float()
    fields = x[: count * frames].unflatten(0, (count, frames))
    first = batch.of_query(fields)
    terms = {}
    if "short" in granularities:
        track = [batch.of_query(batch.images), *batch.later.unbind(1)]
        back = there_and_back(network, track, first, corner, patches)
        terms["short"] = short_loss(back, corner, SIGMA_CELLS)
    # What follows is small and needs more digits than bfloat16 has.
    with torch.autocast(x.device.type, enabled=False):
        read = _with_memory(network, batch, fields)
        seen, together = x, torch.cat(read)
        if "frame" not in granularities:
            seen, together = seen.detach(), together.detach()
        read_targets = torch.cat([batch.of_query(target), batch.of_other(target)])
        terms["frame"] = frame_loss(network.frame_logits(seen), frame_target)
        terms[READ_OUT] = frame_loss(network.video_logits(together), read_targets)
        if "long" in granularities:
            terms["long"] = long_loss(network, first, batch.of_other(fields))
        if "video" in granularities:
            terms["video"] = video_loss(*read)
    return terms


def _with_memory(network: Mug, batch: VideoBatch, fields: Tensor) -> list[Tensor]:
    """r [N, 2C, h, w] of the query frames and of the other ones, each with the rest of its video as memory."""
    count, frames = fields.shape[:2]
    memory = network.memorise(fields.flatten(0, 1)).unflatten(0, (count, frames))
    read = []
    for place, pick in ((batch.query, batch.of_query), (batch.other, batch.of_other)):
        rest = torch.arange(frames, device=place.device)[None] != place[:, None]
        read.append(network.recall(pick(fields), memory[rest].unflatten(0, (count, frames - 1))))
    return read


def total(terms: dict[str, Tensor]) -> Tensor:
    """Weighted sum (Eq. 16); the read-out weighs one."""
    return torch.stack([WEIGHTS.get(name, 1.0) * value for name, value in terms.items()]).sum()


class Trainer:
    """State of one run: network, moving average, the last round's model, optimiser, clock.

    An interrupted run in `out` is resumed.

    Args:
        bursts: clips that are learned from, and held-out ones.
        stills: photographs the frame granularity learns from as well.

    Raises:
        UsageError: a plan that cannot be trained.
        ModelError: `out` holds the run of another network.
        StoreError: too few clips.
    """

    def __init__(
        self,
        bursts: Bursts,
        out: Path,
        plan: Plan,
        seed: int,
        device: str = "cpu",
        config: MugConfig | None = None,
        stills: Stills | None = None,
    ) -> None:
        plan.check()
        torch.manual_seed(seed)
        self.plan, self.out, self.seed, self.device = plan, out, seed, torch.device(device)
        self.network = Mug(config).to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval()
        self.teacher: Mug | None = None
        self.optimiser = make_optimiser(self.network.parameters(), plan.rate)
        self.step, self.elapsed, self.round = 0, 0.0, 0
        self.tracks = False
        self.history: list[dict[str, float]] = []
        self.bursts, self.stills = bursts, stills
        self._draw_from(seed)
        self.generator = torch.Generator().manual_seed(seed)
        if (out / "last.pt").exists():
            self._resume()

    def _draw_from(self, seed: int) -> None:
        self.batches = VideoBatches(self.bursts, self.plan.batch, seed)
        self.frames = FrameBatches(self.bursts, self.stills, _FRAMES, seed)
        self.beside = None if self.stills is None else FrameBatches(self.bursts, self.stills, _FRAMES // 4, seed)

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        if self.plan.steps is not None:
            return min(self.step / self.plan.steps, 1.0)
        return min(self.elapsed / (self.plan.minutes * 60), 1.0)

    def _resume(self) -> None:
        try:
            state = torch.load(self.out / "last.pt", map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            if state["teacher"] is not None:
                self.teacher = copy.deepcopy(self.average)
                self.teacher.load_state_dict(state["teacher"])
            self.step, self.elapsed, self.round = state["step"], state["elapsed_s"], state["round"]
            self.tracks, self.history = state["tracks"], state["history"]
        except _NOT_A_RUN as error:
            reason = " ".join(str(error).split())[:80]
            raise ModelError(
                f"--out {self.out}: its last.pt is not a run of this network ({reason}): give another --out"
            ) from None
        # Another stream of samples than before the interruption.
        self._draw_from(self.seed + self.step)
        self.generator.manual_seed(self.seed + self.step)

    def content(self) -> dict[str, Any]:
        """What a model.pt holds: averaged weights in half precision, size of the network, how it was trained."""
        training = {
            "step": self.step,
            "minutes": self.elapsed / 60,
            "seed": self.seed,
            "plan": {**asdict(self.plan), "granularities": list(self.plan.granularities)},
            "history": self.history,
        }
        state = self.average.state_dict()
        return {
            "objective": "mug",
            "config": asdict(self.average.config),
            "state": {n: v.half() if v.is_floating_point() else v for n, v in state.items()},
            "training": training,
        }

    def save(self, name: str = "model.pt") -> None:
        """Write last.pt (resumable) and the model (averaged weights), each by an atomic rename."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed,
            "round": self.round,
            "tracks": self.tracks,
            "history": self.history,
        }
        save_whole(state, self.out / "last.pt")
        save_whole(self.content(), self.out / name)

    def rate_now(self) -> float:
        """Learning rate: a warm-up at the very beginning, a cosine within every round."""
        within = self.progress * self.plan.rounds - self.round
        warm_up = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        return self.plan.rate * warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(max(within, 0.0), 1.0))))

    @property
    def frames_alone(self) -> bool:
        """Whether the frame granularity still learns alone in this round."""
        alone = self.plan.frames_first * ("frame" in self.plan.granularities)
        return self.progress * self.plan.rounds - self.round < alone

    @torch.no_grad()
    def targets(self, images: Tensor, initial: Tensor) -> Tensor:
        """What the foreground maps of images [M, 3, H, W] learn in this round, [M, 1, h, w] (Eqs. 2 and 15)."""
        if self.teacher is None:
            return bootstrapped_target(initial, None)
        with self._mixed():
            logits = self.teacher(images.contiguous(memory_format=torch.channels_last)).float()
        return bootstrapped_target(initial, torch.sigmoid(logits))

    def _video_targets(self, batch: VideoBatch) -> Tensor:
        maps = self.targets(batch.images.flatten(0, 1), batch.initial.flatten(0, 1))
        return maps.reshape(batch.initial.shape)

    def _mixed(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16)

    def _corner(self, batch: VideoBatch, generator: torch.Generator) -> Tensor:
        rows, columns = batch.initial.shape[-2:]
        return random_corner(len(batch.images), (rows, columns), generator).to(self.device)

    def train_step(self, batch: VideoBatch) -> dict[str, float]:
        """One update of all granularities; returns the terms of the loss."""
        batch = batch.to(self.device)
        target = self._video_targets(batch)
        stills = None
        if self.beside is not None:
            images, initial = (value.to(self.device) for value in self.beside.draw(stills_only=True))
            stills = images, self.targets(images, initial)
        self.network.train()
        with self._mixed():
            corner = self._corner(batch, self.generator)
            if not self.tracks:
                make_rare(self.network, batch.of_query(batch.images), corner)
                self.tracks = True
            terms = losses(self.network, batch, target, corner, self.plan.granularities, self.plan.patches, stills)
            loss = total(terms)
        self._update(loss)
        return {"total": float(loss.detach()), **{n: float(v.detach()) for n, v in terms.items()}}

    def frames_step(self) -> dict[str, float]:
        """One update of the frame granularity alone, from single frames."""
        images, initial = (value.to(self.device) for value in self.frames.draw())
        target = self.targets(images, initial)
        self.network.train()
        with self._mixed():
            logits = self.network(images.contiguous(memory_format=torch.channels_last)).float()
            loss = frame_loss(logits, target)
        self._update(loss)
        return {"total": float(loss.detach()), "frame": float(loss.detach())}

    def _update(self, loss: Tensor) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate_now()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        follow(self.average, self.network, min(_EMA_DECAY, (1 + self.step) / (10 + self.step)))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Terms of the averaged network on held-out clips, the same batches every time; empty without such clips.

        "held foreground" and "held learned" are the shares of foreground in its maps and in what they should learn,
        "held agreement" the intersection over union of its maps, cut at one half, with the initial ones.
        """
        count = min(self.plan.batch, int(self.bursts.held_out.sum()))
        if count < 2:
            return {}
        held = VideoBatches(self.bursts, count, self.seed, held_out=True, augment=False)
        generator = torch.Generator().manual_seed(self.seed)
        sums: dict[str, float] = {}
        for _ in range(_HELD_BATCHES):
            batch = held.draw().to(self.device)
            target = self._video_targets(batch)
            with self._mixed():
                corner = self._corner(batch, generator)
                terms = losses(self.average, batch, target, corner, GRANULARITIES, self.plan.patches)
                foreground = torch.sigmoid(self.average(batch.images.flatten(0, 1))).mean()
            for name, value in {**terms, "foreground": foreground, "learned": target.mean()}.items():
                sums[f"held {name}"] = sums.get(f"held {name}", 0.0) + float(value) / _HELD_BATCHES
        return {**sums, "held agreement": self._agreement()}

    def _agreement(self) -> float:
        """Of one frame of every burst of the held-out clips."""
        overlaps = []
        for video in np.flatnonzero(self.bursts.held_out):
            images, initial = as_tensors(self.bursts.frames[video][:, 0], self.bursts.maps[video][:, 0])
            with self._mixed():
                found = self.average(normalised(images).to(self.device)).cpu() > 0
            both = (found & (initial > 0)).sum(dim=(1, 2, 3))
            overlaps.append((both / (found | (initial > 0)).sum(dim=(1, 2, 3)).clamp_min(1)).mean())
        return float(torch.stack(overlaps).mean())

    def enter_round(self, number: int) -> None:
        """Begin round `number` (from 0): what has been learned becomes its teacher, the optimiser starts anew."""
        self.save(f"round{number}.pt")
        self.teacher = copy.deepcopy(self.average)
        self.optimiser = make_optimiser(self.network.parameters(), self.plan.rate)
        self.round, self.tracks = number, False
