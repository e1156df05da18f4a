"""`python -m engine.run`: arguments only; the work is in `engine.pipeline` and `streaming.session`."""

import argparse
import difflib
import importlib.metadata
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

# Before numpy loads: small matrix products are slower with two BLAS threads than with one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from engine import config as configuration
from engine.errors import EngineError, UsageError

_NOT_YET = {
    "control": "the control channel",
    "record": "the selection store",
    "models": "the watched model registry",
    "preview": "the live page",
    "rerun": "the Rerun sink",
    "mcap": "the MCAP recorder",
}
"""Options of the command-line contract whose part of the engine does not exist yet: refused, not ignored."""


class _Parser(argparse.ArgumentParser):
    """Reports every mistake in one line that ends in what to do."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


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
        help="video, folder or glob of images, rtsp:// http:// tcp:// udp://, /dev/v4l/by-id/..., demo",
    )
    policy = source.add_mutually_exclusive_group()
    policy.add_argument("--every-frame", action="store_true", help="skip nothing (default for files)")
    policy.add_argument("--newest-frame", action="store_true", help="always the newest (default for live)")
    source.add_argument("--max-frames", type=int, metavar="N", help="stop after N processed frames")

    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="NAME|PATH", help="default: the model shipped in engine/models")
    model.add_argument("--backend", default="auto", choices=["auto", "onnxruntime", "openvino", "tensorrt"])
    model.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    model.add_argument("--models", metavar="DIR", help="watched model registry")

    choice = parser.add_argument_group("selection")
    choice.add_argument("--lag", metavar="FRAMES", help="frames a final mask may wait (default 5)")
    choice.add_argument("--combinations", metavar="K", help="combinations kept per frame (default 10)")
    choice.add_argument("--proposals", metavar="N", help="candidate masks per frame (default 32)")
    choice.add_argument("--lambda-flow", metavar="X", help="weight of the flow loss (default 1)")
    choice.add_argument("--lambda-consistency", metavar="X", help="weight of consistency (default 0.5)")

    out = parser.add_argument_group("output")
    out.add_argument("--publish", metavar="ENDPOINT", default="tcp://127.0.0.1:5555")
    out.add_argument("--no-publish", action="store_true")
    out.add_argument("--insecure", action="store_true", help="allow an endpoint that is not loopback")
    out.add_argument("--save-masks", type=Path, metavar="DIR", help="masks/, foreground/ and objects.jsonl")
    out.add_argument("--overlay", type=Path, metavar="FILE.mp4", help="video with the masks drawn, and a PNG")
    out.add_argument("--stats-json", type=Path, metavar="FILE", help="latency, drops and commits of the run")
    out.add_argument("--profile", action="store_true", help="print per-stage latencies at exit")
    for name, what in _NOT_YET.items():
        if name != "models":
            out.add_argument(f"--{name}", nargs="?", const="", metavar="…", help=f"{what} (not available yet)")

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
    for name, what in _NOT_YET.items():
        if getattr(options, name) is not None:
            raise UsageError(f"--{name}: {what} is not available in this version; leave the option out")
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


def source_argument(options: argparse.Namespace) -> str:
    """The one source to open, as `[NAME=]URI`.

    Raises:
        UsageError: none or several given.
    """
    sources = list(options.source or [])
    if options.camera is not None:
        sources.append(options.camera)
    if len(sources) != 1:
        raise UsageError(
            f"{len(sources)} sources given, this version runs exactly 1: use --camera 0, --source FILE or --source demo"
        )
    return sources[0]


def run(options: argparse.Namespace) -> None:
    """Open everything, run the session, write the reports.

    Raises:
        EngineError: what went wrong, with its exit code.
    """
    # Imported here, so that --help and usage errors answer at once.
    from engine.perceive.network import Network, resolve_model
    from engine.pipeline import Pipeline, warm_up
    from streaming.progress import RunProgress, print_profile
    from streaming.publisher import Publisher
    from streaming.report import Report
    from streaming.session import Session
    from streaming.sinks.background import BackgroundSink
    from streaming.sinks.masks import MaskWriter
    from streaming.sinks.overlay_video import OverlayVideo
    from streaming.sinks.truth import TruthScore
    from streaming.sources import open_source, parse_source
    from streaming.sources.demo import is_demo
    from streaming.wire import ModelInfo

    config = build_config(options)
    if options.print_config:
        print(configuration.to_json(config))
        return
    name, uri = parse_source(source_argument(options))
    network = Network(
        resolve_model(options.model),
        device=options.device,
        backend=options.backend,
        threads=config.perceive.threads,
    )
    source = open_source(uri, name=name)
    every = options.every_frame or (not source.live and not options.newest_frame)
    model = {"name": network.name, "hash": network.hash, "generation": network.generation}
    report = Report(model)
    truth = TruthScore() if is_demo(uri) else None
    sinks = [BackgroundSink(truth, wait=every)] if truth is not None else []
    overlay = None
    if options.save_masks is not None:
        sinks.append(BackgroundSink(MaskWriter(options.save_masks), wait=every))
    if options.overlay is not None:
        overlay = OverlayVideo(options.overlay, source.fps)
        sinks.append(BackgroundSink(overlay, wait=every))
    publisher = None
    if not options.no_publish:
        # A file runs faster than any subscriber reads by and by: give bursts room instead of losing finals.
        room = {"queue_size": 64, "send_hwm": 64} if every else {}
        publisher = Publisher(options.publish, model=ModelInfo(**model), insecure=options.insecure, **room)
    try:
        warm_up(config, network)
        total = source.frame_count
        if options.max_frames is not None:
            total = min(total or options.max_frames, options.max_frames)
        with RunProgress(source.display_uri, total, report) as progress:
            session = Session(
                source,
                Pipeline(config, network),
                report,
                every=every,
                publisher=publisher,
                sinks=sinks,
                max_frames=options.max_frames,
                on_frame=lambda _, scenes: progress.update(scenes),
            )
            _stop_on_signals(session)
            session.run()
    finally:
        if publisher is not None:
            publisher.close()
        extra = {"source": source.display_uri}
        if truth is not None:
            extra["truth"] = truth.summary()
        if options.stats_json is not None:
            report.write(options.stats_json, extra)
        if options.profile:
            print_profile(report)
        _print_summary(report, extra, overlay, options)


def _stop_on_signals(session: Any) -> None:
    """First Ctrl-C (or SIGTERM) ends in good order; a second one ends at once."""

    def handle(number: int, _: object) -> None:
        session.stop()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def _print_summary(report: Any, extra: dict[str, Any], overlay: Any, options: argparse.Namespace) -> None:
    """What a user wants to know after a run, and where the files are."""
    content = report.to_dict()
    total, commit = content["latency_ms"]["total"], content["commit"]
    dropped = sum(content["dropped"].values())
    lines = [
        f"{content['frames']} frames, {content['fps']:.1f} fps, "
        f"latency p50 {total['p50']:.1f} ms, p99 {total['p99']:.1f} ms, "
        f"{content['objects_per_frame']:.1f} objects per frame, {dropped} dropped",
        f"commits: {commit['exact']} exact, {commit['forced']} forced at the deadline "
        f"(can have cost {commit['loss_bound']:.3f} in all)",
    ]
    if extra.get("truth"):
        score = extra["truth"]
        lines.append(
            f"against the scene's exact masks: J_fg {score['J_fg']:.3f}, J_best_id {score['J_best_id']:.3f} "
            f"({score['objects']} objects)"
        )
    if overlay is not None:
        lines.append(f"overlay video: {overlay.path}")
        if overlay.picture.exists():
            lines.append(f"picture:       {overlay.picture}")
    if options.save_masks is not None:
        lines.append(f"masks:         {options.save_masks}/masks")
    print("\n".join(lines), file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 ok, 2 usage, 3 source, 4 model, 5 store)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr
    )
    try:
        options = parse_arguments(arguments)
        if options.version:
            print(f"unseen-engine {importlib.metadata.version('unseen-engine')}")
            return 0
        run(options)
    except EngineError as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            raise
        what = " ".join(str(error).split())[:200]
        print(f"error: unexpected {type(error).__name__}: {what} (run again with --debug)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
