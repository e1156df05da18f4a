"""What a running engine says about itself, in one place for the control channel, the metrics and the page."""

import importlib.metadata
import os
import resource
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streaming.publisher import Publisher
from streaming.report import Report
from streaming.session import Session


def resident_bytes() -> int:
    """Memory of this process that is in RAM now; the peak where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")


class EngineStatus:
    """Facts about a session, read without waiting for its engine thread; passwords are not among them.

    Args:
        session: the engine at work.
        report: its statistics.
        publisher: where its scenes go, or None.
    """

    def __init__(self, session: Session, report: Report, publisher: Publisher | None = None) -> None:
        self.session = session
        self.report = report
        self.publisher = publisher
        self.started_s = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether a model runs and at least one source is live."""
        return self.session.running and any(source.state == "live" for source in self.session.sources())

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON."""
        sources = self.session.sources()
        return {
            "version": importlib.metadata.version("unseen-engine"),
            "uptime_s": round(time.monotonic() - self.started_s, 1),
            "ready": self.ready,
            "session": None if self.publisher is None else self.publisher.session,
            "publish": None if self.publisher is None else self.publisher.endpoint,
            "subscribers": 0 if self.publisher is None else self.publisher.subscribers,
            "unsent": {} if self.publisher is None else self.publisher.dropped,
            "model": dict(self.report.model),
            "frames": self.report.frames,
            "fps": round(sum(source.fps for source in sources), 2),
            "dropped": self.session.dropped,
            "sources": [asdict(source) for source in sources],
            "rss_mb": round(resident_bytes() / 2**20, 1),
        }
