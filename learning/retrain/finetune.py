"""The training itself, counted in steps; batches are known by number, so that a killed run goes on as it would have."""

import copy
import math
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine.errors import ModelError, StoreError
from learning.batches import Batch, Batches, Prefetch
from learning.losses import proposal_losses, total
from learning.networks.compact import Compact, Maps
from learning.pretrain import follow, make_optimiser, mixed_precision_maps, model_content, save_whole, to_device
from learning.retrain.distil import distillation
from learning.retrain.parts import choose_parts, train_mode
from learning.retrain.settings import CROP, FULL, Settings
from learning.synthesis.shards import Shards

CHECKPOINT = "last.pt"
_WARM_UP = 0.05
"""Share of the steps."""

_EMA_DECAY = 0.99
_SMOOTHING = 0.9


def save_or_say(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint.

    Raises:
        StoreError: the disk is full or read-only; what was there before stays.
    """
    try:
        save_whole(content, path)
    except (OSError, RuntimeError) as error:
        path.with_name(f"{path.name}.part").unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:80]
        free = shutil.disk_usage(path.parent).free / 1e6
        raise StoreError(
            f"{path}: cannot be written ({reason}; {free:.0f} MB free): make room and repeat the command, it goes on"
        ) from None


class _Numbered:
    """Batches from one number on, crops and whole frames in turn."""

    def __init__(self, crops: Batches, full: Batches, first: int) -> None:
        self._turns, self._next = (crops, full), first

    def draw(self) -> Batch:
        """The next batch."""
        number, self._next = self._next, self._next + 1
        return self._turns[number % 2].draw(number)


class Objective(torch.nn.Module):
    """A batch becomes a loss and its terms: labels where they claim something, the teacher elsewhere.

    Args:
        teacher: says what must not be forgotten; None where replay does.
    """

    def __init__(self, network: Compact, teacher: Compact | None) -> None:
        super().__init__()
        self.network = network
        self._teacher = (teacher,)  # in a tuple: no part of what learns

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss to go down on, and its unweighted terms."""
        maps = self.maps_of(self.network, batch)
        losses = proposal_losses(self.network, maps, batch)
        loss = total(losses)
        if self._teacher[0] is not None:
            with torch.no_grad():
                taught = self.maps_of(self._teacher[0], batch)
            kept = distillation(maps, taught, batch)
            loss = loss + torch.stack(list(kept.values())).sum()
            losses = {**losses, **kept}
        return loss, losses

    def maps_of(self, network: Compact, batch: Batch) -> Maps:
        """Dense outputs of the whole batch."""
        return mixed_precision_maps(network, batch)


class FineTune:
    """State of one fine-tuning; goes on from `folder`/last.pt when there is one.

    Args:
        base: stays as it is.
        store: samples made of selections.
        replay: samples of the base's own training data; None: the base teaches what must not be forgotten.

    Raises:
        ModelError: the checkpoint there is of another network.
    """

    _gradient_scale = 1.0
    """What averaging gradients over processes takes away, where there are several."""

    def __init__(
        self,
        base: Compact,
        folder: Path,
        store: Shards,
        replay: Shards | None,
        settings: Settings,
        device: torch.device,
    ) -> None:
        self._folder, self._settings, self._device = folder, settings, device
        self._base = base.to(device).eval()
        self.teacher = self._base if replay is None else None
        self.network = copy.deepcopy(base).to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval()
        self._optimiser = make_optimiser(choose_parts(self.network, settings.parts), settings.rate)
        self._objective: torch.nn.Module = Objective(self.network, self.teacher)
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.curve: list[dict[str, float]] = []
        self.seconds = 0.0
        mixed = (store, ()) if replay is None else (replay, (store,))
        self._batches = [
            Batches(mixed[0], settings.batch, crop, settings.seed, mixed[1], settings.share) for crop in (CROP, FULL)
        ]
        if (folder / CHECKPOINT).exists():
            self._resume()

    def _resume(self) -> None:
        path = self._folder / CHECKPOINT
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self._optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds = state["step"], state["seconds"]
            self.history, self.curve = state["history"], state["curve"]
        except (OSError, EOFError, LookupError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:80]
            raise ModelError(f"{path}: not a checkpoint of this network ({reason}): delete it to begin again") from None

    def save(self) -> None:
        """Write the checkpoint, complete or not at all."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "curve": self.curve,
        }
        save_or_say(state, self._folder / CHECKPOINT)

    def write_model(self, path: Path, training: dict[str, Any]) -> None:
        """Write the averaged network, `settings.move` of the way from the base to it, as a model.pt.

        Between the ends of a short fine-tuning the loss is flat: half way keeps most of the gain and forgets less.
        """
        moved = copy.deepcopy(self._base)
        follow(moved, self.average, 1 - self._settings.move)
        save_or_say(model_content(moved, training), path)

    def run(
        self,
        save_every_s: float,
        told: Callable[[int, dict[str, float]], None],
        look: Callable[[Compact], dict[str, float]],
        looks: int,
    ) -> None:
        """Train to the last step.

        Args:
            told: given the step and the smoothed losses after every step.
            look: measures the averaged network for the curve of the report; done `looks` times, evenly spread.
        """
        steps = self._settings.steps
        marks = {round(steps * i / looks) for i in range(looks + 1)}
        smooth = {n: v for n, v in self.history[-1].items() if n != "step"} if self.history else {}
        saved = begin = time.monotonic()
        before_s = self.seconds
        first, full = self._batches
        prefetch = Prefetch(_Numbered(first, full, self.step))
        try:
            while self.step < steps:
                if self.step in marks and not any(point["step"] == self.step for point in self.curve):
                    self.curve.append({"step": self.step, **look(self.average)})
                terms = self._train_step(prefetch.next())
                smooth = {n: _SMOOTHING * smooth.get(n, v) + (1 - _SMOOTHING) * v for n, v in terms.items()}
                self.history.append({**smooth, "step": self.step})
                self.seconds = before_s + time.monotonic() - begin
                told(self.step, smooth)
                if time.monotonic() - saved >= save_every_s:
                    self.save()
                    saved = time.monotonic()
        finally:
            prefetch.close()
        if not self.curve or self.curve[-1]["step"] != steps:
            self.curve.append({"step": steps, **look(self.average)})
        self.save()

    def _rate(self) -> float:
        progress = self.step / self._settings.steps
        warm_up = min(1.0, (self.step + 1) / max(1.0, _WARM_UP * self._settings.steps))
        return self._settings.rate * warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def _train_step(self, drawn: Batch) -> dict[str, float]:
        # The embedding's loss draws pixels: by the step, so that a resumed run draws the same ones.
        torch.manual_seed(self._settings.seed * 1_000_003 + self.step)
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate()
        batch = to_device(drawn, self._device)
        train_mode(self.network)
        loss, losses = self._objective(batch)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward(loss.new_tensor(self._gradient_scale))
        torch.nn.utils.clip_grad_norm_([p for p in self.network.parameters() if p.requires_grad], 5.0)
        self._optimiser.step()
        self.step += 1
        follow(self.average, self.network, min(_EMA_DECAY, (1 + self.step) / (10 + self.step)))
        return {"total": float(loss.detach()), **{n: float(v.detach()) for n, v in losses.items()}}
