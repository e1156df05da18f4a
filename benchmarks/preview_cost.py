"""What the live page costs the engine while somebody watches.

    python -m benchmarks.preview_cost [--json FILE [--append]] [--paces none 30] [--pairs 30] [--viewers 1 4]

One engine process sees the built-in scene as fast as it goes (pace `none`) or at the pace of a camera, and its viewers
watch and look away in turns, a few seconds each. Neighbouring windows make a pair, in the order of ABBA: what the
machine, the scene and other programs do over a minute is the same on both sides. Told is the median over the pairs
with the 95 % interval of the percentile bootstrap. Frames are timed as they reach a subscriber; processor time is the
engine process's own, all threads. Viewers are threads of this process that ask as a browser does and throw the
pictures away; what that takes is part of what is lost. The promise is 5 % with one viewer. On a machine shared with
others, many short runs with `--append` make one result.

Beside that, without an engine: the processor time of encoding one picture, and of one picture on its way to one
viewer, everything included, even the viewer. At ten pictures per second, a hundredth of these milliseconds is the share
of one core they take.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks import machine
from benchmarks.options import at_least
from benchmarks.preview_watched import Viewer, Watched
from benchmarks.slow_subscriber import demo_scenes
from engine.errors import EngineError
from engine.frame import Frame
from engine.scene import Scene
from streaming.engine_thread import FrameDone
from streaming.preview.actions import Actions
from streaming.preview.live_view import LiveView
from streaming.preview.message import encode_view
from streaming.preview.server import PreviewServer
from streaming.sources import open_source

PROMISE = 0.05
"""Share of its frame rate the engine may lose to one viewer."""


def pairs_of(pace: str, viewers: int, size: str, pairs: int, seconds: float) -> Iterator[dict[str, dict[str, float]]]:
    """Neighbouring windows of one engine process, "watched" and "unwatched", in the order of ABBA."""
    with contextlib.closing(Watched(pace, viewers, size)) as engine:
        for number in range(pairs):
            order = (False, True) if number % 2 == 0 else (True, False)
            yield {("watched" if watching else "unwatched"): engine.window(seconds, watching) for watching in order}


def summary(pairs: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians of both sides, and what watching costs: frame rate lost, latency and processor time added, as shares."""
    sides = {
        side: {name: round(statistics.median(p[side][name] for p in pairs), 2) for name in pairs[0][side]}
        for side in ("unwatched", "watched")
    }
    shares = {
        name: [p["watched"][key] / p["unwatched"][key] - 1 for p in pairs]
        for name, key in (("fps_gained", "fps"), ("latency_added", "age_p50_ms"), ("cpu_added", "cpu_ms_per_frame"))
    }
    lost = [-share for share in shares.pop("fps_gained")]
    costs = {"fps_lost": lost, **shares}
    return {**sides, **{name: median_interval(values) for name, values in costs.items()}}


def median_interval(values: list[float]) -> dict[str, float | None]:
    """Median, and the bounds of its 95 % interval by the percentile bootstrap; None with fewer than six values."""
    middle = round(statistics.median(values), 4)
    if len(values) < 6:
        return {"median": middle, "low": None, "high": None}
    found = stats.bootstrap((values,), np.median, method="percentile", rng=np.random.default_rng(0))
    low, high = (round(float(bound), 4) for bound in found.confidence_interval)
    return {"median": middle, "low": low, "high": high}


def picture_costs(size: str, pictures: int) -> dict[str, float]:
    """`encode_cpu_ms` and `picture_cpu_ms` on frames of the built-in scene."""
    with open_source(f"demo://?frames=30&size={size}") as source:
        frames = list(source)
    scenes = demo_scenes(len(frames), size)
    return {
        "encode_cpu_ms": round(encode_cpu_ms(frames, scenes), 2),
        "picture_cpu_ms": round(picture_cpu_ms(frames, scenes, pictures), 2),
    }


def encode_cpu_ms(frames: list[Frame], scenes: list[Scene], rounds: int = 5) -> float:
    """Processor time of making one picture and its label map, on the clock of the thread that makes them."""
    encode_view(frames[0], scenes[0])
    start_s = time.thread_time()
    for _ in range(rounds):
        for frame, scene in zip(frames, scenes, strict=True):
            encode_view(frame, scene)
    return 1e3 * (time.thread_time() - start_s) / (rounds * len(frames))


def picture_cpu_ms(frames: list[Frame], scenes: list[Scene], pictures: int) -> float:
    """Processor time of observing (30 Hz), encoding, sending and receiving one picture."""
    timing_ms = dict.fromkeys(("motion", "network", "propose", "seeds", "select", "compose", "publish"), 1.0)
    done = [
        FrameDone("demo", frame, [scene], timing_ms, 20.0, 25.0) for frame, scene in zip(frames, scenes, strict=True)
    ]
    view = LiveView(lambda: [{"name": "demo", "state": "live", "fps": 30.0}])
    server = PreviewServer(view, _Nobody(), port=0)
    viewer = Viewer(server.url, "v0")
    viewer.start()
    number, before, start_s = 0, 0, 0.0
    while viewer.pictures < before + pictures:
        if not before and viewer.pictures:
            before, start_s = viewer.pictures, time.process_time()  # the first one also loads and connects
        view.observe(done[number % len(done)])
        number += 1
        time.sleep(1 / 30)
    used_s = time.process_time() - start_s
    view.close()
    server.close()
    return 1e3 * used_s / (viewer.pictures - before)


class _Nobody(Actions):
    """For viewers that only watch."""

    def __init__(self) -> None: ...


def show(result: dict[str, Any], console: Console) -> None:
    """Print what was found for one pace and number of viewers."""
    one, other = result["unwatched"], result["watched"]
    table = Table(
        title=f"pace {result['pace']}, {result['viewers']} watching, {len(result['pairs'])} pairs: "
        f"{other['pictures_per_s']:.1f} pictures/s each, {other['kb_per_s']:.0f} kB/s",
        title_justify="left",
    )
    for column in ("", "unwatched", "watched", "cost [95 % interval]"):
        table.add_column(column, justify="right" if column else "left")
    for label, key, name in (
        ("frames per second, lost", "fps", "fps_lost"),
        ("capture to publishing, ms p50, added", "age_p50_ms", "latency_added"),
        ("processor time, ms per frame, added", "cpu_ms_per_frame", "cpu_added"),
    ):
        table.add_row(label, f"{one[key]:.1f}", f"{other[key]:.1f}", _percent(result[name]))
    console.print(table)


def _percent(share: dict[str, float | None]) -> str:
    low, high = share["low"], share["high"]
    bounds = "" if low is None or high is None else f" [{low:+.1%}, {high:+.1%}]"
    return f"{share['median']:+.1%}{bounds}"


def _earlier(path: Path | None) -> dict[tuple[str, int, str], list[dict[str, dict[str, float]]]]:
    """Pairs that a report already has, by pace, viewers and size."""
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))["results"]
    return {(result["pace"], result["viewers"], result["size"]): result["pairs"] for result in found}


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, write the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--append", action="store_true", help="count the pairs that --json already has, too")
    parser.add_argument("--paces", nargs="+", default=["none", "30"], metavar="FPS", help="none: as fast as it goes")
    parser.add_argument("--size", default="480x854", metavar="HxW")
    parser.add_argument("--pairs", type=at_least(0), default=30, help="6 and more give an interval; 0: none")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each window")
    parser.add_argument("--pictures", type=at_least(0), default=40, help="to measure the cost of one with, 0: not")
    parser.add_argument("--viewers", type=at_least(1), nargs="+", default=[1, 4])
    options = parser.parse_args(arguments)
    console = Console(width=120)
    earlier = _earlier(options.json) if options.append else {}
    try:
        costs = {"promise": PROMISE, **(picture_costs(options.size, options.pictures) if options.pictures else {})}
        measured = dict(earlier)
        for pace, viewers in itertools.product(options.paces, options.viewers) if options.pairs else ():
            pairs = list(pairs_of(pace, viewers, options.size, options.pairs, options.seconds))
            key = (pace, viewers, options.size)
            measured[key] = [*measured.get(key, []), *pairs]
        results = [
            {"pace": pace, "viewers": viewers, "size": size, **summary(pairs), "pairs": pairs}
            for (pace, viewers, size), pairs in measured.items()
        ]
        for result in results:
            show(result, console)
        if options.pictures:
            console.print(
                "processor time of a picture: {encode_cpu_ms} ms to encode, {picture_cpu_ms} ms in all, on its way "
                "to one viewer".format(**costs)
            )
        machine.write_report(options.json, {**costs, "results": results})
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
