"""A long run of the engine on cameras that break: memory, threads, sockets, recovery times, closed books.

    python -m benchmarks.soak --json FILE [--frames 100000] [--cameras 2]

The engine runs as a process of its own with a subscriber attached, and is looked at every second. Its cameras are
servers of motion JPEG in this process, which are cut in the middle of a picture, stall, die and start again, or send
corrupt pictures, at random. `--cameras 0` runs the built-in scene as fast as it goes instead, without faults;
`--cameras 4 --fault-every 0` tells what four good cameras cost: `received_ms` is capture to mask in the subscriber.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import machine
from benchmarks.fault_plan import FaultPlan
from benchmarks.fault_server import MjpegServer
from streaming.report import Samples
from streaming.sources import open_source
from streaming.subscriber import MaskSubscriber

_PICTURES = 120
"""Pictures a camera repeats: four seconds."""


def resident_mb(pid: int) -> float:
    """Resident memory of a process in megabytes; 0 once it is gone (Linux)."""
    return float(_status(pid).get("VmRSS", "0").split()[0]) / 1024


def _status(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return {}
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds at one moment.

    Attributes:
        at_s: monotonic time.
        rss_mb: resident memory.
        threads, sockets: how many.
    """

    at_s: float
    rss_mb: float
    threads: int
    sockets: int

    @classmethod
    def of(cls, pid: int) -> "Sample | None":
        """Of process `pid` now, None once it is gone (Linux)."""
        status = _status(pid)
        if "VmRSS" not in status:
            return None
        sockets = 0
        with contextlib.suppress(FileNotFoundError, PermissionError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    sockets += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        return cls(time.monotonic(), resident_mb(pid), int(status["Threads"]), sockets)


def growth(samples: list[Sample]) -> dict[str, Any]:
    """Medians of second and last quarter, and the slope of the memory over the second half of the run."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    half = samples[len(samples) // 2 :]
    slope = 0.0
    if len(half) > 2:
        slope = float(np.polyfit([sample.at_s for sample in half], [sample.rss_mb for sample in half], 1)[0])
    result: dict[str, Any] = {"rss_slope_mb_per_hour": round(slope * 3600, 2)}
    for name in ("rss_mb", "threads", "sockets"):
        for part, chosen in (("second_quarter", early), ("last_quarter", late)):
            result[f"{name}_{part}"] = round(statistics.median(getattr(sample, name) for sample in chosen), 1)
    return result


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


def pictures(count: int, seed: int) -> list[bytes]:
    """The built-in scene as JPEGs of 480 x 854."""
    with open_source(f"demo://?frames={count}&seed={seed}") as source:
        return [bytes(cv2.imencode(".jpg", frame.image)[1].tobytes()) for frame in source]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One run of the engine; the content of the JSON file."""
    cameras = {
        f"cam{number}": MjpegServer(options.fps, pictures(_PICTURES, number)) for number in range(options.cameras)
    }
    plan = FaultPlan(cameras, options.seed, options.fault_every)
    sources = [f"{name}={camera.uri}" for name, camera in cameras.items()] or [f"demo://?frames={options.frames}"]
    samples: list[Sample] = []
    received, received_ms = 0, Samples()
    with tempfile.TemporaryDirectory() as folder:
        stats_file, endpoint = Path(folder) / "stats.json", f"ipc://{folder}/masks"
        command = [sys.executable, "-m", "engine.run", "--max-frames", str(options.frames)]
        command += [argument for source in sources for argument in ("--source", source)]
        command += ["--publish", endpoint, "--stats-json", str(stats_file)]
        command += ["--open-timeout", "3", "--read-timeout", "2", *options.engine]
        log = Path(folder) / "log"
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(command, stderr=errors)
            with MaskSubscriber(endpoint, kind="provisional") as subscriber:
                next_sample_s = time.monotonic()
                while process.poll() is None:
                    scene = subscriber.read(timeout_s=0.2)
                    if scene is not None:
                        if not received and options.fault_every:
                            plan.start()
                        received += 1
                        received_ms.add((time.time_ns() - scene.t_capture_ns) / 1e6)
                        plan.seen(scene.source, scene.t_capture_ns)
                    if time.monotonic() >= next_sample_s:
                        next_sample_s += 1.0
                        if received and (sample := Sample.of(process.pid)) is not None:
                            samples.append(sample)
        plan.stop()
        for camera in cameras.values():
            camera.close()
        if process.returncode:
            raise SystemExit(log.read_text(encoding="utf-8").strip().splitlines()[-1])
        stats = json.loads(stats_file.read_text(encoding="utf-8"))
    return {
        "frames": stats["frames"],
        "received": received,
        "fps": stats["fps"],
        "latency_ms": stats["latency_ms"]["total"],
        "age_ms": stats["age_ms"],
        "received_ms": received_ms.summary(),
        "peak_rss_mb": stats["peak_rss_mb"],
        **growth(samples),
        "faults": dict(plan.counts),
        "recovery_s": plan.recovery_s(),
        "reconnects": {name: source["reconnects"] for name, source in stats.get("sources", {}).items()},
        "books": books(stats),
    }


def main() -> int:
    """Print one line per quantity, write the JSON; 1 when a frame is missing from the books."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--frames", type=int, default=2000, help="processed frames, of all cameras together")
    parser.add_argument("--cameras", type=int, default=2, help="cameras that break; 0: the built-in scene")
    parser.add_argument("--fps", type=float, default=30.0, help="of each camera")
    parser.add_argument(
        "--fault-every", type=float, default=10.0, metavar="S", help="mean time between faults, 0: none"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("engine", nargs="*", help="after --: further options of engine.run")
    options = parser.parse_args()
    result = run(options)
    for name, value in result.items():
        print(f"{name}: {value}")
    missing = [name for name, book in result["books"].items() if book["missing"]]
    if missing:
        print(f"frames are missing from the books of {', '.join(missing)}", file=sys.stderr)
    return machine.finish(options.json, result) or bool(missing)


if __name__ == "__main__":
    sys.exit(main())
