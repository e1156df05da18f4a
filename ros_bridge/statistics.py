"""What the bridge has to tell about itself: rates, ages and counts per source."""

import time
from collections import Counter, deque

import numpy as np

from ros_bridge.health import DEAD_AFTER_S, Health
from streaming.ros.messages import Level, Status, status
from streaming.wire import Message

_WINDOW_S = 5.0


class SourceStatistics:
    """Rates and ages of one source over the last five seconds."""

    def __init__(self) -> None:
        self.published: Counter[str] = Counter()
        self._last: Message | None = None
        self._recent: deque[tuple[float, float]] = deque()

    def scene(self, message: Message) -> None:
        """Note a scene that has just been published to ROS."""
        self._last = message
        now_s = time.monotonic()
        self._recent.append((now_s, (time.time_ns() - message.t_capture_ns) / 1e6))
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        while self._recent and now_s - self._recent[0][0] > _WINDOW_S:
            self._recent.popleft()

    def values(self) -> dict[str, object]:
        """What diagnostics show; ages run from capture to having published on ROS."""
        self._forget(time.monotonic())
        ages_ms = [age_ms for _, age_ms in self._recent]
        found: dict[str, object] = {"fps": len(ages_ms) / _WINDOW_S}
        if ages_ms:
            found["age_ms p50"] = float(np.percentile(ages_ms, 50))
            found["age_ms p99"] = float(np.percentile(ages_ms, 99))
        if self._last is not None:
            found["objects"] = len(self._last.objects)
            found["model"] = self._last.model.name
            found |= {f"engine dropped {cause}": count for cause, count in sorted(self._last.dropped.items())}
        return found | {f"published {topic}": count for topic, count in sorted(self.published.items())}


def source_level(source: str, health: Health) -> tuple[Level, str]:
    """Level and text of a source: OK while live, WARN while it has no frames, ERROR when its engine is gone."""
    state = health.states.get(source, "unknown")
    if state == "ended":
        return Level.WARN, "the source has ended"
    if health.silent_s(source) > DEAD_AFTER_S:
        # No seconds in the text: it would be news every time.
        return Level.ERROR, "the engine is gone: no sign of life"
    if state in ("stalled", "reconnecting"):
        return Level.WARN, f"the source is {state}"
    return Level.OK, "live"


def source_status(source: str, endpoint: str, health: Health, values: dict[str, object]) -> Status:
    """Everything diagnostics tell about a source."""
    known = {"state": health.states.get(source, "unknown"), "session": health.sessions.get(source, "")}
    return status(f"unseen: {source}", endpoint, *source_level(source, health), {**known, **values})
