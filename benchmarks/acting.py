"""Does touching what is uncertain teach more than touching anything, or nothing? The whole loop, live.

    python -m benchmarks.acting --json FILE --work DIR --base UNSEEN/seed_{seed}/base.pt [--seeds 3] [--actions 40]

Base: a network that has seen only boxes, cylinders, cones and balls over photographs (`python -m benchmarks.unseen`
leaves one per seed in its --work folder). It never saw motion, so its motion input is made blind. For each seed and
policy the robot of `examples.grasping` acts `--actions` times in trays of random meshes it never met: it pokes the
object with the highest published uncertainty (or an unexplained place), pokes one at random, or waits as long. The
engine runs as a process with --record; the store is retrained by `learning.retrain`, and the engine, still running,
takes the new model from the registry if the gate promotes it. Judged are AP on held-out trays of other meshes (all
pictures at rest) and grasps there, with the model the engine ends with; and AP of the retrained network even where the
gate kept the base.

The cell waits with each picture until the engine has answered the one before: what is learned does not depend on how
busy the machine is. Every seed and policy leaves a file; killed and started again with the same --work, the run goes
on.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# A spinning OpenMP thread makes a step many times slower as soon as anything else runs; read before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.grasping import EngineMasks, run_method
from benchmarks.machine import write_report
from benchmarks.options import at_least
from benchmarks.unseen.scores import score, spread
from benchmarks.unseen.world import Pictures
from engine.errors import EngineError, SourceError, StoreError
from engine.perceive.network import Network
from engine.registry import Registry
from examples.grasping.cell import Cell
from examples.grasping.engine_process import EngineProcess
from examples.grasping.explorer import Explorer
from examples.grasping.poking import POLICIES, Policy
from examples.grasping.robot import Robot
from examples.grasping.station import Station
from export.checkpoint import load_checkpoint
from export.convert import Options, export
from learning.synthesis.sample import SIZE
from streaming.subscriber import MaskSubscriber

BEFORE = "before"
_ACTIONS_PER_TRAY = 4
_ANSWER_S = 30.0
_SWAP_S = 120.0
_IDLE_FPS = 2.0
"""While learning: nothing happens in the cell, and the cores are wanted elsewhere."""

_STEP_S = 900.0
_MAX_AGE_S = 60.0
"""Of masks acted on: pictures come in lockstep with the engine, so that a slow machine must not change the result."""

_MIN_VISIBLE_PX = 60


@dataclass(frozen=True)
class Plan:
    """What decides the figures besides the seeds.

    Attributes:
        actions: of the robot.
        things: per tray.
        steps: updates of a retraining. parts: what learns, as `learning.retrain --parts`.
        stills: held-out trays that AP is measured on.
        grasp_scenes: held-out trays to grasp in.
    """

    actions: int
    things: int
    steps: int
    parts: tuple[str, ...]
    held_frames: int
    stills: int
    grasp_scenes: int


class Lockstep:
    """Lets the cell show a picture only when the engine has answered the one before."""

    def __init__(self, masks: MaskSubscriber) -> None:
        self._masks, self._before_ns, self.answered, self.unanswered = masks, time.time_ns(), 0, 0

    def __call__(self, image: np.ndarray) -> None:
        deadline_s = time.monotonic() + (_ANSWER_S if self.answered else 0.0)
        while True:
            scene = self._masks.read(max(0.0, deadline_s - time.monotonic()))
            if scene is None:
                self.unanswered += bool(self.answered)
                break
            if scene.t_capture_ns > self._before_ns:
                self.answered += 1
                break
        self._before_ns = time.time_ns()


class Course:
    """What the robot does, in a thread beside the cell's: act, learn, wait for the swap."""

    def __init__(self, folder: Path, base: Path, policy: Policy, seed: int, plan: Plan) -> None:
        self.folder, self.base, self.policy, self.seed, self.plan = folder, base, policy, seed, plan
        self.result: dict[str, Any] = {}
        self.error: EngineError | None = None
        self.acted: list[str] = []

    def run(self, station: Station, endpoint: str, engine: EngineProcess) -> None:
        """Fills `result`, or `error`; ends the station in any case."""
        try:
            with MaskSubscriber(endpoint, kind="provisional", source="fixed") as masks:
                self._act(station, masks, engine)
                station.fps = _IDLE_FPS
                learned = self._learn()
                self.result = {**learned, "actions": self.acted}
                if learned["promoted"]:
                    self.result["generation"] = self._await_swap(masks, engine)
        except EngineError as error:
            self.error = error
        finally:
            station.stop()

    def _act(self, station: Station, masks: MaskSubscriber, engine: EngineProcess) -> None:
        rng = np.random.default_rng([self.seed, 31])
        explorer = Explorer(masks, Robot(station.url), self.policy, rng, _MAX_AGE_S)
        since_s = time.monotonic()
        while len(self.acted) < self.plan.actions:
            engine.check()
            look = explorer.step()
            if look.acted:
                self.acted.append(look.what)
                since_s = time.monotonic()
                print(f"seed {self.seed} {self.policy}: {len(self.acted)}: {look.what}", flush=True)
            elif time.monotonic() - since_s > _STEP_S:
                raise SourceError(f"no action within {_STEP_S:g} s: {look.what}")

    def _learn(self) -> dict[str, Any]:
        command = [sys.executable, "-m", "learning.retrain", "--store", str(self.folder / "store.db")]
        command += ["--base", str(self.base), "--registry", str(self.folder / "models"), "--to", "onnx"]
        command += ["--steps", str(self.plan.steps), "--held-frames", str(self.plan.held_frames)]
        command += ["--parts", *self.plan.parts, "--seed", str(self.seed), "--out", str(self.folder / "retrain")]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [*done.stderr.splitlines(), *done.stdout.splitlines()]
        verdict = lines[-1] if lines else ""
        if done.returncode not in (0, StoreError.exit_code):
            raise StoreError(f"learning.retrain ended with exit code {done.returncode}: {verdict}")
        promoted = Registry(self.folder / "models").current() is not None
        print(f"seed {self.seed} {self.policy}: {verdict}", flush=True)
        # Exit code 5: too little in the store to learn from, which is an outcome, not a failure.
        return {"verdict": verdict, "learned": done.returncode == 0, "promoted": promoted}

    def _await_swap(self, masks: MaskSubscriber, engine: EngineProcess) -> int:
        """Generation of the first scene that the promoted model saw."""
        deadline_s = time.monotonic() + _SWAP_S
        while time.monotonic() < deadline_s:
            engine.check()
            scene = masks.read(1.0)
            if scene is not None and scene.model.generation > 1:
                return scene.model.generation
        raise SourceError(f"the engine did not take the promoted model within {_SWAP_S:g} s")


def blind_base(base: Path, out: Path) -> None:
    """A checkpoint of `learning.retrain`'s kind whose network answers alike with and without motion.

    Raises:
        ModelError: `base` is no checkpoint.
    """
    network = load_checkpoint(base).network
    with torch.no_grad():
        # Trained with zeros only: whatever motion does to these weights is noise.
        network.motion_stem[0].weight.zero_()
    partial = out.with_suffix(".part")
    torch.save({"config": asdict(network.config), "state": network.state_dict(), "training": {}}, partial)
    os.replace(partial, out)


def held_out_stills(path: Path, seed: int, plan: Plan) -> Pictures:
    """Trays of meshes that no policy met, at rest, at the network's size; rendered once."""
    if not path.exists():
        images, truths = [], []
        for number in range(plan.stills):
            with Cell(900_000 + 1000 * seed + number, plan.things, "held_out") as cell:
                picture = cell.fixed()
                truth = cell.truth(picture)
                images.append(cv2.resize(cell.noisy(picture), SIZE[::-1], interpolation=cv2.INTER_LINEAR))
                truths.append(cv2.resize(truth, SIZE[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8))
        for truth in truths:
            for label in np.unique(truth):
                if (truth == label).sum() < _MIN_VISIBLE_PX:
                    truth[truth == label] = 0
        np.savez(path, images=np.stack(images), ids=np.stack(truths))
    with np.load(path) as stored:
        return Pictures(np.empty((0, *SIZE, 4), np.uint8), stored["images"], stored["ids"])


def grasp_success(model: Path, seed: int, plan: Plan) -> dict[str, int]:
    """Grasps held and things there, in held-out trays, with the engine's masks of a model."""
    network, held, things = Network(model), 0, 0
    for number in range(plan.grasp_scenes):
        with Cell(950_000 + 1000 * seed + number, plan.things, "held_out") as cell:
            found = run_method(cell, EngineMasks(network))
        held += sum(attempt["held"] for attempt in found["attempts"])
        things += found["things"]
    return {"held": held, "things": things}


def judge(checkpoint: Path, model: Path, stills: Pictures, seed: int, plan: Plan) -> dict[str, Any]:
    """AP of the network, grasps with the engine."""
    figures = score(load_checkpoint(checkpoint).network, stills)
    return {**{name: figures[name] for name in ("AP", "AP50", "AR5")}, "grasps": grasp_success(model, seed, plan)}


def run_course(folder: Path, base: Path, model: Path, policy: Policy, seed: int, plan: Plan) -> dict[str, Any]:
    """Act, learn and swap with one policy.

    Raises:
        EngineError: the engine or the retraining failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    # As many as could be needed, should every action empty its tray.
    seeds = [10_000 * (seed + 1) + number for number in range(plan.actions + 1)]
    course = Course(folder, base, policy, seed, plan)
    options = ["--model", str(model), "--models", str(folder / "models"), "--record", str(folder / "store.db")]
    # In lockstep the camera is as slow as the engine, and that is no reason to connect anew.
    options += ["--read-timeout", "600", "--open-timeout", "60"]
    with ExitStack() as stack:
        # A folder of our own: nobody else may enter where masks are published.
        endpoint = f"ipc://{stack.enter_context(tempfile.TemporaryDirectory())}/masks"
        lockstep = Lockstep(stack.enter_context(MaskSubscriber(endpoint, kind="provisional", source="fixed")))
        station = Station(
            seeds, plan.things, "meshes", attempts=_ACTIONS_PER_TRAY, max_age_s=_MAX_AGE_S, watch=lockstep
        )
        stack.enter_context(station)
        engine = stack.enter_context(EngineProcess([f"fixed={station.url}/video"], endpoint, options))
        worker = threading.Thread(target=course.run, args=(station, endpoint, engine), daemon=True)
        worker.start()
        station.run()
        worker.join(_ANSWER_S)
    if course.error is not None:
        raise course.error
    return {**course.result, "frames": lockstep.answered, "frames_unanswered": lockstep.unanswered}


def run_unit(work: Path, base: Path, policy: Policy, seed: int, plan: Plan, stills: Pictures) -> dict[str, Any]:
    """One seed and policy, from the first touch to the last figure; read if it is done."""
    folder = work / f"seed_{seed}" / policy
    path = folder / "result.json"
    if not path.exists():
        model = base.with_suffix(".onnx")
        loop_path = folder / "loop.json"
        if not loop_path.exists():
            # A half-acted run is no run of so many actions: nothing of it is used.
            shutil.rmtree(folder, ignore_errors=True)
            _write_json(loop_path, run_course(folder, base, model, policy, seed, plan))
        loop = json.loads(loop_path.read_text(encoding="utf-8"))
        trained = sorted((folder / "retrain").glob("run-*/model.pt")) if loop["learned"] else []
        current = Registry(folder / "models").current()
        figures = None
        if current is not None:
            figures = judge(trained[-1], current.path, stills, seed, plan)
        retrained = score(load_checkpoint(trained[-1]).network, stills)["AP"] if trained else None
        _write_json(path, {**loop, "after": figures, "retrained_AP": retrained})
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(partial, path)


def run_seed(work: Path, source: Path, seed: int, plan: Plan) -> dict[str, Any]:
    """The base and every policy of one seed."""
    folder = work / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "base.pt"
    if not base.exists():
        blind_base(source, base)
    if not base.with_suffix(".onnx").exists():
        export(base, "onnx", base.with_suffix(".onnx"), Options(name=f"acting-base-{seed}", parity_frames=8))
    stills = held_out_stills(folder / "stills.npz", seed, plan)
    before = folder / "before.json"
    if not before.exists():
        _write_json(before, judge(base, base.with_suffix(".onnx"), stills, seed, plan))
    found: dict[str, Any] = {BEFORE: {"after": json.loads(before.read_text(encoding="utf-8"))}}
    for policy in POLICIES:
        found[policy] = run_unit(work, base, policy, seed, plan, stills)
    return found


def summarise(seeds: dict[int, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and spread over seeds; what kept the base has the base's figures."""
    summary = {}
    for policy in (BEFORE, *POLICIES):
        ends = [found[policy]["after"] or found[BEFORE]["after"] for found in seeds.values()]
        # What could not even be retrained is the base.
        retrained = [
            found[BEFORE]["after"]["AP"] if (ap := found[policy].get("retrained_AP")) is None else ap
            for found in seeds.values()
        ]
        summary[policy] = {
            "AP": spread(end["AP"] for end in ends),
            "grasps": spread(100 * end["grasps"]["held"] / max(1, end["grasps"]["things"]) for end in ends),
            "AP_without_gate": spread(retrained),
            "promoted": sum(bool(found[policy].get("promoted")) for found in seeds.values()),
            "frames": sum(found[policy].get("frames", 0) for found in seeds.values()),
        }
    return summary


def print_table(summary: dict[str, dict[str, Any]], seeds: int) -> None:
    """The table on the terminal; ± is the spread over seeds."""
    table = Table(title=f"held-out meshes, {seeds} seed(s), mean ± spread")
    for name in ("policy", "AP", "grasps held, %", "promoted", "AP without gate", "frames"):
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    for policy, row in summary.items():
        cells = ["{:.1f} ± {:.1f}".format(*row[name]) for name in ("AP", "grasps", "AP_without_gate")]
        table.add_row(policy, cells[0], cells[1], f"{row['promoted']} of {seeds}", cells[2], str(row["frames"]))
    Console(width=120).print(table)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the run; an interrupted one goes on")
    parser.add_argument("--base", required=True, metavar="FILE", help="base.pt; {seed} stands for the seed")
    parser.add_argument("--seeds", type=at_least(1), default=3)
    parser.add_argument("--actions", type=at_least(1), default=40)
    parser.add_argument("--things", type=at_least(1), default=4, help="per tray")
    parser.add_argument("--steps", type=at_least(1), default=150, help="of a retraining")
    parser.add_argument("--parts", nargs="+", default=["heads"], help="what learns, as for learning.retrain")
    parser.add_argument("--held-frames", type=at_least(2), default=40, help="that judge a retraining")
    parser.add_argument("--stills", type=at_least(1), default=40, help="held-out trays for AP")
    parser.add_argument("--grasp-scenes", type=at_least(1), default=10, help="held-out trays to grasp in")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    plan = Plan(
        args.actions, args.things, args.steps, tuple(args.parts), args.held_frames, args.stills, args.grasp_scenes
    )
    seeds: dict[int, dict[str, Any]] = {}
    try:
        _check_plan(args.work, plan)
        for seed in range(args.seeds):
            seeds[seed] = run_seed(args.work, Path(args.base.format(seed=seed)), seed, plan)
            summary = summarise(seeds)
            # After every seed, so that what is there can be read while the others run.
            write_report(args.json, {"plan": asdict(plan), "summary": summary, "seeds": seeds})
        print_table(summary, len(seeds))
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _check_plan(work: Path, plan: Plan) -> None:
    path, text = work / "plan.json", json.dumps(asdict(plan), indent=1)
    try:
        work.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(text, encoding="utf-8")
        same = path.read_text(encoding="utf-8") == text
    except OSError as error:
        raise StoreError(f"--work {work}: {error.strerror or error}; give a folder that can be written") from None
    if not same:
        raise StoreError(f"--work {work}: begun with another plan (plan.json): give an empty folder")


if __name__ == "__main__":
    sys.exit(main())
