"""A source that is opened by the thread that reads it."""

from collections.abc import Callable

from engine.frame import Frame
from streaming.sources.base import Source


class DeferredSource(Source):
    """Opens another source on the first `read`, so that a server that does not answer holds up nobody else.

    Args:
        uri: where the frames will come from.
        name: name of the source.
        opener: opens it; what it raises, `read` raises.
    """

    live = True

    def __init__(self, uri: str, name: str, opener: Callable[[], Source]) -> None:
        super().__init__(uri, name)
        self._opener = opener
        self._inner: Source | None = None
        self._closed = False

    @property
    def opened(self) -> Source | None:
        """The source itself, None before the first `read`."""
        return self._inner

    def read(self) -> Frame | None:
        if self._closed:
            return None
        if self._inner is None:
            self._inner = self._opener()
            self.dropped = self._inner.dropped
            self.fps, self.frame_count = self._inner.fps, self._inner.frame_count
        frame = self._inner.read()
        self.size = self._inner.size
        return frame

    def close(self) -> None:
        self._closed = True
        if self._inner is not None:
            self._inner.close()
