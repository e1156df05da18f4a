"""Model swaps under load: frames lost, frames late, generations seen by a subscriber, and what is left behind.

    python -m benchmarks.hot_swap --json FILE [--swaps 20] [--source URI] [--every-s 0.5]

The engine runs as a process of its own on a clip at its native rate, with every frame wanted and a subscriber that
takes both answers of each. Two models of the same weights and different hashes are placed in its registry in turn. A
frame belongs to a swap from the moment the model is placed until half a second after the first frame the new one has
seen. As many windows of the same length in which nothing is placed lie between the swaps: what happens in them is the
machine's doing. Lateness is publishing against the clip's own clock, less its median between swaps. Without `--source`
the clip is the built-in scene, rendered before the engine starts.
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

import cv2
import numpy as np
import onnx

from benchmarks import machine
from benchmarks.options import at_least
from engine.errors import EngineError, ModelError, SourceError
from engine.perceive.network import DEFAULT_MODEL
from engine.registry import Registry
from engine.registry.check import check_model
from streaming.sources import open_source
from streaming.subscriber import MaskSubscriber

CLIP = "demo://?frames=300"
FPS = 30.0
PROMISE_MS = 100.0
_START_S = 120.0
_SWAP_S = 120.0
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


def render(folder: Path) -> Path:
    """The built-in scene as a video of `FPS` frames per second, so that nothing is drawn while the engine runs."""
    path, writer = folder / "scene.mp4", None
    for frame in open_source(CLIP):
        if writer is None:
            height, width = frame.image.shape[:2]
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (width, height))
        writer.write(frame.image)
    assert writer is not None
    writer.release()
    return path


def measure(model: Path, source: str | None, swaps: int, every_s: float, options: list[str]) -> dict[str, Any]:
    """Swap and listen.

    Args:
        model: file whose twins are swapped.
        source: URI of a clip or of a live source; None: the built-in scene, rendered beforehand.
        swaps: how often.
        every_s: between a swap and the window without one, and before the next swap.
        options: more of the engine's command line.

    Raises:
        EngineError: the engine did not do as asked.
    """
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        registry, endpoint = Registry(folder / "models"), f"ipc://{folder}/masks"
        registry.folder.mkdir()
        files = twins(model, folder)
        for file in files:
            check_model(file)
        uri = source if source is not None else str(render(folder))
        with open_source(uri) as opened:
            period_ns = 0 if opened.live else round(1e9 / (opened.fps or FPS))
        command = [sys.executable, "-m", "engine.run", "--source", uri, "--every-frame", "--publish", endpoint]
        command += ["--model", str(model), "--models", str(registry.folder)]
        command += [*(["--pace", "native", "--loop"] if period_ns else []), *options]
        placed_ns, still_ns, used = [], [], []
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
                    start_s = time.monotonic()
                    placed_ns.append(time.time_ns())
                    # Checked before the engine started: what is measured is the engine, not who places.
                    registry.place(files[swap % 2], {}, check=lambda path: None)
                    listener.wait_for(swap + 2, process, _SWAP_S)
                    length_s = time.monotonic() - start_s
                    time.sleep(_AFTER_S + every_s)
                    still_ns.append((time.time_ns(), time.time_ns() + int((length_s + _AFTER_S) * 1e9)))
                    time.sleep(length_s + _AFTER_S + every_s)
                    used.append(resources(process.pid))
                heard = list(listener.heard)
                missed = subscriber.missed
        finally:
            process.terminate()
            process.wait(30)
            reader.join(5)
            if process.stderr is not None:
                process.stderr.close()
        refused = [line for line in log if "refused" in line]
    if refused:
        raise SourceError(f"the engine refused a model: {refused[0].strip()}")
    found = summary(heard, placed_ns, still_ns, period_ns)
    return {"swaps": swaps, "missed_by_subscriber": missed, **found, **growth(used)}


def lateness_ms(provisional: list[Heard], period_ns: int) -> list[float]:
    """Publishing of each frame against the moment it was due, milliseconds.

    Args:
        provisional: in order of arrival.
        period_ns: between two frames of a clip, whose clock goes on while its reader is held up; 0: the capture
            times are the clock.
    """
    if not period_ns:
        return [item.age_ms for item in provisional]
    zero_ns = min(item.t_capture_ns - item.frame * period_ns for item in provisional)
    return [(item.t_publish_ns - zero_ns - item.frame * period_ns) / 1e6 for item in provisional]


def summary(
    heard: list[Heard], placed_ns: list[int], still_ns: list[tuple[int, int]], period_ns: int = 0
) -> dict[str, Any]:
    """What the scenes say about the swaps.

    Args:
        heard: in order of arrival.
        placed_ns: when each model was placed; the swap to it makes generation 2, 3, ...
        still_ns: windows in which nothing was placed, for comparison.
        period_ns: as for `lateness_ms`.
    """
    provisional = [item for item in heard if item.kind == "provisional"]
    finals = {item.frame: item.generation for item in heard if item.kind == "final"}
    first = {}
    for item in provisional:
        first.setdefault(item.generation, item.t_publish_ns)
    ends = [first[2 + i] + int(_AFTER_S * 1e9) for i in range(len(placed_ns))]
    windows = {"during_swaps": list(zip(placed_ns, ends, strict=True)), "control": still_ns}
    late = lateness_ms(provisional, period_ns)
    settled = provisional[0].t_publish_ns + int(1e9)
    outside = [
        value
        for item, value in zip(provisional, late, strict=True)
        if item.t_publish_ns > settled and not _inside(item, placed_ns, ends)
    ]
    usual_ms = float(np.median(outside or [0.0]))
    steps = np.diff([item.generation for item in provisional])
    newest = max(finals, default=-1)
    return {
        "frames": len(provisional),
        "usual_lateness_ms": round(usual_ms, 2),
        **{name: _window_figures(provisional, late, usual_ms, spans) for name, spans in windows.items()},
        "finals_missing": sum(item.frame not in finals for item in provisional if item.frame <= newest),
        "two_models_for_one_frame": sum(
            finals.get(item.frame, item.generation) != item.generation for item in provisional
        ),
        "generation_steps": {str(step): int((steps == step).sum()) for step in np.unique(steps[steps != 0]).tolist()},
        "placed_to_first_scene_s": _spread(
            [end / 1e9 - _AFTER_S - start / 1e9 for start, end in zip(placed_ns, ends, strict=True)]
        ),
    }


def _inside(item: Heard, starts_ns: list[int], ends_ns: list[int]) -> bool:
    return any(start <= item.t_publish_ns <= end for start, end in zip(starts_ns, ends_ns, strict=True))


def _window_figures(
    provisional: list[Heard], late_ms: list[float], usual_ms: float, spans: list[tuple[int, int]]
) -> dict[str, Any]:
    """Frames lost and frames late within windows of time."""
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    lost, delays, worst = 0, [], dict.fromkeys(range(len(spans)), 0.0)
    for (before, item), value in zip(pairwise(provisional), late_ms[1:], strict=True):
        if _inside(item, starts, ends):
            lost += item.frame - before.frame - 1
            delays.append(value - usual_ms)
            window = next(i for i, (start, end) in enumerate(spans) if start <= item.t_publish_ns <= end)
            worst[window] = max(worst[window], value - usual_ms)
    return {
        "frames": len(delays),
        "lost": lost,
        "delayed": sum(delay > PROMISE_MS for delay in delays),
        "windows_with_a_delayed_frame": sum(delay > PROMISE_MS for delay in worst.values()),
        "delay_ms": _spread(delays),
        "worst_per_window_ms": _spread(list(worst.values())),
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
    parser.add_argument("--every-s", type=float, default=0.5, help="between a swap and the window without one")
    parser.add_argument("--source", metavar="URI", help="a clip played with --pace native --loop, or a live source")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, metavar="FILE.onnx")
    options, engine_options = parser.parse_known_args(arguments)
    try:
        result = measure(options.model, options.source, options.swaps, options.every_s, engine_options)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name, value in result.items():
        print(f"{name}: {value}")
    print(f"promise: nothing lost, nothing delayed by more than {PROMISE_MS:g} ms (control: the same without swaps)")
    return machine.finish(options.json, result)


if __name__ == "__main__":
    sys.exit(main())
