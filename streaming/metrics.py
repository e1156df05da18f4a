"""Prometheus metrics of a running engine."""

import bisect
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from engine.errors import UsageError
from streaming.engine_thread import FrameDone
from streaming.status import EngineStatus
from streaming.wire import State

try:
    import prometheus_client
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
except ImportError:  # an extra of its own: nothing else here needs it
    prometheus_client = None  # type: ignore[assignment]

_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0)
_MAX_STAGES = 32
"""Stages are fixed in the code; a mistake there must not make a series per frame."""


def require_prometheus() -> None:
    """Raise `UsageError` when prometheus-client is not installed."""
    if prometheus_client is None:
        raise UsageError("--metrics needs prometheus-client: pip install 'unseen-engine[metrics]'")


class _Buckets:
    """A histogram that costs the engine thread a microsecond; prometheus-client's own takes ten times that."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS_S) + 1)
        self._sum_s = 0.0

    def add(self, value_s: float) -> None:
        """Count one value."""
        self._counts[bisect.bisect_left(_BUCKETS_S, value_s)] += 1
        self._sum_s += value_s

    def cumulated(self) -> "_Cumulated":
        """([(upper bound, values up to it)], sum of all)."""
        bounds = [*map(str, _BUCKETS_S), "+Inf"]
        return list(zip(bounds, itertools.accumulate(self._counts), strict=True)), self._sum_s


@dataclass(slots=True)
class _SourceCounts:
    """What is counted of one source."""

    age: _Buckets = field(default_factory=_Buckets)
    latency: _Buckets = field(default_factory=_Buckets)
    objects: int = 0


_Cumulated = tuple[list[tuple[str, int]], float]


class Metrics:
    """Counts frames as they are published and reads everything else when somebody asks.

    Label values are names of sources running now, stages, states and causes: bounded, and gone with their source.

    Args:
        status: of the running session.
        control_counts: requests to the control channel by outcome.

    Raises:
        UsageError: prometheus-client is not installed.
    """

    def __init__(self, status: EngineStatus, control_counts: Callable[[], Mapping[str, int]] | None = None) -> None:
        require_prometheus()
        self._status = status
        self._control_counts = control_counts
        self._registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._registry)  # memory, processor time, open files

        self._lock = threading.Lock()
        self._sources: dict[str, _SourceCounts] = {}
        self._stages: dict[str, _Buckets] = {}
        self._registry.register(_StatusCollector(self))

    def frame(self, done: FrameDone) -> None:
        """Count one published frame; give it to `Session.observe`."""
        with self._lock:
            counts = self._sources.setdefault(done.lane, _SourceCounts())
            counts.age.add(max(0.0, done.age_ms) / 1e3)
            counts.latency.add(done.total_ms / 1e3)
            if done.scenes and done.scenes[-1].kind == "provisional":
                counts.objects = len(done.scenes[-1].objects)
            for stage, spent_ms in done.timing_ms.items():
                if stage in self._stages or len(self._stages) < _MAX_STAGES:
                    self._stages.setdefault(stage, _Buckets()).add(spent_ms / 1e3)

    def text(self) -> bytes:
        """Everything in the text format of Prometheus."""
        return prometheus_client.generate_latest(self._registry)

    def families(self) -> "Iterator[Metric]":
        """What is read when somebody asks."""
        status = self._status
        sources = status.session.sources()
        running = {source.name for source in sources}
        with self._lock:
            # A source that is gone takes its series along; one of the same name starts anew.
            self._sources = {name: counts for name, counts in self._sources.items() if name in running}
            ages = {name: counts.age.cumulated() for name, counts in self._sources.items()}
            latencies = {name: counts.latency.cumulated() for name, counts in self._sources.items()}
            objects = {(name,): counts.objects for name, counts in self._sources.items()}
            stages = {stage: spent.cumulated() for stage, spent in self._stages.items()}
        yield _histogram("unseen_frame_age_seconds", "Capture to published.", ages, "source")
        yield _histogram("unseen_frame_latency_seconds", "Frame in hand to published.", latencies, "source")
        yield _histogram("unseen_stage_seconds", "Time of one stage for one frame.", stages, "stage")
        yield _gauge("unseen_objects", "Objects in the newest scene.", objects, "source")
        yield _counter("unseen_frames", "Frames published.", {(s.name,): s.frames for s in sources}, "source")
        yield _counter("unseen_captured", "Frames the source had.", {(s.name,): s.captured for s in sources}, "source")
        dropped = {(s.name, cause): count for s in sources for cause, count in s.dropped.items()}
        yield _counter("unseen_dropped", "Frames dropped, by cause.", dropped, "source", "cause")
        reconnects = {(s.name,): s.reconnects for s in sources}
        yield _counter("unseen_reconnects", "Connections after the first.", reconnects, "source")
        yield _gauge("unseen_fps", "Frames per second lately.", {(s.name,): s.fps for s in sources}, "source")
        newest = {(s.name,): s.age_ms / 1e3 for s in sources if s.age_ms is not None}
        yield _gauge("unseen_newest_frame_age_seconds", "Age of the newest published frame.", newest, "source")
        states = {(s.name, state): s.state == state for s in sources for state in get_args(State)}
        yield _gauge("unseen_source_state", "1 for the state a source is in.", states, "source", "state")
        yield _gauge("unseen_source_paused", "1 while paused.", {(s.name,): s.paused for s in sources}, "source")
        yield _gauge("unseen_ready", "1 while a model runs and a source is live.", {(): status.ready})
        model = status.report.model
        yield _gauge("unseen_model_info", "The running model.", {(model["name"], model["hash"]): 1}, "name", "hash")
        yield _gauge("unseen_model_generation", "Grows with every model swap.", {(): model["generation"]})
        if (publisher := status.publisher) is not None:
            unsent = {(cause,): count for cause, count in publisher.dropped.items()}
            yield _counter("unseen_unsent_messages", "Messages subscribers did not get, by cause.", unsent, "cause")
            yield _gauge("unseen_subscribers", "Connected subscribers.", {(): publisher.subscribers})
        if self._control_counts is not None:
            requests = {(outcome,): count for outcome, count in self._control_counts().items()}
            yield _counter("unseen_control_requests", "Requests by outcome.", requests, "outcome")


class _StatusCollector:
    """Reads the engine when Prometheus asks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> "Iterator[Metric]":
        return self._metrics.families()

    def describe(self) -> "list[Metric]":
        return []  # names are known only with an engine; registering must not ask for one


def _counter(name: str, what: str, values: Mapping[Any, float], *labels: str) -> "Metric":
    """A counter with a value per tuple of label values."""
    return _filled(CounterMetricFamily(name, what, labels=labels), values)


def _gauge(name: str, what: str, values: Mapping[Any, float], *labels: str) -> "Metric":
    """A gauge with a value per tuple of label values."""
    return _filled(GaugeMetricFamily(name, what, labels=labels), values)


def _histogram(name: str, what: str, values: Mapping[str, _Cumulated], label: str) -> "Metric":
    """A histogram with buckets per value of its label."""
    family = HistogramMetricFamily(name, what, labels=[label])
    for key, (buckets, total) in values.items():
        family.add_metric([key], buckets, total)
    return family


def _filled(family: "CounterMetricFamily | GaugeMetricFamily", values: Mapping[Any, float]) -> "Metric":
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family
