"""One seed of the protocol from rendering to figures; every stage leaves a file, a killed run goes on."""

import copy
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.unseen.detector import write_model
from benchmarks.unseen.mining import METHODS, Miner
from benchmarks.unseen.plan import Plan
from benchmarks.unseen.scores import score
from benchmarks.unseen.training import LabelledFrame, Mixture, new_network, read_network, train
from benchmarks.unseen.world import World, read_backgrounds
from engine.errors import StoreError

BEFORE = "before"
CONTROL = "more training on seen stills"
"""Fine-tuning with nothing mined: what the additional updates alone are worth."""

ROWS = (BEFORE, CONTROL, *METHODS)

Row = dict[str, Any]


def file_name(row: str) -> str:
    """A row's name as part of a file name."""
    return row.replace(" + ", "_").replace(" ", "-").lower()


def check_plan(work: Path, plan: Plan) -> None:
    """Write the plan to a new work folder, or see that an old one was begun with the same.

    Raises:
        StoreError: it was begun with another plan, or cannot be written.
    """
    path = work / "plan.json"
    text = json.dumps(asdict(plan), indent=1)
    try:
        work.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(text, encoding="utf-8")
        found = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StoreError(f"--work {work}: {error.strerror or error}; give a folder that can be written") from None
    if found != text:
        raise StoreError(f"--work {work}: begun with another plan (plan.json): give an empty folder")


class Experiment:
    """The run of one seed: its own world, base network, labels and fine-tunings.

    Args:
        folder: of this seed.
        data: folder with photos/ and textures/.
        jobs: processes that mine and fine-tune side by side.
    """

    def __init__(self, folder: Path, data: Path, plan: Plan, seed: int, jobs: int) -> None:
        self._folder, self._data, self._plan, self._seed, self._jobs = folder, data, plan, seed, jobs
        self._world = World(folder / "world", data, plan, seed)
        for name in ("tuned", "scores"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def run(self) -> dict[str, Row]:
        """Figures of every row: {"unseen": {...}, "seen": {...}, "labels": {...}}."""
        self._world.render()
        base, model = self._folder / "base.pt", self._folder / "base.onnx"
        if not base.exists():
            torch.set_num_threads(self._jobs)
            network = new_network(self._plan.detector, self._seed)
            train(network, self._mixture([], 0), self._plan.base_steps, self._plan.base_rate, base)
            self._say("base trained")
        if not model.exists():
            write_model(read_network(base), model, f"unseen-base-{self._seed}")
        missing = self._miner().missing()
        self._each(self.mine, [missing[i :: self._jobs] for i in range(self._jobs)])
        self._say("labels made")
        return dict(zip(ROWS, self._each(self.row, ROWS), strict=True))

    def _say(self, text: str) -> None:
        print(f"seed {self._seed}: {text}", flush=True)

    def _each(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """What `work` makes of every item, in order, on `jobs` processes."""
        if self._jobs == 1:
            return [work(item) for item in items]
        # Spawned, not forked: a forked child of a process that has used torch's threads can hang in them.
        with multiprocessing.get_context("spawn").Pool(self._jobs, _one_thread) as pool:
            return list(pool.imap(work, items))

    def _miner(self) -> Miner:
        base, model = self._folder / "base.pt", self._folder / "base.onnx"
        return Miner(self._folder / "labels", self._world, self._plan, read_network(base), model)

    def mine(self, videos: Sequence[int]) -> None:
        """Label these videos."""
        self._miner().mine(videos)

    def _mixture(self, mined: list[LabelledFrame], stream: int) -> Mixture:
        backgrounds = read_backgrounds(self._data, self._seed)["train"]
        rng = np.random.default_rng([self._seed, 9, stream])
        return Mixture(self._world.pictures("train"), backgrounds, mined, self._plan.tune_share, self._plan.batch, rng)

    def row(self, row: str) -> Row:
        """Fine-tune and score one row, or read what an earlier run found."""
        path = self._folder / "scores" / f"{file_name(row)}.json"
        if path.exists():
            found: Row = json.loads(path.read_text(encoding="utf-8"))
            return found
        plan, labels = self._plan, {}
        network = read_network(self._folder / "base.pt")
        if row != BEFORE:
            mined: list[LabelledFrame] = []
            if row != CONTROL:
                miner = self._miner()
                mined, labels = miner.labels(row), miner.quality(row)
            tuned = self._folder / "tuned" / f"{file_name(row)}.pt"
            # Every row begins at the base and sees the same random numbers.
            base = copy.deepcopy(network)
            train(network, self._mixture(mined, 1), plan.tune_steps, plan.tune_rate, tuned, base, plan.tune_move)
            network = read_network(tuned)
        figures = {part: score(network, self._world.pictures(part)) for part in ("unseen", "seen")}
        result: Row = {**figures, "labels": labels}
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(result, indent=1), encoding="utf-8")
        os.replace(partial, path)
        self._say(f"{row}: unseen AP {figures['unseen']['AP']:.1f}, seen {figures['seen']['AP']:.1f}")
        return result


def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
