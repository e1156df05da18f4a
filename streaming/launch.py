"""Opens what the command line names, runs the session, writes the reports."""

import argparse
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from engine.config import EngineConfig
from engine.errors import EngineError, ModelError
from engine.frame import Frame
from engine.perceive.background import BackgroundCue
from engine.perceive.flow_network import FlowNetwork
from engine.perceive.network import Network, resolve_model
from engine.pipeline import warm_up
from engine.registry.check import try_out
from engine.scene import Scene
from streaming.background_watch import WatchedBackground, open_cue
from streaming.feed import Timeouts
from streaming.heap import Heap, limit_arenas
from streaming.keys import load_server
from streaming.lane import Lane
from streaming.lane_factory import LaneFactory
from streaming.loaded import Loaded, first_model, load_beside, open_registry
from streaming.models import ModelWatch
from streaming.preview.preview import Preview
from streaming.preview.server import check_host
from streaming.progress import RunProgress, print_profile
from streaming.publisher import Publisher
from streaming.report import Report
from streaming.ros.packages import require_mcap
from streaming.services import check, serve
from streaming.session import Session
from streaming.sinks.background import BackgroundSink
from streaming.sinks.masks import MaskWriter
from streaming.sinks.overlay_video import OverlayVideo
from streaming.sinks.per_source import PerSource
from streaming.sinks.rerun import RerunSink, require_rerun
from streaming.sinks.truth import TruthScore
from streaming.sources.demo import is_demo
from streaming.store.sink import StoreSink, open_record
from streaming.wire import ModelInfo

if TYPE_CHECKING:
    from streaming.sinks.mcap import McapSink

_log = logging.getLogger("unseen.run")


@dataclass
class _Outputs:
    """Where scenes go, as the options say."""

    publisher: Publisher | None = None
    truth: PerSource[TruthScore] | None = None
    overlays: PerSource[OverlayVideo] | None = None
    record: StoreSink | None = None
    mcap: "McapSink | None" = None
    sinks: list[BackgroundSink | StoreSink] = field(default_factory=list)


def launch(options: argparse.Namespace, config: EngineConfig, source_texts: Sequence[str]) -> None:
    """Run the engine on its sources as the command line says.

    Args:
        options: parsed options of `engine.run`.
        config: every knob.
        source_texts: `[NAME=]URI` of each source.

    Raises:
        EngineError: what went wrong, with its exit code; what was decided until then is out.
    """
    if options.preview is not None:
        check_host(options.preview_host, insecure=options.insecure)
    check(options)
    if options.mcap is not None:
        require_mcap()
    if options.rerun is not None:
        require_rerun()
    limit_arenas()
    heap = Heap()
    cv2.setNumThreads(config.perceive.opencv_threads)
    # A stage that comes back from native code waits this long for the interpreter; the default is 5 ms.
    sys.setswitchinterval(0.0005)
    base, load = resolve_model(options.model), partial(_load, options, config)
    registry = None if options.models is None else open_registry(options.models)
    running, refused = (Loaded(load(base), None), set()) if registry is None else first_model(registry, load, base)
    network = running.network
    flow = _load_flow(options, config, network)
    background = open_cue(options.background, device=options.device, threads=config.perceive.threads)
    model = {"name": network.name, "hash": network.hash, "generation": network.generation}
    factory = LaneFactory(
        config,
        network,
        every=True if options.every_frame else False if options.newest_frame else None,
        paced=None if options.pace is None else options.pace == "native",
        loop=options.loop,
        timeouts=Timeouts(options.open_timeout, options.read_timeout),
        flow=flow,
        background=background,
    )
    lanes = factory.open_all(source_texts, require_all=options.require_all_sources)
    report = Report(model)
    outputs = _Outputs()
    try:
        _open_outputs(outputs, options, lanes, ModelInfo(**model))
        if options.record is not None:
            outputs.record = open_record(options.record, config.record)
            outputs.sinks.append(outputs.record)
        _warm_up(config, network, flow, background)
        heap.settle()
        title = ", ".join(lane.feed.uri for lane in lanes)
        with RunProgress(title, _total(lanes, options.max_frames), report) as progress:

            def count(_: Frame, scenes: list[Scene]) -> None:
                progress.update(scenes)
                heap.frame()

            session = Session(
                lanes,
                report,
                open_lane=factory.open,
                publisher=outputs.publisher,
                sinks=outputs.sinks,
                max_frames=options.max_frames,
                on_frame=count,
                overlap=config.perceive.overlap,
            )
            # What serves the running session (control, metrics, page, registry watcher) is entered here; it
            # ends before files are finished.
            with contextlib.ExitStack() as services:
                services.enter_context(_stopped_by_signals(session))
                models = None
                if registry is not None:
                    beside = partial(load_beside, session, partial(_open, options, config))
                    models = ModelWatch(registry, beside, session, running=running, base=base, refused=refused)
                    services.enter_context(models)
                services.enter_context(serve(options, config, session, factory, outputs.publisher, models))
                if isinstance(background, WatchedBackground):
                    services.enter_context(background)
                if options.preview is not None:
                    where = {"host": options.preview_host, "port": options.preview, "insecure": options.insecure}
                    page = services.enter_context(Preview(session, **where))
                    _log.info("live page: %s", page.url)
                session.run()
    finally:
        for lane in lanes:
            lane.feed.stop()
        for sink in outputs.sinks:
            sink.close()
        if outputs.publisher is not None:
            outputs.publisher.close()
        if report.frames or options.stats_json is not None:
            _tell(options, report, outputs, lanes)


def _open_outputs(outputs: _Outputs, options: argparse.Namespace, lanes: list[Lane], model: ModelInfo) -> None:
    every = any(lane.feed.every for lane in lanes)
    # A file waits until every frame is recorded; what is live waits for no disk.
    live = any(lane.feed.live for lane in lanes)
    names = [lane.name for lane in lanes]
    fps = {lane.name: lane.feed.fps for lane in lanes}

    def place(path: Path, name: str, *, is_file: bool) -> Path:
        """Outputs of a run's only source lie where the option says, those of several each in a folder."""
        if names == [name]:
            return path
        return path.parent / name / path.name if is_file else path / name

    if not options.no_publish:
        # A file runs faster than any subscriber reads by and by: give bursts room instead of losing finals.
        room = {"queue_size": 64, "send_hwm": 64} if every else {}
        keys = None if options.keys is None else load_server(options.keys, "data")
        outputs.publisher = Publisher(options.publish, model=model, insecure=options.insecure, keys=keys, **room)
    if any(is_demo(lane.feed.uri) for lane in lanes):
        outputs.truth = PerSource(lambda name: TruthScore(), names)
        outputs.sinks.append(BackgroundSink(outputs.truth, wait=every))
    if options.save_masks is not None:
        masks = PerSource(lambda name: MaskWriter(place(options.save_masks, name, is_file=False)), names)
        outputs.sinks.append(BackgroundSink(masks, wait=not live, name=f"--save-masks {options.save_masks}"))
    if options.overlay is not None:
        outputs.overlays = PerSource(
            lambda name: OverlayVideo(place(options.overlay, name, is_file=True), fps.get(name)), names
        )
        outputs.sinks.append(BackgroundSink(outputs.overlays, wait=not live, name=f"--overlay {options.overlay}"))
    if options.mcap is not None:
        from streaming.sinks.mcap import McapSink

        outputs.mcap = McapSink(options.mcap)
        outputs.sinks.append(BackgroundSink(outputs.mcap, wait=not live, name=f"--mcap {options.mcap}"))
    if options.rerun is not None:
        outputs.sinks.append(BackgroundSink(RerunSink(options.rerun), wait=not live, name=f"--rerun {options.rerun}"))


def _load(options: argparse.Namespace, config: EngineConfig, path: Path) -> Network:
    """A model ready to run, as the options say; one of a registry is tried out."""
    network = _open(options, config, path)
    if options.models is not None:
        try_out(network)
    return network


def _open(options: argparse.Namespace, config: EngineConfig, path: Path) -> Network:
    return Network(
        path,
        device=options.device,
        backend=options.backend,
        threads=config.perceive.threads,
        precision=config.perceive.precision,
        rebuild_engines=options.rebuild_engines,
        model_format=options.model_format,
    )


def _load_flow(options: argparse.Namespace, config: EngineConfig, network: Network) -> FlowNetwork | None:
    """The network of `--flow`, None without."""
    if options.flow is None:
        return None
    flow = FlowNetwork(options.flow, device=options.device, threads=config.perceive.threads)
    if network.uses_motion:
        _log.warning("motion from %s: model %s learned with OpenCV's, its masks may be worse", flow.name, network.name)
    return flow


def _warm_up(
    config: EngineConfig, network: Network, flow: FlowNetwork | None, background: BackgroundCue | None
) -> None:
    """Compile before the first frame, and say so when it takes long: only the first run on a machine does."""
    notice = threading.Timer(2.0, _log.info, ["compiling, once after installation: about 20 seconds"])
    notice.start()
    try:
        warm_up(config, network, flow=flow, background=background)
    except EngineError:
        raise
    except Exception as error:
        raise ModelError(f"model {network.name}: cannot run ({' '.join(str(error).split())[:160]})") from error
    finally:
        notice.cancel()


def _total(lanes: Sequence[Lane], max_frames: int | None) -> int | None:
    """Frames to expect, None when nobody knows."""
    counts = [lane.feed.frame_count for lane in lanes]
    promised = None if None in counts else sum(count for count in counts if count is not None)
    return min((count for count in (promised, max_frames) if count is not None), default=None)


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


def _tell(options: argparse.Namespace, report: Report, outputs: _Outputs, lanes: Sequence[Lane]) -> None:
    """The files and lines a user wants after a run."""
    several = len(lanes) > 1
    extra: dict[str, Any] = {} if several else {"source": lanes[0].feed.uri}
    scores = (
        {name: score for name, sink in outputs.truth.sinks.items() if (score := sink.summary())}
        if outputs.truth
        else {}
    )
    if outputs.truth is not None:
        extra["truth"] = scores if several else next(iter(scores.values()), {})
    if outputs.record is not None:
        extra["record"] = outputs.record.summary()
    if outputs.mcap is not None:
        extra["mcap"] = outputs.mcap.summary()
    if options.stats_json is not None:
        report.write(options.stats_json, extra)
    if options.profile:
        print_profile(report)
    content = report.to_dict()
    total, commit = content["latency_ms"]["total"], content["commit"]
    lost = sum(count for cause, count in content["dropped"].items() if cause != "stopped")
    lines = [
        f"{content['frames']} frames, {content['fps']:.1f} fps, "
        f"latency p50 {total['p50']:.1f} ms, p99 {total['p99']:.1f} ms, "
        f"{content['objects_per_frame']:.1f} objects per frame, {lost} dropped",
        f"commits: {commit['exact']} exact, {commit['forced']} forced at the deadline "
        f"(can have cost {commit['loss_bound']:.3f} in all)",
    ]
    for name, source in content.get("sources", {}).items():
        lines.append(
            f"{name}: {source['frames']} of {source['captured']} frames, age p99 {source['age_ms']['p99']:.0f} ms, "
            f"{source['reconnects']} reconnects, {source['state']}"
        )
    for name, score in scores.items():
        lines.append(
            f"{name + ' ' if several else ''}against the scene's exact masks: J_fg {score['J_fg']:.3f}, "
            f"J_best_id {score['J_best_id']:.3f} ({score['objects']} objects)"
        )
    for overlay in outputs.overlays.sinks.values() if outputs.overlays is not None else ():
        lines.append(f"overlay video: {overlay.path}")
        if overlay.picture.exists():
            lines.append(f"picture:       {overlay.picture}")
    if options.save_masks is not None:
        lines.append(f"masks:         {options.save_masks}{'/*' if several else ''}/masks")
    if outputs.record is not None:
        lines.append(f"store:         {options.record}, {extra['record']['kept']} frames kept")
    if outputs.mcap is not None:
        lines.append("recording:     {file}, {frames} frames, {scenes} scenes, {lost} lost".format(**extra["mcap"]))
    print("\n".join(lines), file=sys.stderr)
