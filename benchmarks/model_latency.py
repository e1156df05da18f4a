"""One backend alone: the model, the model with what is before and after it, and the whole step, at a pace.

    python -m benchmarks.model_latency --backend onnxruntime --device cpu --json FILE [--model M] [--frames 300]

`benchmarks.latency --backends all` runs this once per backend, each in a process of its own, so that no library's
threads are in another's way. Frames are decoded before the clock starts. A pace of 0 is flat out; at 30 or 60 fps the
time between two frames is slept, and what the process uses of one core meanwhile is told. `idle` is what it uses
when no frame comes. Warm-up frames are left out of every figure. --seconds ends each stage at each pace early; how many
frames it got is in the report.
"""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy loads, as the engine does

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.options import above_zero
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.frame import Frame
from engine.perceive.backends.runner import PRECISIONS
from engine.perceive.motion import MotionEstimator, network_features
from engine.perceive.network import Network, resolve_model
from engine.perceive.perceiver import Perceiver
from engine.pipeline import Pipeline, warm_up
from streaming.publisher import Publisher
from streaming.sources import open_source
from streaming.wire import ModelInfo

WARM_UP_FRAMES = 20
PACES_FPS = (0, 30, 60)
_IDLE_S = 2.0
_LEAST_FRAMES = 30
"""Below this a 95th percentile says nothing: --seconds does not cut shorter."""


def timed(work: Callable[[int], object], count: int, pace_fps: float, seconds: float | None = None) -> dict[str, float]:
    """Latency percentiles in ms of `work(0) … work(count - 1)` at a pace, after a warm-up.

    Args:
        work: what is timed; gets the number of the frame.
        pace_fps: frames due per second, 0 for as fast as it goes. A frame that is late is not waited for.
        seconds: end after so long, once there are enough frames; None: all of them.

    Returns:
        p50, p95, p99, max, frames timed, fps reached, and cpu_percent of one core, all threads of the process together.
    """
    for index in range(WARM_UP_FRAMES):
        work(index % count)
    times_ms = []
    used_s, start_s = time.process_time(), time.perf_counter()
    for index in range(count):
        if pace_fps:
            time.sleep(max(0.0, start_s + index / pace_fps - time.perf_counter()))
        begin_s = time.perf_counter()
        work(index)
        end_s = time.perf_counter()
        times_ms.append((end_s - begin_s) * 1e3)
        if seconds is not None and end_s - start_s >= seconds and len(times_ms) >= _LEAST_FRAMES:
            break
    wall_s, used_s = time.perf_counter() - start_s, time.process_time() - used_s
    figures = {f"p{p}": float(np.percentile(times_ms, p)) for p in (50, 95, 99)}
    figures |= {"max": max(times_ms), "fps": len(times_ms) / wall_s, "cpu_percent": 100 * used_s / wall_s}
    return {name: round(value, 3) for name, value in figures.items()} | {"frames": len(times_ms)}


def idle_cpu_percent(seconds: float = _IDLE_S) -> float:
    """Share of one core this process uses while nothing is asked of it."""
    time.sleep(0.2)  # threads may finish what they were at
    used_s, start_s = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    return round(100 * (time.process_time() - used_s) / (time.perf_counter() - start_s), 3)


def measure(
    network: Network, config: EngineConfig, images: list[np.ndarray], paces: list[float], seconds: float | None = None
) -> dict[str, Any]:
    """Figures per stage and pace: `model`, `perceive` (resize, flow, model, read-out) and `step` (the whole engine
    in one thread, scenes published); each ends after `seconds`."""
    estimator = MotionEstimator()
    small = [network.fit(image) for image in images]
    features = [network_features(estimator.step(image), network.motion_size) for image in small]
    frames = [Frame(image, index, time.time_ns(), "bench") for index, image in enumerate(images)]
    perceiver = Perceiver(network, config.perceive)
    pipeline = Pipeline(config, network)
    warm_up(config, network)
    turn = itertools.count()
    with Publisher("tcp://127.0.0.1:*", model=ModelInfo(network.name, network.hash, 1)) as publisher:

        def step(index: int) -> None:
            # The selection wants ascending numbers, also when the clip starts again.
            frame = Frame(images[index], next(turn), time.time_ns(), "bench")
            for scene in pipeline.step(frame):
                publisher.publish(scene)

        stages: dict[str, Callable[[int], object]] = {
            "model": lambda index: network.run(small[index], features[index]),
            "perceive": lambda index: perceiver.step(frames[index]),
            "step": step,
        }
        rows = {
            stage: {_pace(pace): timed(work, len(images), pace, seconds) for pace in paces}
            for stage, work in stages.items()
        }
        return {"stages": rows, "idle_cpu_percent": idle_cpu_percent()}


def _pace(fps: float) -> str:
    return f"{fps:g} fps" if fps else "flat out"


def main(argv: list[str] | None = None) -> int:
    """Print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--source", default="demo")
    parser.add_argument("--model")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="f32", choices=PRECISIONS)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--paces", type=float, nargs="+", default=list(PACES_FPS), metavar="FPS")
    parser.add_argument("--seconds", type=above_zero, help="longest for each stage at each pace; default: every frame")
    options = parser.parse_args(argv)
    config = EngineConfig()
    cv2.setNumThreads(config.perceive.opencv_threads)
    try:
        network = Network(
            resolve_model(options.model),
            device=options.device,
            backend=options.backend,
            threads=config.perceive.threads,
            precision=options.precision,
        )
        images = [frame.image for frame in itertools.islice(open_source(options.source), options.frames)]
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    result = {
        "source": options.source,
        "frames": len(images),
        "frame_size": list(images[0].shape[:2]),
        "warm_up_frames": WARM_UP_FRAMES,
        "model": {"name": network.name, "hash": network.hash},
        "backend": network.backend,
        "device": network.device,
        "precision": options.precision,
        "threads": config.perceive.threads,
        **measure(network, config, images, options.paces, options.seconds),
    }
    print_table([result])
    return machine.finish(options.json, result)


def print_table(results: list[dict[str, Any]]) -> None:
    """One row per backend, stage and pace."""
    columns = ("p50", "p95", "p99", "max", "fps", "cpu_percent")
    table = Table("backend", "stage", "pace", *columns, title="ms per frame")
    for result in results:
        where = f"{result['backend']} {result['device']}"
        for stage, paces in result["stages"].items():
            for pace, figures in paces.items():
                table.add_row(where, stage, pace, *(f"{figures[c]:.1f}" for c in columns if c in figures))
        if "idle_cpu_percent" in result:
            table.add_row(where, "no frames", "", "", "", "", "", "", f"{result['idle_cpu_percent']:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
