"""What seeing costs, alone: flow with its features, and the network, on the machine's cores.

    python -m benchmarks.perception --json FILE [--source URI] [--frames 300] [--set perceive.spin=true]

Nothing else runs meanwhile, unlike in `benchmarks.latency`, where the selection of one frame and the perception
of the next share the cores. Frames are decoded and resized before the clock starts.
`processor` is the processor time of all threads, median per frame: it depends less on what else the machine does.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.options import engine_config
from engine.errors import EngineError
from engine.perceive.motion import MotionEstimator, network_features
from engine.perceive.network import Network, resolve_model
from streaming.sources import open_source

_WARM_UP_FRAMES = 10


def _now_s() -> tuple[float, float]:
    """Wall clock and processor time."""
    return time.perf_counter(), time.process_time()


def main(argv: list[str] | None = None) -> int:
    """Print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--source", default="demo")
    parser.add_argument("--model")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. perceive.spin=true")
    options = parser.parse_args(argv)
    try:
        config = engine_config(options.set).perceive
        cv2.setNumThreads(config.opencv_threads)
        network = Network(resolve_model(options.model), threads=config.threads, spin=config.spin)
        frames = itertools.islice(open_source(options.source), options.frames)
        images = [network.fit(frame.image) for frame in frames]
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    estimator = MotionEstimator()
    stamps = []
    for image in images:
        start = _now_s()
        features = network_features(estimator.step(image), network.motion_size)
        middle = _now_s()
        network.run(image, features)
        stamps.append((start, middle, _now_s()))
    start_s, middle_s, end_s = np.array(stamps[min(_WARM_UP_FRAMES, len(stamps) - 1) :]).transpose(1, 2, 0)
    spent_s = {"motion": middle_s - start_s, "network": end_s - middle_s, "both": end_s - start_s}
    percentiles = {f"p{p}": p for p in (50, 95, 99)}
    result = {
        name: {label: round(1e3 * float(np.percentile(wall_s, p)), 3) for label, p in percentiles.items()}
        | {"processor": round(1e3 * float(np.median(processor_s)), 3)}
        for name, (wall_s, processor_s) in spent_s.items()
    }
    table = Table("ms", *percentiles, "processor", title=f"{options.source}, {len(images)} frames at {network.size}")
    for name, row in result.items():
        table.add_row(name, *(f"{value:.2f}" for value in row.values()))
    Console(width=100).print(table)
    model = {"name": network.name, "hash": network.hash}
    report = {"source": options.source, "frames": len(images), "model": model, "ms": result}
    return machine.finish(options.json, report)


if __name__ == "__main__":
    sys.exit(main())
