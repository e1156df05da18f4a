"""`python -m engine.run`: arguments only; the work is in `streaming.launch` and `engine.pipeline`."""

import argparse
import difflib
import importlib.metadata
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

# Before numpy loads: small matrix products are slower with two BLAS threads than with one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from engine import config as configuration
from engine.errors import EngineError, UsageError


class _Parser(argparse.ArgumentParser):
    """Reports every mistake in one line that ends in what to do."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.05 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: from 0.05 to 3600 seconds are possible")
    return value


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: a port from 1 to 65535 is needed, or 0 for a free one")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """All options of the command line."""
    parser = _Parser(
        prog="python -m engine.run",
        description="Find objects nobody labelled in a live frame stream and publish their masks.",
        allow_abbrev=False,
    )
    source = parser.add_argument_group("source")
    source.add_argument("--camera", metavar="N", help="camera index or /dev/v4l/by-id/...")
    source.add_argument(
        "--source",
        action="append",
        metavar="[NAME=]URI",
        help="video, MCAP recording, folder or glob of images, rtsp:// http:// tcp:// udp://, ros:///TOPIC, "
        "/dev/v4l/by-id/..., demo; repeat it for several",
    )
    policy = source.add_mutually_exclusive_group()
    policy.add_argument("--every-frame", action="store_true", help="skip nothing (default for files)")
    policy.add_argument("--newest-frame", action="store_true", help="always the newest (default for live)")
    source.add_argument("--loop", action="store_true", help="files start again at the end")
    source.add_argument(
        "--pace",
        choices=["native", "none"],
        help="files at their own frame rate (default with --newest-frame), or as fast as possible",
    )
    source.add_argument("--require-all-sources", action="store_true", help="do not start while one is unreachable")
    source.add_argument(
        "--open-timeout", type=_seconds, default=5.0, metavar="S", help="longest wait for a live source (default 5)"
    )
    source.add_argument(
        "--read-timeout", type=_seconds, default=5.0, metavar="S", help="silence before it is opened anew (default 5)"
    )
    source.add_argument("--max-frames", type=int, metavar="N", help="stop after N processed frames")

    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="NAME|PATH", help="default: the model shipped in engine/models")
    formats = ["auto", "unseen", "maskrcnn", "prototype"]
    model.add_argument("--model-format", default="auto", choices=formats, help="layout of the model file's outputs")
    model.add_argument("--flow", type=Path, metavar="FILE.onnx", help="a network for the optical flow (RAFT style)")
    model.add_argument(
        "--background",
        default="network",
        metavar="CUE",
        help="what supplies the background map: network (default), amd, mug, seeds, uniform, a FILE.onnx or a registry",
    )
    backends = ["auto", "onnxruntime", "openvino", "tensorrt", "torch", "torch-tensorrt"]
    model.add_argument("--backend", default="auto", choices=backends, help="what runs the model")
    model.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    model.add_argument("--rebuild-engines", action="store_true", help="replace engines compiled for another machine")
    model.add_argument(
        "--models", type=Path, metavar="DIR", help="registry; its current model runs, also when it changes"
    )

    choice = parser.add_argument_group("selection")
    choice.add_argument("--lag", metavar="FRAMES", help="frames a final mask may wait (default 5)")
    choice.add_argument("--combinations", metavar="K", help="combinations kept per frame (default 10)")
    choice.add_argument("--proposals", metavar="N", help="candidate masks per frame (default 32)")
    choice.add_argument("--lambda-flow", metavar="X", help="weight of the flow loss (default 1)")
    choice.add_argument("--lambda-consistency", metavar="X", help="weight of consistency (default 0.5)")

    out = parser.add_argument_group("output")
    out.add_argument("--publish", metavar="ENDPOINT", default="tcp://127.0.0.1:5555")
    out.add_argument("--no-publish", action="store_true")
    out.add_argument("--keys", type=Path, metavar="DIR", help="encrypt, and let only clients with keys connect")
    out.add_argument("--insecure", action="store_true", help="allow an endpoint that is not loopback, without keys")
    out.add_argument(
        "--control",
        nargs="?",
        const="tcp://127.0.0.1:5556",
        metavar="ENDPOINT",
        help="let python -m streaming.control steer it (tcp://127.0.0.1:5556)",
    )
    out.add_argument("--metrics", metavar="[HOST:]PORT", help="serve /metrics (Prometheus), /healthz and /readyz")
    out.add_argument("--save-masks", type=Path, metavar="DIR", help="masks/, foreground/ and objects.jsonl")
    out.add_argument("--overlay", type=Path, metavar="FILE.mp4", help="video with the masks drawn, and a PNG")
    out.add_argument("--record", type=Path, metavar="STORE", help="append what is certain to a store for learning")
    out.add_argument("--mcap", type=Path, metavar="FILE", help="frames, labels and detections as ROS 2 messages")
    out.add_argument("--stats-json", type=Path, metavar="FILE", help="latency, drops and commits of the run")
    out.add_argument("--profile", action="store_true", help="print per-stage latencies at exit")
    out.add_argument(
        "--preview", nargs="?", const=8080, type=_port, metavar="PORT", help="live page in a browser (default 8080)"
    )
    out.add_argument("--preview-host", default="127.0.0.1", metavar="HOST", help="address the live page listens on")
    out.add_argument(
        "--rerun",
        nargs="?",
        const=Path("run-%Y%m%d-%H%M%S.rrd"),
        type=Path,
        metavar="FILE",
        help="for the Rerun viewer",
    )

    general = parser.add_argument_group("general")
    general.add_argument("--config", type=Path, metavar="FILE", help="JSON configuration")
    general.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. select.lag=3")
    general.add_argument("--print-config", action="store_true", help="print the configuration and exit")
    general.add_argument("--debug", action="store_true", help="tracebacks and debug log")
    general.add_argument("--version", action="store_true", help="print the version and exit")
    return parser


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parsed options.

    Raises:
        UsageError: anything argparse rejects; an unknown option names the nearest one.
    """
    parser = build_parser()
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        known = [name for action in parser._actions for name in action.option_strings]
        close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else " (--help lists all)"
        raise UsageError(f"unknown option {unknown[0]}{hint}")
    if options.max_frames is not None and options.max_frames < 1:
        raise UsageError(f"--max-frames {options.max_frames}: must be at least 1")
    return options


def build_config(options: argparse.Namespace) -> configuration.EngineConfig:
    """Defaults, then `--config`, then `--set`, then the options of their own.

    Raises:
        UsageError: unknown key, wrong type or value out of range.
    """
    config = configuration.EngineConfig()
    if options.config is not None:
        config = configuration.apply(config, configuration.load(options.config))
    if options.background != "network":
        # Imported here, so that everything else answers at once.
        from engine.perceive.background import background_settings

        config = configuration.apply(config, background_settings(options.background))
    for item in options.set:
        key, separator, value = item.partition("=")
        if not separator:
            raise UsageError(f"--set {item}: expected KEY=VALUE, e.g. --set select.lag=3")
        config = configuration.apply(config, {key: value})
    shortcuts: dict[str, Any] = {
        "select.lag": options.lag,
        "select.combinations": options.combinations,
        "propose.proposals": options.proposals,
        "select.lambda_flow": options.lambda_flow,
        "select.lambda_consistency": options.lambda_consistency,
    }
    return configuration.apply(config, {key: value for key, value in shortcuts.items() if value is not None})


def source_arguments(options: argparse.Namespace) -> list[str]:
    """The sources to open, each as `[NAME=]URI`.

    Raises:
        UsageError: none given.
    """
    sources = [*(options.source or []), *([options.camera] if options.camera is not None else [])]
    if not sources:
        raise UsageError("0 sources given, at least 1 is needed: use --camera 0, --source FILE or --source demo")
    return sources


def run(options: argparse.Namespace) -> None:
    """Print what was asked for, or run the engine.

    Raises:
        EngineError: what went wrong, with its exit code.
    """
    if options.version:
        print(f"unseen-engine {importlib.metadata.version('unseen-engine')}")
        return
    config = build_config(options)
    if options.print_config:
        print(configuration.to_json(config))
        return
    sources = source_arguments(options)
    # Imported here, so that --help and usage errors answer at once.
    from streaming.launch import launch

    launch(options, config, sources)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 ok, 2 usage, 3 source, 4 model, 5 store)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr
    )
    try:
        run(parse_arguments(arguments))
    except EngineError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0  # before the first frame there is nothing to flush
    except Exception as error:
        if debug:
            traceback.print_exc()
        what = " ".join(str(error).split())[:200]
        print(f"error: unexpected {type(error).__name__}: {what} (run again with --debug)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
