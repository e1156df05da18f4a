"""Does it pay to take frames of several cameras through the network at once?

    python -m benchmarks.batching MODEL.onnx --json FILE [--cameras 1 2 4] [--backend B] [--device D]

MODEL must leave its batch free (`python -m export CHECKPOINT --to onnx --any-batch`). Each number of cameras is run
batched and one by one in turns, on the same inputs, so that a busy machine slows both; medians of the frames.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.options import at_least
from engine.errors import EngineError, UsageError
from engine.perceive.motion import FEATURE_CHANNELS
from engine.perceive.network import Network

_WARM_UP_ROUNDS = 5


def measure(network: Network, cameras: int, rounds: int) -> dict[str, float]:
    """Median ms per frame batched and one by one, and the ratio of the two, paired round by round."""
    rng = np.random.default_rng(cameras)
    images = [rng.integers(0, 256, (*network.size, 3), np.uint8) for _ in range(cameras)]
    features = [rng.normal(0, 0.3, (FEATURE_CHANNELS, *network.motion_size)).astype(np.float32) for _ in range(cameras)]
    batched, single = [], []
    for _ in range(_WARM_UP_ROUNDS + rounds):
        start_s = time.perf_counter()
        network.run_batch(images, features)
        middle_s = time.perf_counter()
        for image, feature in zip(images, features, strict=True):
            network.run(image, feature)
        end_s = time.perf_counter()
        batched.append((middle_s - start_s) * 1e3 / cameras)
        single.append((end_s - middle_s) * 1e3 / cameras)
    warm = slice(_WARM_UP_ROUNDS, None)
    return {
        "batched_ms": round(float(np.median(batched[warm])), 3),
        "single_ms": round(float(np.median(single[warm])), 3),
        "batched_over_single": round(float(np.median(np.divide(batched[warm], single[warm]))), 3),
    }


def main(argv: list[str] | None = None) -> int:
    """Print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cameras", type=at_least(1), nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=at_least(1), default=60)
    options = parser.parse_args(argv)
    try:
        network = Network(options.model, backend=options.backend, device=options.device)
        if not network.any_batch:
            raise UsageError(f"{options.model} takes one frame at a time: export it with --to onnx --any-batch")
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    rows = {count: measure(network, count, options.rounds) for count in options.cameras}
    table = Table("cameras", "batched, ms per frame", "one by one", "ratio", title=options.model.name)
    for count, row in rows.items():
        table.add_row(
            str(count), f"{row['batched_ms']:.2f}", f"{row['single_ms']:.2f}", f"{row['batched_over_single']}"
        )
    Console(width=100).print(table)
    where = {"backend": network.backend, "device": network.device, "hash": network.hash}
    return machine.finish(options.json, {**where, "rounds": options.rounds, "cameras": rows})


if __name__ == "__main__":
    sys.exit(main())
