"""`--preview`: a live view of a running session and the web server that shows it."""

from typing import Any

from streaming.lane import SourceStatus
from streaming.preview.actions import Actions
from streaming.preview.live_view import LiveView
from streaming.preview.server import PreviewServer
from streaming.session import Session


class Preview:
    """Serves the page of `session` until `close`.

    Args:
        session: watched and steered; not started yet.
        host, port, insecure: see `PreviewServer`.

    Attributes:
        url: where the page is.

    Raises:
        UsageError: it cannot or must not listen there.
    """

    def __init__(self, session: Session, *, host: str = "127.0.0.1", port: int = 8080, insecure: bool = False) -> None:
        self._view = LiveView(lambda: [describe_source(status) for status in session.sources()])
        try:
            self._server = PreviewServer(
                self._view, Actions(session, self._view), host=host, port=port, insecure=insecure
            )
        except BaseException:
            self._view.close()
            raise
        session.observe(self._view.observe)
        self.url = self._server.url

    def close(self) -> None:
        """Cut every viewer off; closing twice is allowed."""
        self._view.close()
        self._server.close()

    def __enter__(self) -> "Preview":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def describe_source(status: SourceStatus) -> dict[str, Any]:
    """What the page shows of a source; a pause hides whatever else goes on."""
    return {
        "name": status.name,
        "uri": status.uri,
        "state": "paused" if status.paused and status.state != "ended" else status.state,
        "fps": status.fps,
        "frames": status.frames,
        "dropped": status.dropped,
        "age_ms": status.age_ms,
        "problem": status.problem,
    }
