"""Frames as a session reports them, and a session that remembers what it was asked for."""

import time
from collections.abc import Sequence

import cv2
import numpy as np

from engine.errors import UsageError
from engine.frame import Frame
from engine.scene import Object, Scene
from streaming.engine_thread import FrameDone


def frame_done(index: int = 0, source: str = "cam", size: tuple[int, int] = (120, 160), **changes: object) -> FrameDone:
    """A textured frame with two objects, 3 and 70000, at fixed places; the last pixel tells the frame."""
    rng = np.random.default_rng(index)
    image = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), size[::-1])
    labels = np.zeros(size, np.uint16)
    labels[20:60, 30:80] = 1
    labels[70:100, 100:150] = 2
    objects = (
        Object(3, 1, 0.9, (30, 20, 80, 60), 2000, age=40, novelty=0.25, foreground=0.9),
        Object(70000, 2, 0.5, (100, 70, 150, 100), 1500, age=3, novelty=0.5, foreground=0.2),
    )
    t_capture_ns = time.time_ns()
    fields: dict[str, object] = {
        "timing_ms": {"flow": 5.0, "network": 7.5},
        "total_ms": 13.0,
        "age_ms": 20.0,
        "followed": (),
    }
    scene = Scene(index, "provisional", labels, objects, source, t_capture_ns)
    return FrameDone(source, Frame(image, index, t_capture_ns, source), [scene], **(fields | changes))


class Remembering:
    """Takes the page's requests like a session; `refusal` or `failure` is what it raises instead."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.refusal: str | None = None
        self.failure: Exception | None = None

    def pause(self, name: str | None = None) -> None:
        self._note("pause", name)

    def resume(self, name: str | None = None) -> None:
        self._note("resume", name)

    def track(
        self,
        source: str,
        *,
        mask: np.ndarray | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
    ) -> int:
        self._note("track", source, mask, point)
        return 71

    def forget(self, source: str, identity: int) -> None:
        self._note("forget", source, identity)

    def _note(self, *request: object) -> None:
        if self.refusal is not None:
            raise UsageError(self.refusal)
        if self.failure is not None:
            raise self.failure
        self.asked.append(request)
