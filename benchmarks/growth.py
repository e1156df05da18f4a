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

_LAST_HALF = 0.5

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
        reconnects: of its sources until then.
        anon_mb: memory it has written to and that is in RAM. A leak shows here.
        file_mb: pages of programs and libraries in RAM. They come as code is first run and go when others need the
            room, whatever the process does.
        threads, sockets, files: how many; sockets are among the open files.
    """

    at_s: float
    frames: int
    reconnects: int
    anon_mb: float
    file_mb: float
    threads: int
    sockets: int
    files: int

    @classmethod
    def of(cls, pid: int, frames: int = 0, reconnects: int = 0) -> "Sample | None":
        """Of process `pid` now, None once it is gone (Linux)."""
        try:
            text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        except OSError:
            return None
        status = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if "RssAnon" not in status:
            return None
        targets = []
        with contextlib.suppress(FileNotFoundError, PermissionError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    targets.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        sockets = sum(target.startswith("socket:") for target in targets)
        anon_mb, file_mb = (float(status[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))
        threads = int(status["Threads"])
        return cls(time.monotonic(), frames, reconnects, anon_mb, file_mb, threads, sockets, len(targets))


def from_share(samples: list[Sample], share: float) -> list[Sample]:
    """Those taken when at least `share` of all frames were processed."""
    total = samples[-1].frames if samples else 0
    return [sample for sample in samples if sample.frames >= share * total]


def grown_kb(samples: list[Sample]) -> float | None:
    """`anon_mb` of the last stretch less that of the first one, in KB; medians of as many stretches as a slope has."""
    count = min(_BLOCKS, len(samples))
    if count < 2:
        return None
    size = len(samples) // count
    first, last = (statistics.median(sample.anon_mb for sample in part) for part in (samples[:size], samples[-size:]))
    return round((last - first) * 1024, 1)


def slope(samples: list[Sample], per: str, scale: float) -> dict[str, float | None]:
    """Growth of `anon_mb` in KB for every `scale` of the attribute `per`, and the bounds of its 95 % interval.

    A straight line by least squares through the medians of consecutive stretches of the run, with the interval of
    Student's t; None where there are too few stretches, or `per` stands still.
    """
    count = min(_BLOCKS, len(samples))
    blocks = [samples[i * len(samples) // count : (i + 1) * len(samples) // count] for i in range(count)]
    passed = [statistics.mean(getattr(sample, per) for sample in block) for block in blocks]
    if count < 3 or passed[0] == passed[-1]:
        return {"kb": None, "low": None, "high": None}
    line = stats.linregress(passed, [statistics.median(sample.anon_mb for sample in block) for block in blocks])
    half = stats.t.ppf(0.975, count - 2) * line.stderr
    values = {"kb": line.slope, "low": line.slope - half, "high": line.slope + half}
    return {name: round(float(value * scale * 1024), 2) for name, value in values.items()}


def growth(samples: list[Sample]) -> dict[str, Any]:
    """Growth of the memory after the warm-up, medians of second and last quarter of what is held, and the most.

    A leak grows as fast in the last half of a run as before; what fills up to a bound does not, but a straight line
    through all of it does not tell. So the last half has a slope of its own, and both parts say by how much they grew.
    Neighbouring stretches share their high-water marks: the intervals are rather too narrow.

    `kb_per_reconnect` lays all growth at the door of the reconnects: they come as steadily as the frames, and no line
    tells which of the two it was. A run without faults does.
    """
    kept, half = from_share(samples, _WARM_UP), from_share(samples, _LAST_HALF)
    result: dict[str, Any] = {
        "measured": "anonymous memory after the warm-up; pages of programs and libraries are not in it",
        "warm_up_frames": kept[0].frames if kept else 0,
        "kb_per_1000_frames": slope(kept, "frames", 1000.0),
        "last_half_kb_per_1000_frames": slope(half, "frames", 1000.0),
        "grown_kb": {"after_warm_up": grown_kb(kept), "last_half": grown_kb(half)},
        "kb_per_reconnect": slope(kept, "reconnects", 1.0),
    }
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    for name in ("anon_mb", "file_mb", "threads", "sockets", "files"):
        values = [getattr(sample, name) for sample in samples]
        middle = {
            part: round(statistics.median(getattr(sample, name) for sample in chosen), 1) if chosen else 0.0
            for part, chosen in (("second_quarter", early), ("last_quarter", late))
        }
        result[name] = {**middle, "max": round(max(values, default=0), 1)}
    return result


def curve(samples: list[Sample]) -> list[list[float]]:
    """At most 120 of the samples, evenly chosen: seconds since the first, then the other fields of `Sample`."""
    step = max(1, math.ceil(len(samples) / _POINTS))
    return [
        [round(sample.at_s - samples[0].at_s, 1), *(round(value, 2) for value in astuple(sample)[1:])]
        for sample in samples[::step]
    ]
