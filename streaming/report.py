"""Latency and commit statistics of a run, in bounded memory."""

import json
import resource
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import StoreError
from engine.scene import Scene

_KEPT = 20_000
"""Latest samples kept per stage: ten minutes at 30 Hz, enough for a p99.9."""


class Samples:
    """The latest values of one quantity, for percentiles."""

    def __init__(self) -> None:
        # Written to now: pages that come as values do would look like a leak for the first ten minutes.
        self._values = np.full(_KEPT, np.nan)
        self._count = 0
        self._max = 0.0

    def add(self, value: float) -> None:
        """Remember one value."""
        self._values[self._count % _KEPT] = value
        self._count += 1
        self._max = max(self._max, value)

    def summary(self) -> dict[str, float]:
        """p50, p95, p99 of the kept values and the maximum of all; zeros when there are none."""
        kept = self._values[: min(self._count, _KEPT)]
        if not len(kept):
            return {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
        p50, p95, p99 = np.percentile(kept, [50, 95, 99])
        values = {"p50": p50, "p95": p95, "p99": p99, "max": self._max}
        return {name: round(float(value), 3) for name, value in values.items()}

    @property
    def mean(self) -> float:
        """Mean of the kept values, 0 when there are none."""
        kept = self._values[: min(self._count, _KEPT)]
        return float(kept.mean()) if len(kept) else 0.0


class Report:
    """Everything `--stats-json` and `--profile` say.

    Args:
        model: {"name", "hash", "generation"} of the running model.
        warmup_frames: first frames left out of the latencies.
    """

    def __init__(self, model: dict[str, Any], warmup_frames: int = 10) -> None:
        self._model = model
        self._warmup_frames = warmup_frames
        self._stages: dict[str, Samples] = {}
        self._total = Samples()
        self._age = Samples()
        self._lag = Samples()
        self._objects = Samples()
        self._exact = 0
        self._forced = 0
        self._loss_bound = 0.0
        self._dropped: Counter[str] = Counter()
        self._captured = 0
        self._sink_late = 0
        self._sources: dict[str, dict[str, Any]] = {}
        self._first_s = 0.0
        self._last_s = 0.0
        self.frames = 0

    def frame(self, timing_ms: dict[str, float], total_ms: float, age_ms: float, now_s: float) -> None:
        """Count one published frame."""
        self.frames += 1
        if self.frames <= self._warmup_frames:
            self._first_s = now_s
            return
        self._last_s = now_s
        self._total.add(total_ms)
        self._age.add(age_ms)
        for stage, value in timing_ms.items():
            self._stages.setdefault(stage, Samples()).add(value)

    def scene(self, scene: Scene) -> None:
        """Count one scene."""
        if scene.commit is None:
            return
        self._objects.add(len(scene.objects))
        self._lag.add(scene.commit.lag)
        if scene.commit.exact:
            self._exact += 1
        else:
            self._forced += 1
            self._loss_bound += scene.commit.loss_bound

    @property
    def model(self) -> dict[str, Any]:
        """{"name", "hash", "generation"} of the running model."""
        return self._model

    def set_model(self, model: dict[str, Any]) -> None:
        """The model that runs from now on."""
        self._model = model

    def set_sources(self, sources: Mapping[str, dict[str, Any]], sink_late: int = 0) -> None:
        """Counts of every source, removed ones too, as of `Lane.summary`.

        Args:
            sink_late: frames not handed to an output (masks, video) that was too slow; published all the same.
        """
        self._sink_late = sink_late
        self._sources = dict(sources)
        self._captured = sum(source["captured"] for source in sources.values())
        self._dropped = Counter()
        for source in sources.values():
            self._dropped.update(source["dropped"])

    @property
    def fps(self) -> float:
        """Published frames per second after the warm-up."""
        measured = self.frames - self._warmup_frames
        return measured / (self._last_s - self._first_s) if measured > 0 else 0.0

    @property
    def latency_ms(self) -> float:
        """Median of frame in hand -> published."""
        return self._total.summary()["p50"]

    def to_dict(self) -> dict[str, Any]:
        """The content of `--stats-json`."""
        lag = self._lag.summary()
        sources = {"sources": self._sources} if len(self._sources) > 1 else {}
        return {
            "frames": self.frames,
            "warmup_frames": min(self.frames, self._warmup_frames),
            "fps": round(self.fps, 2),
            "captured": self._captured,
            "dropped": dict(self._dropped),
            "sink_late": self._sink_late,
            "latency_ms": {
                **{stage: samples.summary() for stage, samples in self._stages.items()},
                "total": self._total.summary(),
            },
            "age_ms": self._age.summary(),
            "commit": {
                "exact": self._exact,
                "forced": self._forced,
                "loss_bound": round(self._loss_bound, 6),
                "lag_frames": {name: lag[name] for name in ("p50", "p99", "max")},
            },
            "objects_per_frame": round(self._objects.mean, 3),
            "model": self._model,
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            **sources,
        }

    def write(self, path: Path, extra: dict[str, Any]) -> None:
        """Write the statistics, with `extra` keys beside them.

        Raises:
            StoreError: the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**self.to_dict(), **extra}, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise StoreError(f"statistics {path}: {error.strerror or error}") from None
