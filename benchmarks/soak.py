"""A long run of the engine on cameras that break: memory, threads, sockets, recovery times, closed books.

    python -m benchmarks.soak --json FILE [--frames 100000] [--cameras 2] [--size 120x160]

The engine runs as a process of its own with a subscriber attached, and is looked at every two seconds. Its cameras are
servers of motion JPEG in this process, which are cut in the middle of a picture, stall, die and start again, or send
corrupt pictures, at random. Growth is that of the anonymous memory after the first quarter of the frames, until which
buffers fill and libraries load: a line with its 95 % interval, per frame and per reconnect; and once more over the last
half of the frames, where what fills up to a bound has stopped and a leak has not.

`--cameras 0` runs the built-in scene as fast as it goes instead, without faults; `--cameras 4 --fault-every 0` tells
what four good cameras cost: `received_ms` is capture to mask in the subscriber.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2

from benchmarks import machine
from benchmarks.fault_plan import FaultPlan
from benchmarks.fault_server import MjpegServer
from benchmarks.growth import Sample, curve, growth
from benchmarks.options import at_least
from benchmarks.small_model import write_small_model
from engine.errors import EngineError
from streaming.control.client import ControlClient
from streaming.control.protocol import ControlError
from streaming.report import Samples
from streaming.sources import open_source
from streaming.subscriber import MaskSubscriber

_PICTURES = 120
"""Pictures a camera repeats: four seconds at 30 Hz."""

_SAMPLE_EVERY_S = 2.0
_PROGRESS_EVERY_S = 30.0


def books(stats: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Per source: captured, published, dropped by cause, and what is missing (0 when the books close)."""
    sources = stats.get("sources") or {"all": stats}
    return {
        name: {
            "captured": source["captured"],
            "published": source["frames"],
            "dropped": source["dropped"],
            "missing": source["captured"] - source["frames"] - sum(source["dropped"].values()),
        }
        for name, source in sources.items()
    }


def pictures(count: int, seed: int, size: str) -> list[bytes]:
    """The built-in scene as JPEGs."""
    with open_source(f"demo://?frames={count}&seed={seed}&size={size}") as source:
        return [bytes(cv2.imencode(".jpg", frame.image)[1].tobytes()) for frame in source]


class Soak:
    """A run of the engine on cameras that break.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._cameras = {
            f"cam{number}": MjpegServer(options.fps, pictures(_PICTURES, number, options.size))
            for number in range(options.cameras)
        }
        self._plan = FaultPlan(self._cameras, options.seed, options.fault_every)
        self._samples: list[Sample] = []
        self._received, self._received_ms = 0, Samples()
        self._next_sample_s = self._next_progress_s = 0.0

    def run(self) -> dict[str, Any]:
        """One run of the engine; the content of the JSON file."""
        with tempfile.TemporaryDirectory() as folder:
            log, stats_file = Path(folder) / "log", Path(folder) / "stats.json"
            try:
                with log.open("w", encoding="utf-8") as errors:
                    process = subprocess.Popen(self._command(folder, stats_file), stderr=errors)
                    self._watch(process, folder)
            finally:
                self._plan.stop()
                for camera in self._cameras.values():
                    camera.close()
            if process.returncode:
                raise SystemExit(log.read_text(encoding="utf-8").strip().splitlines()[-1])
            stats = json.loads(stats_file.read_text(encoding="utf-8"))
        return {
            **self._so_far(),
            "complete": True,
            "frames": stats["frames"],
            "fps": stats["fps"],
            "latency_ms": stats["latency_ms"]["total"],
            "age_ms": stats["age_ms"],
            "received_ms": self._received_ms.summary(),
            "peak_rss_mb": stats["peak_rss_mb"],
            "recovery_s": self._plan.recovery_s(),
            "reconnects": {name: source["reconnects"] for name, source in stats.get("sources", {}).items()},
            "books": books(stats),
        }

    def _command(self, folder: str, stats_file: Path) -> list[str]:
        options = self._options
        sources = [f"{name}={camera.uri}" for name, camera in self._cameras.items()]
        sources = sources or [f"demo://?frames={options.frames}&size={options.size}"]
        command = [sys.executable, "-m", "engine.run", "--max-frames", str(options.frames)]
        command += [argument for source in sources for argument in ("--source", source)]
        command += ["--publish", f"ipc://{folder}/masks", "--control", f"ipc://{folder}/control"]
        command += ["--stats-json", str(stats_file), "--open-timeout", "3", "--read-timeout", "2"]
        if options.model is not None:
            small = options.model == "small"
            command += ["--model", str(write_small_model(Path(folder) / "small.onnx")) if small else options.model]
        return [*command, *options.engine]

    def _watch(self, process: "subprocess.Popen[bytes]", folder: str) -> None:
        """Read what the engine publishes until it ends, and look at it now and then."""
        with (
            MaskSubscriber(f"ipc://{folder}/masks", kind="provisional") as subscriber,
            ControlClient(f"ipc://{folder}/control", timeout_s=2.0) as control,
        ):
            while process.poll() is None:
                scene = subscriber.read(timeout_s=0.2)
                if scene is not None:
                    if not self._received and self._options.fault_every:
                        self._plan.start()
                    self._received += 1
                    self._received_ms.add((time.time_ns() - scene.t_capture_ns) / 1e6)
                    self._plan.seen(scene.source, scene.t_capture_ns)
                if self._received and time.monotonic() >= self._next_sample_s:
                    self._look(process.pid, control)

    def _look(self, pid: int, control: ControlClient) -> None:
        """Take a sample, and now and then tell how far the run is."""
        now_s = time.monotonic()
        self._next_sample_s = now_s + _SAMPLE_EVERY_S
        try:
            status = control.status()
        except ControlError:
            return  # the engine is ending
        frames, reconnects = status["frames"], sum(source["reconnects"] for source in status["sources"])
        if (sample := Sample.of(pid, frames, reconnects)) is not None:
            self._samples.append(sample)
        if self._samples and now_s >= self._next_progress_s:
            self._next_progress_s = now_s + _PROGRESS_EVERY_S
            newest = self._samples[-1]
            print(
                f"{newest.frames} frames, {newest.reconnects} reconnects, {newest.anon_mb:.1f} MB anonymous, "
                f"{newest.threads} threads",
                flush=True,
            )
            machine.write_report(self._options.json, {"complete": False, "frames": frames, **self._so_far()})

    def _so_far(self) -> dict[str, Any]:
        return {
            "received": self._received,
            "faults": dict(self._plan.counts),
            **growth(self._samples),
            "curve": curve(self._samples),
        }


def main() -> int:
    """Print one line per quantity, write the JSON; 1 when a frame is missing from the books."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="also written during the run, with what is known by then")
    parser.add_argument("--frames", type=at_least(1), default=2000, help="processed frames, of all cameras together")
    parser.add_argument("--cameras", type=at_least(0), default=2, help="cameras that break; 0: the built-in scene")
    parser.add_argument("--fps", type=float, default=30.0, help="of each camera")
    parser.add_argument("--size", default="480x854", metavar="HxW", help="of the pictures")
    parser.add_argument("--model", metavar="small|NAME|PATH", help="small: next to no network; default: the shipped")
    parser.add_argument(
        "--fault-every", type=float, default=10.0, metavar="S", help="mean time between faults, 0: none"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("engine", nargs="*", help="after --: further options of engine.run")
    options = parser.parse_args()
    try:
        result = Soak(options).run()
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name, value in result.items():
        if name != "curve":
            print(f"{name}: {value}")
    missing = [name for name, book in result["books"].items() if book["missing"]]
    if missing:
        print(f"frames are missing from the books of {', '.join(missing)}", file=sys.stderr)
    return machine.finish(options.json, result) or bool(missing)


if __name__ == "__main__":
    sys.exit(main())
