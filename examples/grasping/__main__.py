"""python -m examples.grasping: a simulated cell, the engine and a grasp planner, three processes, one command.

The cell (this process) shows its camera as a live video; `python -m engine.run` finds masks in it; the planner
(`python -m examples.grasping.planner`) knows nothing but these masks and the robot's services. With --keep the services
stay up without planner, for one of your own.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from engine.errors import EngineError, StoreError, UsageError
from examples.grasping.engine_process import EngineProcess
from examples.grasping.film import Film
from examples.grasping.freshness import MAX_AGE_S
from examples.grasping.station import FPS, Station
from examples.grasping.things import FAMILIES
from streaming.subscriber import MaskSubscriber


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.grasping", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first scene; the next ones count up")
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--count", type=int, default=5, help="things per scene")
    parser.add_argument("--family", choices=FAMILIES, default="mixed")
    parser.add_argument("--video", type=Path, metavar="FILE.mp4", help="film of the run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every grasp and its outcome")
    parser.add_argument("--wrist", action="store_true", help="the hand's camera as a second source of the engine")
    parser.add_argument("--max-age", type=float, default=MAX_AGE_S, help="seconds; older masks are never acted on")
    parser.add_argument("--kill-engine-after", type=int, metavar="N", help="kill it after N grasps, start it again")
    parser.add_argument("--dark", type=float, default=5.0, help="seconds until it is started again")
    parser.add_argument("--port", type=int, default=0, help="of the robot's services (default: a free one)")
    parser.add_argument("--publish", metavar="ENDPOINT", help="of the engine (default: a file of this run)")
    parser.add_argument("--keep", action="store_true", help="start no planner, run until Ctrl-C")
    parser.add_argument("engine", nargs="*", help="after --: more options of engine.run, e.g. -- --record store.db")
    return parser


class _Run:
    """What happens between two orders: the film, the progress line, and the engine's death on request."""

    def __init__(self, options: argparse.Namespace, progress: Progress) -> None:
        self._options, self._progress = options, progress
        self._task = progress.add_task("grasping", total=options.scenes * options.count)
        self._dead_s: float | None = None
        self._killed = False
        self.station: Station | None = None
        self.engine: EngineProcess | None = None
        self.film: Film | None = None

    @property
    def caption(self) -> str:
        """The score so far."""
        log = self.station.log if self.station is not None else []
        held = sum(bool(entry.get("held")) for entry in log)
        return f"{held} of {len(log)} grasps held"

    def watch(self, image: np.ndarray) -> None:
        """A picture of the fixed camera."""
        if self.film is not None and self.station is not None and self.station.cell is not None:
            self.film.add(image, self.station.cell, self.caption)

    def each(self) -> None:
        """Called by the station's loop."""
        assert self.station is not None
        assert self.engine is not None
        done = len(self.station.log)
        self._progress.update(self._task, completed=done, description=f"scene {self.station.scene}: {self.caption}")
        if self._dead_s is not None:
            if time.monotonic() - self._dead_s > self._options.dark:
                self._dead_s = None
                self.engine.start()
        elif not self._killed and done >= (self._options.kill_engine_after or sys.maxsize):
            self.engine.kill()
            self._killed, self._dead_s = True, time.monotonic()
        else:
            self.engine.check()
        if self.station.done:
            self.station.stop()


def run(options: argparse.Namespace) -> None:
    """The whole run.

    Raises:
        EngineError: pybullet is missing, the engine ended, or a file cannot be written.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        course = _Run(options, stack.enter_context(Progress(*columns, console=console)))
        endpoint = options.publish or f"ipc://{folder}/masks"
        station = Station(
            list(range(options.seed, options.seed + options.scenes)),
            options.count,
            options.family,
            wrist=options.wrist,
            port=options.port,
            max_age_s=options.max_age,
            watch=course.watch,
        )
        course.station = stack.enter_context(station)
        if options.video is not None:
            masks = stack.enter_context(MaskSubscriber(endpoint, kind="provisional", source="fixed"))
            course.film = stack.enter_context(closing(Film(options.video, masks, FPS)))
        console.print(f"robot {station.url}  masks {endpoint}", highlight=False)
        sources = [f"fixed={station.url}/video", *([f"wrist={station.url}/wrist"] if options.wrist else [])]
        course.engine = stack.enter_context(EngineProcess(sources, endpoint, options.engine))
        if not options.keep:
            command = [sys.executable, "-m", "examples.grasping.planner", "--masks", endpoint]
            command += ["--cell", station.url, "--max-age", str(options.max_age)]
            stack.callback(_end, subprocess.Popen(command))
        try:
            station.run(course.each)
        except KeyboardInterrupt:
            console.print("interrupted")
        console.print(course.caption, highlight=False)
        _write(options.json, station)


def _end(planner: "subprocess.Popen[bytes]") -> None:
    planner.terminate()
    planner.wait()


def _write(path: Path | None, station: Station) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(station.log, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"--json {path}: {error.strerror or error}; give a file that can be written") from None


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        if options.scenes < 1 or options.count < 1:
            raise UsageError(f"--scenes {options.scenes} --count {options.count}: both must be at least 1")
        run(options)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    # Whoever ends this process wants its engine and planner gone, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
