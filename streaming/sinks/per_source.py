"""A sink for each source; that of a source added later is made when its first frame comes."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from engine.frame import Frame
from engine.scene import Scene
from streaming.sinks.background import Sink

S = TypeVar("S", bound=Sink)


class PerSource(Generic[S]):
    """Hands every frame and scene to the sink of its source.

    Args:
        make: makes the sink of a source from its name.
        names: sources known from the start: what is wrong with their files is said at once.

    Attributes:
        sinks: those made so far, by source.
    """

    def __init__(self, make: Callable[[str], S], names: Iterable[str] = ()) -> None:
        self._make = make
        self.sinks: dict[str, S] = {name: make(name) for name in names}

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        """One processed frame and what it settled; all of one source."""
        source = frame.source if frame is not None else scenes[0].source if scenes else None
        if source is None:
            return
        if source not in self.sinks:
            self.sinks[source] = self._make(source)
        self.sinks[source].step(frame, scenes)

    def close(self) -> None:
        """Finish all of them; the first thing that goes wrong is raised when every one was asked."""
        problem: Exception | None = None
        for sink in self.sinks.values():
            try:
                sink.close()
            except Exception as error:
                problem = problem or error
        if problem is not None:
            raise problem
