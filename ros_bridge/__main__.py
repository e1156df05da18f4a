"""`python -m ros_bridge`: arguments only; the work is in `ros_bridge.bridge`."""

import argparse
import importlib.metadata
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

# Before numpy loads: it would start threads that this process has no use for.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from engine.errors import EngineError, UsageError
from ros_bridge.topics import check_name, pairs, qos_table


class _Parser(argparse.ArgumentParser):
    """Reports every mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def domain_id(text: str | None) -> int:
    """A DDS domain: `text`, or ROS_DOMAIN_ID, or 0.

    Raises:
        UsageError: not a whole number from 0 to 232, the last one whose ports exist.
    """
    text = text if text is not None else os.environ.get("ROS_DOMAIN_ID") or "0"
    if not (text.isascii() and text.isdigit()) or int(text) > 232:
        raise UsageError(f"domain {text!r}: a whole number from 0 to 232 is needed (--domain or ROS_DOMAIN_ID)")
    return int(text)


def add_graph_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which graph to join and how."""
    graph = parser.add_argument_group("graph")
    graph.add_argument("--backend", default="auto", metavar="auto|rclpy|rospy|zenoh|cyclonedds")
    graph.add_argument("--node", default="unseen_bridge", help="name of the node (default unseen_bridge)")
    graph.add_argument("--domain", metavar="N", help="DDS domain (default ROS_DOMAIN_ID, else 0)")
    graph.add_argument("--connect", action="append", default=[], metavar="ENDPOINT", help="Zenoh, tcp/localhost:7447")
    graph.add_argument("--listen", action="append", default=[], metavar="ENDPOINT", help="Zenoh, tcp/localhost:7448")
    graph.add_argument("--keys", default="rmw_zenoh", choices=["rmw_zenoh", "ros2dds"], help="how Zenoh keys look")


def build_parser() -> argparse.ArgumentParser:
    """All options of the command line."""
    parser = _Parser(
        prog="python -m ros_bridge", description="Publish what the engine finds on a ROS graph.", allow_abbrev=False
    )
    add_graph_options(parser)
    engine = parser.add_argument_group("engine")
    engine.add_argument("--endpoint", default="tcp://127.0.0.1:5555", help="where the engine publishes")
    engine.add_argument("--client-keys", type=Path, metavar="DIR", help="folder of a client's keys (streaming.keys)")
    engine.add_argument("--kind", default="final", choices=["final", "provisional"], help="which of its two answers")
    engine.add_argument("--source", metavar="NAME", help="only this source (default: all)")
    engine.add_argument("--every", action="store_true", help="every scene in order instead of the newest")
    topics = parser.add_argument_group("topics")
    topics.add_argument("--namespace", default="/unseen", help="of the engine (default /unseen)")
    for name, meaning in (
        ("source-namespace", "namespace of one source (default NAMESPACE/SOURCE)"),
        ("frame-id", "optical frame of one source (default: the camera's, else SOURCE_optical_frame)"),
        ("camera", "image topic of one source: its frame_id, camera_info and pictures for the overlay"),
    ):
        topics.add_argument(f"--{name}", action="append", default=[], metavar="SOURCE=VALUE", help=meaning)
    topics.add_argument("--labels", default="16UC1", choices=["16UC1", "mono8"], help="encoding of the label image")
    topics.add_argument("--overlay-hz", type=float, default=10.0, metavar="HZ", help="0 for none (default 10)")
    topics.add_argument("--qos", action="append", default=[], metavar="TOPIC=ITEM,...", help="e.g. labels=best_effort")
    general = parser.add_argument_group("general")
    general.add_argument("--debug", action="store_true", help="tracebacks and debug log")
    general.add_argument("--version", action="store_true", help="print the version and exit")
    return parser


def run(argv: Sequence[str]) -> None:
    """Parse, open, publish until Ctrl-C.

    Raises:
        EngineError: what went wrong, with its exit code.
    """
    options = build_parser().parse_args(argv)
    if options.version:
        print(f"unseen-engine {importlib.metadata.version('unseen-engine')}")
        return
    if not 0 <= options.overlay_hz <= 10:
        raise UsageError(f"--overlay-hz {options.overlay_hz:g}: 0 to 10 is needed; labels come at full rate")
    namespaces = pairs(options.source_namespace, "--source-namespace")
    cameras = pairs(options.camera, "--camera")
    # Imported here, so that --help and usage errors answer at once.
    from ros_bridge.backends import Options, open_backend
    from ros_bridge.bridge import Bridge, BridgeOptions

    chosen = BridgeOptions(
        endpoint=options.endpoint,
        keys=options.client_keys,
        kind=options.kind,
        every=options.every,
        source=options.source,
        namespace=check_name(options.namespace, "--namespace"),
        namespaces={source: check_name(name, "--source-namespace") for source, name in namespaces.items()},
        frame_ids=pairs(options.frame_id, "--frame-id"),
        cameras={source: check_name(name, "--camera") for source, name in cameras.items()},
        labels=options.labels,
        overlay_hz=options.overlay_hz,
        qos=qos_table(options.qos),
    )
    graph = Options(
        node=check_name(options.node, "--node").strip("/"),
        domain=domain_id(options.domain),
        connect=tuple(options.connect),
        listen=tuple(options.listen),
        keys=options.keys,
    )
    backend = open_backend(options.backend, graph)
    try:
        bridge = Bridge(backend, chosen)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: bridge.stop())
        bridge.run()
    finally:
        backend.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 ok, 2 usage, 3 the graph cannot be reached)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr
    )
    try:
        run(arguments)
    except EngineError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        what = " ".join(str(error).split())[:200]
        print(f"error: unexpected {type(error).__name__}: {what} (run again with --debug)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
