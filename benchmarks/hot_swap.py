"""Model swaps under load: frames lost, frames delayed, generations seen by a subscriber, and what is left behind.

    python -m benchmarks.hot_swap --json FILE [--swaps 100] [--source URI] [--every-s 3]

The engine runs as a process of its own on a live source at 30 Hz, with every frame wanted and a subscriber that takes
both answers of each. Two models of the same weights and different hashes are placed in its registry in turn. A frame
belongs to a swap from the moment the model is placed until half a second after the first frame the new one has seen.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks import machine
from benchmarks.options import at_least
from engine.errors import EngineError, ModelError, SourceError
from engine.perceive.network import DEFAULT_MODEL
from engine.registry import Registry
from streaming.subscriber import MaskSubscriber

SOURCE = "demo://?live=1&frames=0"
PROMISE_MS = 100.0
_START_S = 120.0
_SWAP_S = 60.0
_SETTLE_S = 3.0
_AFTER_S = 0.5


@dataclass(frozen=True, slots=True)
class Heard:
    """One scene as the subscriber got it; times are Unix nanoseconds."""

    kind: str
    frame: int
    generation: int
    t_capture_ns: int
    t_publish_ns: int

    @property
    def age_ms(self) -> float:
        """Capture to publishing."""
        return (self.t_publish_ns - self.t_capture_ns) / 1e6


class Listener:
    """Takes every scene in a thread of its own."""

    def __init__(self, subscriber: MaskSubscriber) -> None:
        self.heard: list[Heard] = []
        self._subscriber = subscriber
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_for(self, generation: int, process: "subprocess.Popen[str]", timeout_s: float) -> None:
        """Return once a scene of that generation is there.

        Raises:
            SourceError: the engine ended, or it takes too long.
        """
        give_up_s = time.monotonic() + timeout_s
        while not any(item.generation >= generation for item in reversed(self.heard[-200:])):
            if process.poll() is not None:
                raise SourceError(f"the engine ended early with exit code {process.returncode}: see its message")
            if time.monotonic() > give_up_s:
                raise SourceError(f"no scene of generation {generation} within {timeout_s:g} s: see the engine's log")
            time.sleep(0.01)

    def _run(self) -> None:
        for message in self._subscriber:
            times = message.t_capture_ns, message.t_publish_ns
            self.heard.append(Heard(message.kind, message.frame, message.model.generation, *times))


def resources(pid: int) -> dict[str, float]:
    """Resident megabytes, threads and open files of a process (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    return {
        "rss_mb": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "threads": int(status["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


def twins(model: Path, folder: Path) -> list[Path]:
    """Two models of the same weights and different hashes.

    Raises:
        ModelError: the model cannot be read.
    """
    if not model.is_file():
        raise ModelError(f"--model {model}: no such file")
    paths = []
    for name in ("one", "two"):
        content = onnx.load(model)
        entry = content.metadata_props.add()
        entry.key, entry.value = "twin", name
        paths.append(folder / f"{name}.onnx")
        onnx.save(content, paths[-1])
    return paths


def measure(model: Path, source: str, swaps: int, every_s: float, options: list[str]) -> dict[str, Any]:
    """Swap and listen.

    Args:
        model: file whose twins are swapped.
        source: URI of a live source.
        swaps: how often.
        every_s: between two of them.
        options: more of the engine's command line.

    Raises:
        EngineError: the engine did not do as asked.
    """
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        registry, endpoint = Registry(folder / "models"), f"ipc://{folder}/masks"
        registry.folder.mkdir()
        files = twins(model, folder)
        command = [sys.executable, "-m", "engine.run", "--source", source, "--every-frame", "--publish", endpoint]
        command += ["--model", str(model), "--models", str(registry.folder), *options]
        placed_ns, used = [], []
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        # Whatever the engine says must be read, or it would wait for room to say more.
        log: list[str] = []
        reader = threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True)
        reader.start()
        try:
            with MaskSubscriber(endpoint, kind="both", every=True, queue_size=10_000) as subscriber:
                listener = Listener(subscriber)
                listener.wait_for(1, process, _START_S)
                time.sleep(_SETTLE_S)
                used.append(resources(process.pid))
                for swap in range(swaps):
                    placed_ns.append(time.time_ns())
                    # Both files have been looked at by then: what is measured is the engine, not the check.
                    registry.place(files[swap % 2], {}, **({} if swap < 2 else {"check": lambda path: None}))
                    listener.wait_for(swap + 2, process, _SWAP_S)
                    time.sleep(every_s)
                    used.append(resources(process.pid))
                missed = subscriber.missed
                heard = list(listener.heard)
        finally:
            process.terminate()
            process.wait(30)
            reader.join(5)
            if process.stderr is not None:
                process.stderr.close()
        refused = [line for line in log if "refused" in line]
    if refused:
        raise SourceError(f"the engine refused a model: {refused[0].strip()}")
    return {"swaps": swaps, "missed_by_subscriber": missed, **summary(heard, placed_ns), **growth(used)}


def summary(heard: list[Heard], placed_ns: list[int]) -> dict[str, Any]:
    """What the scenes say about the swaps.

    Args:
        heard: in order of arrival.
        placed_ns: when each model was placed; the swap to it makes generation 2, 3, ...
    """
    provisional = [item for item in heard if item.kind == "provisional"]
    finals = {item.frame: item.generation for item in heard if item.kind == "final"}
    first = {}
    for item in provisional:
        first.setdefault(item.generation, item.t_publish_ns)
    windows = [(start, first[2 + i] + int(_AFTER_S * 1e9)) for i, start in enumerate(placed_ns)]
    settled = provisional[0].t_publish_ns + int(1e9)
    during, idle, lost = [], [], {"during": 0, "idle": 0}
    for before, item in pairwise(provisional):
        swapping = any(start <= item.t_publish_ns <= end for start, end in windows)
        lost["during" if swapping else "idle"] += item.frame - before.frame - 1
        if swapping:
            during.append(item.age_ms)
        elif item.t_publish_ns > settled:
            idle.append(item.age_ms)
    steps = np.diff([item.generation for item in provisional])
    newest = max(finals, default=-1)
    return {
        "frames": len(provisional),
        "lost_during_swaps": lost["during"],
        "lost_otherwise": lost["idle"],
        "finals_missing": sum(item.frame not in finals for item in provisional if item.frame <= newest),
        "two_models_for_one_frame": sum(
            finals.get(item.frame, item.generation) != item.generation for item in provisional
        ),
        "generation_steps": {str(step): int((steps == step).sum()) for step in np.unique(steps[steps != 0]).tolist()},
        "age_otherwise_ms": _spread(idle),
        "age_during_swaps_ms": _spread(during),
        "delay_max_ms": round(max(during, default=0.0) - float(np.median(idle or [0.0])), 1),
        "placed_to_first_scene_s": _spread([(end / 1e9 - _AFTER_S) - start / 1e9 for start, end in windows]),
    }


def growth(used: list[dict[str, float]]) -> dict[str, Any]:
    """Resources at the start, and medians of the second and the last quarter of the swaps."""
    quarter = max(1, len(used) // 4)
    result: dict[str, Any] = {}
    for name in used[0]:
        values = [sample[name] for sample in used]
        result[name] = {
            "start": values[0],
            "second_quarter": float(np.median(values[quarter : 2 * quarter] or values)),
            "last_quarter": float(np.median(values[-quarter:])),
        }
    return result


def _spread(values: list[float]) -> dict[str, float]:
    p50, p99, most = (float(np.percentile(values or [0.0], share)) for share in (50, 99, 100))
    return {"p50": round(p50, 2), "p99": round(p99, 2), "max": round(most, 2)}


def main(arguments: list[str] | None = None) -> int:
    """Print one line per quantity, write the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--swaps", type=at_least(1), default=20)
    parser.add_argument("--every-s", type=float, default=3.0, help="between two swaps")
    parser.add_argument("--source", default=SOURCE, metavar="URI", help="live")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, metavar="FILE.onnx")
    options, engine_options = parser.parse_known_args(arguments)
    try:
        result = measure(options.model, options.source, options.swaps, options.every_s, engine_options)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name, value in result.items():
        print(f"{name}: {value}")
    print(f"promise: nothing lost, nothing delayed by more than {PROMISE_MS:g} ms")
    return machine.finish(options.json, result)


if __name__ == "__main__":
    sys.exit(main())
