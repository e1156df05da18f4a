"""Opens what the command line names, runs the session, writes the reports."""

import argparse
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2

from engine.config import EngineConfig
from engine.errors import EngineError, ModelError
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
from streaming.sources.base import Source
from streaming.sources.demo import is_demo
from streaming.wire import ModelInfo

_log = logging.getLogger("unseen.run")


@dataclass
class _Outputs:
    """Where scenes go, as the options say."""

    publisher: Publisher | None = None
    truth: TruthScore | None = None
    overlay: OverlayVideo | None = None
    sinks: list[BackgroundSink] = field(default_factory=list)


def launch(options: argparse.Namespace, config: EngineConfig, source_text: str) -> None:
    """Run the engine on one source as the command line says.

    Args:
        options: parsed options of `engine.run`.
        config: every knob.
        source_text: `[NAME=]URI`.

    Raises:
        EngineError: what went wrong, with its exit code; what was decided until then is out.
    """
    name, uri = parse_source(source_text)
    cv2.setNumThreads(config.perceive.opencv_threads)
    # A stage that comes back from native code waits this long for the interpreter; the default is 5 ms.
    sys.setswitchinterval(0.0005)
    network = Network(
        resolve_model(options.model),
        device=options.device,
        backend=options.backend,
        threads=config.perceive.threads,
    )
    model = {"name": network.name, "hash": network.hash, "generation": network.generation}
    source = open_source(uri, name=name)
    every = options.every_frame or (not source.live and not options.newest_frame)
    report = Report(model)
    outputs = _open_outputs(options, source, every, ModelInfo(**model))
    try:
        _warm_up(config, network)
        with RunProgress(source.display_uri, _total(source, options.max_frames), report) as progress:
            session = Session(
                source,
                Pipeline(config, network),
                report,
                every=every,
                publisher=outputs.publisher,
                sinks=outputs.sinks,
                max_frames=options.max_frames,
                on_frame=lambda _, scenes: progress.update(scenes),
            )
            with _stopped_by_signals(session):
                session.run()
    finally:
        for sink in outputs.sinks:
            sink.close()
        if outputs.publisher is not None:
            outputs.publisher.close()
        if report.frames or options.stats_json is not None:
            _tell(options, report, outputs, source)


def _open_outputs(options: argparse.Namespace, source: Source, every: bool, model: ModelInfo) -> _Outputs:
    outputs = _Outputs()
    if not options.no_publish:
        # A file runs faster than any subscriber reads by and by: give bursts room instead of losing finals.
        room = {"queue_size": 64, "send_hwm": 64} if every else {}
        outputs.publisher = Publisher(options.publish, model=model, insecure=options.insecure, **room)
    if is_demo(source.uri):
        outputs.truth = TruthScore()
        outputs.sinks.append(BackgroundSink(outputs.truth, wait=every))
    if options.save_masks is not None:
        outputs.sinks.append(BackgroundSink(MaskWriter(options.save_masks), wait=every))
    if options.overlay is not None:
        outputs.overlay = OverlayVideo(options.overlay, source.fps)
        outputs.sinks.append(BackgroundSink(outputs.overlay, wait=every))
    return outputs


def _warm_up(config: EngineConfig, network: Network) -> None:
    """Compile before the first frame, and say so when it takes long: only the first run on a machine does."""
    notice = threading.Timer(2.0, _log.info, ["compiling, once after installation: about 20 seconds"])
    notice.start()
    try:
        warm_up(config, network)
    except EngineError:
        raise
    except Exception as error:
        raise ModelError(f"model {network.name}: cannot run ({' '.join(str(error).split())[:160]})") from error
    finally:
        notice.cancel()


def _total(source: Source, max_frames: int | None) -> int | None:
    """Frames to expect, None when nobody knows."""
    known = [count for count in (source.frame_count, max_frames) if count is not None]
    return min(known, default=None)


@contextlib.contextmanager
def _stopped_by_signals(session: Session) -> Iterator[None]:
    """First Ctrl-C (or SIGTERM) ends in good order; a second one ends at once."""

    def handle(number: int, _: object) -> None:
        session.stop()
        signal.signal(number, before[number])

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may have handlers
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _tell(options: argparse.Namespace, report: Report, outputs: _Outputs, source: Source) -> None:
    """The files and lines a user wants after a run."""
    extra: dict[str, Any] = {"source": source.display_uri}
    if outputs.truth is not None:
        extra["truth"] = outputs.truth.summary()
    if options.stats_json is not None:
        report.write(options.stats_json, extra)
    if options.profile:
        print_profile(report)
    content = report.to_dict()
    total, commit = content["latency_ms"]["total"], content["commit"]
    lines = [
        f"{content['frames']} frames, {content['fps']:.1f} fps, "
        f"latency p50 {total['p50']:.1f} ms, p99 {total['p99']:.1f} ms, "
        f"{content['objects_per_frame']:.1f} objects per frame, {sum(content['dropped'].values())} dropped",
        f"commits: {commit['exact']} exact, {commit['forced']} forced at the deadline "
        f"(can have cost {commit['loss_bound']:.3f} in all)",
    ]
    if score := extra.get("truth"):
        lines.append(
            f"against the scene's exact masks: J_fg {score['J_fg']:.3f}, J_best_id {score['J_best_id']:.3f} "
            f"({score['objects']} objects)"
        )
    if outputs.overlay is not None:
        lines.append(f"overlay video: {outputs.overlay.path}")
        if outputs.overlay.picture.exists():
            lines.append(f"picture:       {outputs.overlay.picture}")
    if options.save_masks is not None:
        lines.append(f"masks:         {options.save_masks}/masks")
    print("\n".join(lines), file=sys.stderr)
