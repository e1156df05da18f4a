"""How old the masks are that a slow consumer gets.

    python -m benchmarks.slow_subscriber [--json FILE] [--fps 30] [--sleep-ms 50] [--seconds 20]

A publisher in a process of its own sends label maps of the built-in scene, a provisional and a final one per frame.
The consumer reads, then sleeps. Age is the time from the hand-over to the publisher until `read` returns, decoded
mask in hand. The row `every` shows what reading in order would cost the same consumer.
"""

import argparse
import dataclasses
import math
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from engine.compose import boxes_and_areas
from engine.errors import EngineError, SourceError, UsageError
from engine.scene import CommitInfo, Object, Scene
from streaming.publisher import Publisher
from streaming.sources import open_source
from streaming.subscriber import MaskSubscriber

PROMISE_MS = 50.0
"""A consumer that takes 50 ms per scene gets scenes younger than this."""

_FIRST_SCENE_S = 30.0
_LAST_WORDS_S = 5.0
_STARTING = 3
"""First scenes read, which may be repetitions for a newcomer."""


def demo_scenes(count: int, size: str) -> list[Scene]:
    """Label maps of the built-in scene with their objects, as the engine would publish them."""
    scenes = []
    with open_source(f"demo://?frames={count}&size={size}") as source:
        for frame in source:
            assert frame.truth is not None
            values = [int(value) for value in np.unique(frame.truth) if value]
            found = boxes_and_areas(frame.truth, values)
            objects = tuple(
                Object(value, value, 0.9, *found[value], age=frame.index, novelty=0.1, foreground=0.8)
                for value in values
            )
            scenes.append(Scene(frame.index, "provisional", frame.truth, objects, "demo", frame.t_capture_ns))
    return scenes


def publish(connection: Connection, fps: float, size: str) -> None:
    """Send scenes at a steady rate until told to stop; the first message on the connection is the endpoint."""
    scenes = demo_scenes(60, size)
    commit = CommitInfo(exact=True, lag=0, loss_bound=0.0)
    with Publisher("tcp://127.0.0.1:0") as publisher:
        connection.send(publisher.endpoint)
        index, due_s = 0, time.perf_counter()
        while not connection.poll():
            scene = dataclasses.replace(scenes[index % len(scenes)], frame_index=index, t_capture_ns=time.time_ns())
            publisher.publish(scene)
            publisher.publish(dataclasses.replace(scene, kind="final", commit=commit))
            index += 1
            due_s += 1.0 / fps
            time.sleep(max(0.0, due_s - time.perf_counter()))
        connection.send(index)


def consume(endpoint: str, seconds: float, sleep_ms: float, *, every: bool) -> dict[str, Any]:
    """Ages of the scenes a consumer gets that sleeps after each of them."""
    ages_ms: list[float] = []
    with MaskSubscriber(endpoint, kind="provisional", every=every, queue_size=100_000) as masks:
        end_s = None
        while end_s is None or len(ages_ms) <= _STARTING or time.perf_counter() < end_s:
            message = masks.read(_FIRST_SCENE_S)
            if message is None:
                raise SourceError(f"no scene from {endpoint} within {_FIRST_SCENE_S:.0f} s")
            ages_ms.append((time.time_ns() - message.t_publish_ns) / 1e6)
            end_s = end_s or time.perf_counter() + seconds
            time.sleep(sleep_ms / 1e3)
        skipped, missed = masks.skipped, masks.missed
    return {**ages(ages_ms[_STARTING:]), "skipped": skipped, "missed": missed}


def ages(ages_ms: list[float]) -> dict[str, float]:
    """Count, median, 95th percentile, maximum, and the share younger than promised."""
    values = np.array(ages_ms)
    return {
        "scenes": len(values),
        "median_ms": round(float(np.median(values)), 2),
        "p95_ms": round(float(np.percentile(values, 95)), 2),
        "max_ms": round(float(values.max()), 2),
        "within_promise": round(float((values < PROMISE_MS).mean()), 4),
    }


def measure(fps: float, sleep_ms: float, seconds: float, size: str) -> dict[str, Any]:
    """Both ways of reading, each from a publisher of its own.

    Raises:
        UsageError: a rate, pause, length or size that cannot be.
        SourceError: a publisher that ended or sent nothing.
    """
    for name, value in (("--fps", fps), ("--seconds", seconds)):
        if not 0 < value < math.inf:
            raise UsageError(f"{name} {value:g}: must be above 0")
    if not 0 <= sleep_ms < math.inf:
        raise UsageError(f"--sleep-ms {sleep_ms:g}: must be 0 or more")
    # In the publisher's process a wrong size would be a traceback.
    demo_scenes(1, size)
    context = multiprocessing.get_context("spawn")
    result: dict[str, Any] = {"fps": fps, "sleep_ms": sleep_ms, "size": size, "promise_ms": PROMISE_MS}
    for name in ("newest", "every"):
        ours, theirs = context.Pipe()
        process = context.Process(target=publish, args=(theirs, fps, size), daemon=True)
        process.start()
        # While this process holds the other end too, the end of the publisher would go unnoticed.
        theirs.close()
        try:
            result[name] = consume(ours.recv(), seconds, sleep_ms, every=name == "every")
            ours.send("stop")
            result[name]["published"] = ours.recv()
        except (EOFError, ConnectionError):
            process.join(_LAST_WORDS_S)
            raise SourceError(f"the publisher ended early, exit code {process.exitcode}: see its message") from None
        finally:
            process.terminate()
            process.join()
            process.close()
            ours.close()
    return result


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(
        title=f"age of scenes at {result['fps']:g} fps, {result['sleep_ms']:g} ms per scene; promise {PROMISE_MS:g} ms",
        title_justify="left",
    )
    names = ("scenes", "median_ms", "p95_ms", "max_ms", "within_promise", "skipped", "missed")
    for column in ("reads", *names):
        table.add_column(column, justify="left" if column == "reads" else "right")
    for way in ("newest", "every"):
        table.add_row(way, *(str(result[way][name]) for name in names))
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    """Print the table, write the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--sleep-ms", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each way of reading")
    parser.add_argument("--size", default="480x854", metavar="HxW")
    options = parser.parse_args(arguments)
    try:
        result = measure(options.fps, options.sleep_ms, options.seconds, options.size)
        show(result, Console(width=110))
        machine.write_report(options.json, result)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
