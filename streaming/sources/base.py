"""What every frame source looks like to the capture thread."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

from engine.frame import Frame

S = TypeVar("S", bound="Source")

_SECRET_PARAMETER = re.compile(r"(?i)([?&](?:password|passwd|pwd|pass|token|key|secret|auth)=)[^&#]*")


def redact(uri: str) -> str:
    """Return `uri` fit for logs: the password and parameters that look secret become `***`."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    # A password may hold '@', '/' and '?' unescaped: whatever stands before the last '@' may belong to it.
    credentials, at, host = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    hidden = f"{user}:***" if colon else credentials
    return _SECRET_PARAMETER.sub(r"\1***", f"{scheme}://{hidden}{at}{host}")


class Source(ABC):
    """A stream of frames; use it as an iterator and as a context manager.

    Attributes:
        name: what the frames carry as their source.
        uri: where the frames come from, as given (may hold a password: print `display_uri`).
        live: True when frames arrive at the pace of the world, whether they are read or not.
        timed: True when a file knows when each frame is due: `pts_ns` need not be regular.
        size: (height, width) in pixels, or None before it is known.
        frame_count: frames promised by the container, or None when endless or unknown.
        fps: nominal frames per second, or None when unknown.
        dropped: frames lost inside the source, by cause ("corrupt", "missing", "late").
    """

    live: bool = False
    timed: bool = False

    def __init__(self, uri: str, name: str) -> None:
        self.uri = uri
        self.name = name
        self.size: tuple[int, int] | None = None
        self.frame_count: int | None = None
        self.fps: float | None = None
        self.dropped: dict[str, int] = {}

    @property
    def display_uri(self) -> str:
        """The URI without its password."""
        return redact(self.uri)

    @abstractmethod
    def read(self) -> Frame | None:
        """Return the next frame, or None at the end of the stream and after `close`.

        Raises:
            SourceError: the source stopped delivering.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the device or file; call it from the thread that reads. Closing twice is allowed."""

    def count_drop(self, cause: str, frames: int = 1) -> None:
        """Add `frames` lost frames to `dropped[cause]`."""
        if frames:
            self.dropped[cause] = self.dropped.get(cause, 0) + frames

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
