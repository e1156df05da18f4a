"""What seeing costs, alone: flow with its features, and the network, on the machine's cores.

    python -m benchmarks.perception --json FILE [--source URI] [--frames 300]

Nothing else runs meanwhile, unlike in `benchmarks.latency`, where the selection of one frame and the perception
of the next share the cores. Frames are decoded and resized before the clock starts.
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
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.perceive.motion import MotionEstimator, network_features
from engine.perceive.network import Network, resolve_model
from streaming.sources import open_source

_WARM_UP_FRAMES = 10


def main(argv: list[str] | None = None) -> int:
    """Print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--source", default="demo")
    parser.add_argument("--model")
    parser.add_argument("--frames", type=int, default=300)
    options = parser.parse_args(argv)
    config = EngineConfig().perceive
    cv2.setNumThreads(config.opencv_threads)
    try:
        network = Network(resolve_model(options.model), threads=config.threads)
        frames = itertools.islice(open_source(options.source), options.frames)
        images = [network.fit(frame.image) for frame in frames]
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    estimator = MotionEstimator()
    times: dict[str, list[float]] = {"motion": [], "network": [], "both": []}
    for image in images:
        start = time.perf_counter()
        features = network_features(estimator.step(image), network.motion_size)
        middle = time.perf_counter()
        network.run(image, features)
        end = time.perf_counter()
        for name, seconds in (("motion", middle - start), ("network", end - middle), ("both", end - start)):
            times[name].append(seconds * 1e3)
    percentiles = {f"p{p}": p for p in (50, 95, 99)}
    warm = {name: values[min(_WARM_UP_FRAMES, len(values) - 1) :] for name, values in times.items()}
    result = {
        name: {label: round(float(np.percentile(values, p)), 3) for label, p in percentiles.items()}
        for name, values in warm.items()
    }
    table = Table("ms", *percentiles, title=f"{options.source}, {len(images)} frames at {network.size}")
    for name, row in result.items():
        table.add_row(name, *(f"{value:.2f}" for value in row.values()))
    Console(width=100).print(table)
    model = {"name": network.name, "hash": network.hash}
    report = {"source": options.source, "frames": len(images), "model": model, "ms": result}
    return machine.finish(options.json, report)


if __name__ == "__main__":
    sys.exit(main())
