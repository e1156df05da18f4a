"""One retraining from store to registry; every stage leaves something that a repeated command goes on from."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from engine.errors import EngineError, StoreError
from engine.registry import Registry
from engine.registry.files import locked
from export.checkpoint import load_checkpoint
from learning.networks.compact import Compact
from learning.retrain.finetune import FineTune
from learning.retrain.folder import MODEL, REPORT, RESULT, open_run, tidy, write_text
from learning.retrain.judge import Slice, judge
from learning.retrain.place import finite, place, sha256_of
from learning.retrain.progress import bars
from learning.retrain.report import pictures, write_report
from learning.retrain.selections import Account, read_account, take_selections
from learning.retrain.settings import Settings
from learning.retrain.verdict import Pair, Verdict, decide, frame_gains
from learning.synthesis.drawn import drawn_sample
from learning.synthesis.shards import Shards, write_shard

_NEW, _STILLS, _OLD = "held-out selections", "held-out selections without motion", "held-out old data"
_LOOKS = 4
"""Times the held-out slices are looked at on the way, for the curve in the report only."""

_LOOK_FRAMES = 32
_DRAWN_FRAMES = 400
"""Fewer could not prove that nothing is lost."""

_DRAWN_SEED = 17


@dataclass(frozen=True)
class Request:
    """What is to be retrained on what; paths as on the command line.

    Attributes:
        out: folder of runs.
        target: what the export makes, "int8" or "onnx".
        save_every_s: seconds of training that a kill may cost.
        workers: processes that share every batch.
    """

    store: Path
    base: Path
    registry: Path
    replay: Path | None
    out: Path
    device: str
    settings: Settings
    target: str
    save_every_s: float
    workers: int = 1

    def described(self) -> dict[str, Any]:
        """What two runs must share for one to go on with the other's work."""
        return {
            "store": str(self.store.resolve()),
            "base": sha256_of(self.base),
            "replay": None if self.replay is None else str(self.replay.resolve()),
            "settings": self.settings.described(),
        }


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        placed: name of the new version in the registry, None when the base was kept.
        folder: model.pt, report.html and result.json are in it.
    """

    verdict: Verdict
    placed: str | None
    folder: Path


def retrain(request: Request, console: Console) -> Outcome:
    """Fine-tune, judge, and place the network in the registry if it is better.

    Raises:
        StoreError: store, replay or an output folder cannot be used.
        ModelError: `base` is no checkpoint, or the export of the retrained network differs from it.
    """
    base = load_checkpoint(request.base).network
    replay = None if request.replay is None else (Shards(request.replay), Shards(request.replay, "held"))
    registry = Registry(request.registry)
    _require_writable(request.registry)
    _compare_lineage(registry, request, console)
    if replay is None:
        console.print(
            "no --replay: the base itself teaches what must not be forgotten, and drawn scenes stand for the old data",
            style="yellow",
        )
    folder = open_run(request.out, request.described())
    with locked(folder / "lock", timeout_s=0.2), _disk_errors(folder):
        outcome = _retrain(request, base, replay, registry, folder, console)
    tidy(folder)
    return outcome


def _retrain(
    request: Request,
    base: Compact,
    replay: tuple[Shards, Shards] | None,
    registry: Registry,
    folder: Path,
    console: Console,
) -> Outcome:
    settings, device = request.settings, torch.device(request.device)
    selections = folder / "selections"
    with bars(console) as bar:
        if selections.exists():
            account = read_account(selections)
        else:
            account = take_selections(request.store, selections, settings, bar("selections"))
        held, drawn = Shards(selections, "held"), min(_DRAWN_FRAMES, settings.old_frames)
        old = replay[1] if replay is not None else _drawn(folder / "drawn", drawn, bar("drawing scenes"))
        tuning = FineTune(base, folder, Shards(selections), None if replay is None else replay[0], settings, device)
        if tuning.step:
            console.print(f"going on at step {tuning.step} of {settings.steps}: {folder}")
        training = bar("training")
        if request.workers > 1:
            tuning = _tune_together(request, tuning, base, folder, training)
        tuning.run(
            request.save_every_s,
            lambda step, losses: training(step, settings.steps, f"loss {losses['total']:.3f}"),
            lambda network: look_at(network, held, old, device),
            _LOOKS,
        )
        tuning.write_model(folder / MODEL, _training(request, tuning, account))
        # What is judged is what is written: weights in half precision.
        networks = base.to(device), load_checkpoint(folder / MODEL).network.to(device)
        slices = _judge_all(networks, held, old, settings, device, bar)
        new = (slices[_NEW], slices[_STILLS])
        verdict = decide(new, slices[_OLD], account.blocks, settings.margin)
        facts = _facts(request, tuning, account)
        figures = {name: {"base": a.figures, "retrained": b.figures} for name, (a, b) in slices.items()}
        shown = pictures(networks, held, frame_gains(new), device)
        report = partial(
            write_report,
            folder / REPORT,
            verdict,
            slices=slices,
            history=tuning.history,
            curve=tuning.curve,
            account=account,
            facts=facts,
            shown=shown,
        )
        # Before the export, which may refuse: the figures are worth having anyway.
        report(placed=None)
        placed = None
        if verdict.promoted:
            console.print("exporting", highlight=False)
            manifest = {"base": sha256_of(request.base), "metrics": {"verdict": asdict(verdict), "figures": figures}}
            placed = place(folder, request.replay, request.target, registry, manifest)
            report(placed=placed)
    content = {"verdict": asdict(verdict), "placed": placed, "figures": figures, "facts": facts}
    write_text(folder / RESULT, json.dumps(finite(content), indent=1))
    return Outcome(verdict, placed, folder)


def _tune_together(
    request: Request, tuning: FineTune, base: Compact, folder: Path, training: Callable[..., None]
) -> FineTune:
    """The fine-tuning after workers have taken it to its last step."""
    # Only here: Ray is not needed by anybody who trains alone.
    from learning.retrain.together import Task, train_together

    settings = request.settings
    if tuning.step < settings.steps:
        old = request.replay if request.replay is not None else folder / "drawn"
        task = Task(request.base, folder, request.replay, old, settings, request.device, request.save_every_s, _LOOKS)
        train_together(task, request.workers, lambda step, loss: training(step, settings.steps, f"loss {loss:.3f}"))
    replay = None if request.replay is None else Shards(request.replay)
    return FineTune(base, folder, Shards(folder / "selections"), replay, settings, torch.device(request.device))


def _judge_all(
    networks: tuple[Compact, Compact],
    held: Shards,
    old: Shards,
    settings: Settings,
    device: torch.device,
    bar: Callable[[str], Callable[..., None]],
) -> dict[str, Pair]:
    """Base and retrained network on every slice."""
    slices: dict[str, Pair] = {}
    for name, shards, still in ((_NEW, held, False), (_STILLS, held, True), (_OLD, old, False)):
        limit = settings.old_frames if name == _OLD else settings.held_frames
        before, after = (
            judge(network, shards, limit, device, bar(f"judging {name}: {who}"), still)
            for who, network in zip(("base", "retrained"), networks, strict=True)
        )
        slices[name] = before, after
    return slices


def look_at(network: Compact, held: Shards, old: Shards, device: torch.device) -> dict[str, float]:
    """How a network does on a few frames of every held-out slice, for the curve of the report."""
    return {
        name: _mean(judge(network, shards, _LOOK_FRAMES, device, still=still))
        for name, shards, still in (("selections", held, False), ("without motion", held, True), ("old", old, False))
    }


def _mean(found: Slice) -> float:
    known = [frame.overall for frame in found.frames if frame.overall is not None]
    return float(np.mean(known)) if known else 0.0


def _drawn(folder: Path, count: int, step: Callable[[int, int], None]) -> Shards:
    """Held-out scenes that need no data, for runs without replay."""
    if not (folder / "held_0000.shard").exists():
        rng = np.random.default_rng(_DRAWN_SEED)

        def samples() -> Iterator[Any]:
            for number in range(count):
                yield drawn_sample(rng, number)
                step(number + 1, count)

        write_shard(folder / "held_0000.shard", count, samples())
    return Shards(folder, "held")


def _training(request: Request, tuning: FineTune, account: Account) -> dict[str, Any]:
    """Summary kept in model.pt and in the metadata of the export."""
    return {
        "step": tuning.step,
        "minutes": tuning.seconds / 60,
        "seed": request.settings.seed,
        "base": sha256_of(request.base),
        "selections": account.train,
        "replay": request.replay is not None,
        "settings": request.settings.described(),
    }


def _facts(request: Request, tuning: FineTune, account: Account) -> dict[str, Any]:
    return {
        "store": f"{request.store}, {account.stored} frames",
        "base": str(request.base),
        "replay": "none, the old data are drawn scenes" if request.replay is None else str(request.replay),
        "frames that taught": account.train,
        "frames that judged": f"{len(account.blocks)} of {len(set(account.blocks))} blocks",
        "training": f"{tuning.step} steps, {tuning.seconds / 60:.1f} minutes, {request.device}",
        **request.settings.described(),
        "parts": ", ".join(request.settings.parts),
    }


def _compare_lineage(registry: Registry, request: Request, console: Console) -> None:
    """Say so when the registry's model was not made from this base: its training would be lost."""
    current = registry.current()
    made_from = None if current is None else current.manifest.get("checkpoint")
    if current is not None and made_from is not None and made_from != sha256_of(request.base):
        console.print(
            f"--base {request.base} is not the checkpoint of the registry's current version {current.name}: "
            "what that one learned since is not in it",
            style="yellow",
        )


def _require_writable(folder: Path) -> None:
    """Refuse before the hours of training what would fail after them.

    Raises:
        StoreError: no registry can be written there.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise StoreError(f"--registry {folder}: {existing} is not a folder that can be written: give another one")


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Whatever the disk refuses as one line."""
    try:
        yield
    except EngineError:
        raise
    except OSError as error:
        where = error.filename or folder
        raise StoreError(f"{where}: {error.strerror or error}: make room and repeat the command, it goes on") from None
