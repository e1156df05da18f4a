"""What a process holds, looked at from outside while it runs, and whether that grows."""

import contextlib
import math
import os
import statistics
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from scipy import stats

_WARM_UP = 0.25
"""Share of the frames after which every bounded buffer is full and every library loaded."""

_BLOCKS = 20
"""Neighbouring samples are alike: a slope through the medians of so many stretches does not take them for evidence."""

_POINTS = 120
"""Of the curve a report keeps."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds at one moment.

    Attributes:
        at_s: monotonic time.
        frames: processed until then.
        rss_mb: resident memory.
        threads, sockets, files: how many; sockets are among the open files.
    """

    at_s: float
    frames: int
    rss_mb: float
    threads: int
    sockets: int
    files: int

    @classmethod
    def of(cls, pid: int, frames: int = 0) -> "Sample | None":
        """Of process `pid` now, None once it is gone (Linux)."""
        try:
            text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        except OSError:
            return None
        status = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if "VmRSS" not in status:
            return None
        targets = []
        with contextlib.suppress(FileNotFoundError, PermissionError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    targets.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        sockets = sum(target.startswith("socket:") for target in targets)
        rss_mb = float(status["VmRSS"].split()[0]) / 1024
        return cls(time.monotonic(), frames, rss_mb, int(status["Threads"]), sockets, len(targets))


def slope(samples: list[Sample]) -> dict[str, float | None]:
    """Growth of the memory after the warm-up, KB per 1000 frames, and the bounds of its 95 % interval.

    A straight line by least squares through the medians of consecutive stretches of the run, with the interval of
    Student's t; None where there are too few stretches.
    """
    total = samples[-1].frames if samples else 0
    kept = [sample for sample in samples if sample.frames >= _WARM_UP * total]
    count = min(_BLOCKS, len(kept))
    blocks = [kept[i * len(kept) // count : (i + 1) * len(kept) // count] for i in range(count)]
    frames = [statistics.mean(sample.frames for sample in block) for block in blocks]
    if count < 3 or frames[0] == frames[-1]:
        return {"kb_per_1000_frames": None, "low": None, "high": None}
    line = stats.linregress(frames, [statistics.median(sample.rss_mb for sample in block) for block in blocks])
    half = stats.t.ppf(0.975, count - 2) * line.stderr
    scale = 1000 * 1024
    return {
        name: round(float(value * scale), 2)
        for name, value in (
            ("kb_per_1000_frames", line.slope),
            ("low", line.slope - half),
            ("high", line.slope + half),
        )
    }


def growth(samples: list[Sample]) -> dict[str, Any]:
    """Slope of the memory, medians of second and last quarter of what is held, and the most there was."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    result: dict[str, Any] = {"rss_slope": slope(samples)}
    for name in ("rss_mb", "threads", "sockets", "files"):
        values = [getattr(sample, name) for sample in samples]
        middle = {
            part: round(statistics.median(getattr(sample, name) for sample in chosen), 1) if chosen else 0.0
            for part, chosen in (("second_quarter", early), ("last_quarter", late))
        }
        result[name] = {**middle, "max": round(max(values, default=0), 1)}
    return result


def curve(samples: list[Sample]) -> list[list[float]]:
    """At most 120 of the samples, evenly chosen: [seconds since the first, frames, MB, threads, sockets, files]."""
    step = max(1, math.ceil(len(samples) / _POINTS))
    return [
        [round(sample.at_s - samples[0].at_s, 1), *(round(value, 2) for value in astuple(sample)[1:])]
        for sample in samples[::step]
    ]
