"""Rate and age of what a ROS program gets from the bridge, and what making the messages costs.

    python -m benchmarks.ros [--json FILE] [--hz 30] [--size 480x640] [--seconds 20] [--backends rospy,zenoh,cyclonedds]

Scenes with 20 objects go through a bridge process to a reader process that knows nothing of this project
(`tests/ros_bridge/peer.py`). Age runs from the stamp (here: just before the scene is handed to the publisher) until
the reader has the label image in hand; both processes are on this machine. rospy needs ROS 1, see docs/ros.md.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from engine.compose import boxes_and_areas
from engine.scene import CommitInfo, Object, Scene
from streaming.publisher import Publisher
from streaming.ros import messages
from streaming.ros.cdr import Serialiser
from streaming.wire import decode, encode_scene
from tests.ros_bridge.graphs import Graph, dds_graph, ros1_environment, ros1_missing, start_roscore, zenoh_graph

BACKENDS = ("rospy", "zenoh", "cyclonedds")
_OBJECTS = 20
_STARTING = 5
"""First messages left out: repetitions for a newcomer, and connections being made."""


def make_scene(index: int, size: tuple[int, int]) -> Scene:
    """Ellipses that drift, so that no two label maps are alike."""
    h, w = size
    rows, columns = np.mgrid[:h, :w]
    labels = np.zeros(size, np.uint16)
    rng = np.random.default_rng(0)
    for label in range(1, _OBJECTS + 1):
        y, x = rng.random(2) * (h, w)
        labels[((rows - y) / 20) ** 2 + ((columns - (x + 3 * index) % w) / 30) ** 2 < 1] = label
    found = boxes_and_areas(labels, list(range(1, _OBJECTS + 1)))
    objects = tuple(Object(1000 + v, v, 0.9, *found[v], age=index, novelty=0.1, foreground=0.8) for v in found)
    return Scene(index, "final", labels, objects, "cam", 0, commit=CommitInfo(True, 0, 0.0))


@contextmanager
def open_graph(backend: str, folder: Path) -> Iterator[Graph]:
    """A graph of its own, with a master where the backend needs one."""
    master = None
    if backend == "rospy":
        if (reason := ros1_missing()) is not None:
            raise SystemExit(reason)
        master = start_roscore(folder) or start_roscore(folder)
        if master is None:
            raise SystemExit(f"roscore does not start, see {folder / 'roscore.log'}")
        graph = Graph("rospy", ros1_environment(master[1], folder), [], [])
    else:
        graph = dds_graph() if backend == "cyclonedds" else zenoh_graph()
    try:
        yield graph
    finally:
        graph.close()
        if master is not None:
            master[0].terminate()
            master[0].wait()


def measure(backend: str, scenes: list[Scene], hz: float, seconds: float) -> dict[str, Any]:
    """Rate and ages at the reader, for labels and detections."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Publisher("tcp://127.0.0.1:0") as publisher,
        open_graph(backend, Path(folder)) as graph,
    ):
        graph.bridge(publisher.endpoint, "--overlay-hz", "0")
        publisher.publish(scenes[0])
        reader = graph.listen("/unseen/cam", "--topics", "labels,detections")
        sent = 0

        def send(until_s: float) -> None:
            nonlocal sent
            due_s = time.monotonic()
            while time.monotonic() < until_s:
                scene = scenes[sent % len(scenes)]
                object.__setattr__(scene, "t_capture_ns", time.time_ns())
                publisher.publish(scene)
                sent += 1
                due_s += 1 / hz
                time.sleep(max(0.0, due_s - time.monotonic()))

        while len(reader.about("labels")) < _STARTING or len(reader.about("detections")) < _STARTING:
            send(time.monotonic() + 0.5)
        begin_ns, sent_before = time.time_ns(), sent
        send(time.monotonic() + seconds)
        time.sleep(1.0)  # what is on its way
        result: dict[str, Any] = {"published": sent - sent_before}
        for topic in ("labels", "detections"):
            got = [line for line in reader.about(topic) if line["stamp_ns"] >= begin_ns]
            result[topic] = ages(got) | {"hz": round(len(got) / seconds, 2)}
        return result


def ages(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Count and quantiles in ms."""
    values = np.array([(line["received_ns"] - line["stamp_ns"]) / 1e6 for line in lines])
    quantiles = np.percentile(values, (50, 95, 99, 100))
    names = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    return {"received": len(values), **{k: round(float(v), 2) for k, v in zip(names, quantiles, strict=True)}}


def encoding_ms(scene: Scene, rounds: int = 50) -> dict[str, float]:
    """Median time to map and encode one message of each kind, in ms."""
    message = decode(encode_scene(scene, session="0" * 32, seq=0))
    _ = message.labels
    serialiser = Serialiser(2)
    makers = {
        "labels": lambda: messages.labels_image(message, "lens"),
        "detections": lambda: messages.detections(message, "lens"),
        "label_info": lambda: messages.label_info(message, "lens"),
        "overlay": lambda: messages.overlay(message, "lens", None),
    }
    result = {}
    for name, make in makers.items():
        times_s = []
        for _ in range(rounds):
            start_s = time.perf_counter()
            serialiser.encode(make())
            times_s.append(time.perf_counter() - start_s)
        result[name] = round(float(np.median(times_s)) * 1e3, 3)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--hz", type=float, default=30.0)
    parser.add_argument("--size", default="480x640", metavar="HxW")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each backend")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    options = parser.parse_args(arguments)
    height, width = map(int, options.size.split("x"))
    scenes = [make_scene(index, (height, width)) for index in range(30)]
    result: dict[str, Any] = {"hz": options.hz, "size": options.size, "objects": _OBJECTS}
    result["encoding_ms"] = encoding_ms(scenes[0])
    table = Table(title=f"{options.size} labels at {options.hz:g} Hz, capture to reader", title_justify="left")
    names = ("received", "hz", "p50_ms", "p95_ms", "p99_ms", "max_ms")
    for column in ("backend", "topic", "published", *names):
        table.add_column(column, justify="left" if column in ("backend", "topic") else "right")
    for backend in options.backends.split(","):
        measured = result[backend] = measure(backend, scenes, options.hz, options.seconds)
        for topic in ("labels", "detections"):
            figures = (str(measured[topic][name]) for name in names)
            table.add_row(backend, topic, str(measured["published"]), *figures)
    Console(width=110).print(table)
    Console(width=110).print("encoding, ms per message:", result["encoding_ms"])
    return machine.finish(options.json, result)


if __name__ == "__main__":
    sys.exit(main())
