"""What a viewer may do to the engine: follow an object or let it go, pause and resume, take a snapshot."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from engine.errors import UsageError
from streaming.preview.live_view import LiveView
from streaming.preview.snapshots import Snapshots


class Engine(Protocol):
    """The part of a session this page steers; every method may be called in any thread."""

    def pause(self, name: str | None = None) -> None:
        """Stop processing a source."""

    def resume(self, name: str | None = None) -> None:
        """Go on."""

    def track(
        self,
        source: str,
        *,
        mask: np.ndarray | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
    ) -> int:
        """Follow one object; returns its id."""

    def forget(self, source: str, identity: int) -> None:
        """Follow it no longer."""


class Actions:
    """Carries out the page's requests.

    Args:
        engine: the running session.
        view: knows the newest frames.
    """

    def __init__(self, engine: Engine, view: LiveView) -> None:
        self.snapshots = Snapshots()
        self._engine = engine
        self._view = view
        self._known: dict[str, Callable[[str, dict[str, Any]], Any]] = {
            "track": self._track,
            "forget": self._forget,
            "pause": self._pause,
            "resume": self._resume,
            "snapshot": self._snapshot,
        }

    def do(self, request: Any) -> Any:
        """Carry out {"op", "source", ...} and return a JSON value.

        Raises:
            UsageError: not understood, or the engine refuses.
        """
        fields = request if isinstance(request, dict) else {}
        op, source = fields.get("op"), fields.get("source")
        action = self._known.get(op) if isinstance(op, str) else None
        if action is None:
            raise UsageError(f"op {str(op)[:40]!r} is unknown: one of {', '.join(self._known)} is needed")
        if not isinstance(source, str):
            raise UsageError(f"{op}: a source is needed, like {{'op': {op!r}, 'source': 'demo'}}")
        return action(source, fields)

    def _track(self, source: str, fields: dict[str, Any]) -> int:
        """Follow the object with this id where it is now, or whatever is at this point where nothing is marked."""
        newest = self._view.newest(source)
        if newest is None:
            raise UsageError(f"track: source {source[:60]!r} has shown no frame yet")
        frame, scene = newest
        identity = fields.get("id")
        label = next((item.label for item in scene.objects if item.id == identity), None)
        if label is not None:
            return self._engine.track(source, mask=scene.labels == label)
        height, width = frame.image.shape[:2]
        x, y = _inside(fields, "x", width), _inside(fields, "y", height)
        return self._engine.track(source, point=(x, y))

    def _forget(self, source: str, fields: dict[str, Any]) -> None:
        identity = fields.get("id")
        if not isinstance(identity, int) or isinstance(identity, bool):
            raise UsageError("forget: the id of a followed object is needed")
        self._engine.forget(source, identity)

    def _pause(self, source: str, _: dict[str, Any]) -> None:
        self._engine.pause(source)

    def _resume(self, source: str, _: dict[str, Any]) -> None:
        self._engine.resume(source)

    def _snapshot(self, source: str, _: dict[str, Any]) -> dict[str, Any]:
        newest = self._view.newest(source)
        if newest is None:
            raise UsageError(f"snapshot: source {source[:60]!r} has shown no frame yet")
        return self.snapshots.take(*newest)


def _inside(fields: dict[str, Any], name: str, limit: int) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"track: {name} is not a number of pixels")
    if not 0 <= value < limit:
        raise UsageError(f"track: {name} {value:g} is outside the frame (0 to {limit - 1})")
    return float(value)
