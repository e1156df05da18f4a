"""The built-in scene as a source: something to see without a camera, with the exact truth."""

import difflib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from urllib.parse import parse_qsl

from engine.errors import UsageError
from engine.frame import Frame
from streaming.clock import CLOCK
from streaming.sources.base import Source
from streaming.sources.demo_scene import DemoScene

_DEMO = re.compile(r"demo(?::(?://)?)?(?:\?(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What `demo://?key=value&...` can set.

    Attributes:
        seed: decides the scene; the backdrop is room, yard or garden in turn.
        frames: length, 0 for endless; at 30 fps, 300 is one full round of all motion.
        size: (height, width) in pixels.
        fps: frames per second of the scene's own time.
        static_camera: no pan, zoom and roll.
        live: deliver in real time; a frame that comes too late is skipped and counted as "late".
        objects: number of objects.
    """

    seed: int = 0
    frames: int = 300
    size: tuple[int, int] = (480, 854)
    fps: float = 30.0
    static_camera: bool = False
    live: bool = False
    objects: int = 6


def is_demo(uri: str) -> bool:
    """Whether `uri` names the built-in scene."""
    return _DEMO.fullmatch(uri) is not None


def parse_demo(uri: str) -> DemoOptions:
    """Read the options of a demo URI.

    Raises:
        UsageError: unknown key, or a value out of range.
    """
    match = _DEMO.fullmatch(uri)
    if match is None:
        raise UsageError(f"'{uri}' is not a demo source; write demo or demo://?seed=3&frames=300")
    known = [field.name for field in fields(DemoOptions)]
    values: dict[str, object] = {}
    for key, text in parse_qsl(match.group(1) or "", keep_blank_values=True):
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise UsageError(f"unknown option '{key}' in '{uri}'; did you mean '{near[0]}'? known: {' '.join(known)}")
        try:
            values[key] = _PARSERS[key](text)
        except ValueError as error:
            raise UsageError(f"option {key}={text} in '{uri}' must be {error}") from None
    return DemoOptions(**values)  # type: ignore[arg-type]


class DemoSource(Source):
    """Frames of the built-in scene with `Frame.truth`; see `DemoOptions`.

    Raises:
        UsageError: unknown option or value out of range.
    """

    def __init__(self, uri: str, *, name: str = "demo", loop: bool = False) -> None:
        super().__init__(uri, name)
        options = parse_demo(uri)
        self.live = options.live
        self.size = options.size
        self.fps = options.fps
        self.frame_count = None if loop or not options.frames else options.frames
        self._scene = DemoScene(
            options.seed,
            options.size,
            options.fps,
            static_camera=options.static_camera,
            objects=options.objects,
        )
        self._frames = options.frames
        self._next = 0
        self._start_s: float | None = None
        self._closed = threading.Event()

    def read(self) -> Frame | None:
        if self.live:
            self._wait()
        if self._closed.is_set() or (self.frame_count is not None and self._next >= self.frame_count):
            return None
        index = self._next
        self._next += 1
        t_capture_ns = CLOCK.now_ns()
        image, truth = self._scene.render(index % self._frames if self._frames else index)
        pts_ns = None if self.live else round(index * 1e9 / (self.fps or 1))
        return Frame(image, index, t_capture_ns, self.name, pts_ns=pts_ns, truth=truth)

    def close(self) -> None:
        self._closed.set()

    def _wait(self) -> None:
        """Sleep until the next frame is due; skip those whose time has passed, as a camera would."""
        assert self.fps is not None
        now_s = time.monotonic()
        if self._start_s is None:
            self._start_s = now_s - self._next / self.fps
        due = int((now_s - self._start_s) * self.fps)
        if due > self._next:
            last = due if self.frame_count is None else min(due, self.frame_count)
            self.count_drop("late", last - self._next)
            self._next = last
        self._closed.wait(max(0.0, self._start_s + self._next / self.fps - now_s))


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _rate(text: str) -> float:
    try:
        fps = float(text)
    except ValueError:
        fps = 0.0
    if not 1 <= fps <= 1000:
        raise ValueError("frames per second from 1 to 1000")
    return fps


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if height.isdigit() and width.isdigit() and 64 <= int(height) <= 2160 and 64 <= int(width) <= 4096:
        return int(height), int(width)
    raise ValueError("HEIGHTxWIDTH from 64x64 to 2160x4096, like 480x854")


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text == "1"


_PARSERS: dict[str, Callable[[str], object]] = {
    "seed": _whole(0, 2**31 - 1),
    "frames": _whole(0, 10**9),
    "size": _size,
    "fps": _rate,
    "static_camera": _flag,
    "live": _flag,
    "objects": _whole(0, 40),
}
