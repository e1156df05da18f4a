"""The cell as a robot's computer would offer it: live pictures, depth, state, and motions to order, over HTTP."""

import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from examples.grasping.camera import Picture
from examples.grasping.cell import WORKSPACE, Cell
from examples.grasping.freshness import MAX_AGE_S
from examples.grasping.grasp import Grasp
from examples.grasping.poking import Poke
from examples.grasping.robot import DEPTH_SCALE_M, RobotState
from examples.grasping.things import Family

FPS = 10.0
LATENCY_S = 0.5
"""How long a picture may be on its way to the engine: masks count as new only that long after a motion's end."""

_JPEG_QUALITY = 92


@dataclass
class _Order:
    kind: str
    fields: dict[str, Any]
    done: threading.Event = field(default_factory=threading.Event)
    status: int = 200
    answer: dict[str, Any] = field(default_factory=dict)


class _Video:
    """The newest JPEG, for everybody who watches."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number, self._jpeg, self._closed = 0, b"", False
        self.watchers = 0

    def put(self, image: np.ndarray) -> None:
        jpeg = bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes())
        with self._changed:
            self._number, self._jpeg = self._number + 1, jpeg
            self._changed.notify_all()

    def after(self, number: int) -> tuple[int, bytes] | None:
        """The next picture, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number or self._closed)
            return None if self._closed else (self._number, self._jpeg)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Station:
    """Serves scenes of the cell one after the other; `run` belongs to the thread that made it.

    Args:
        seeds: of the scenes, in order.
        count, family: what lies in the tray.
        fps: of the video.
        wrist: serve the hand's camera as well.
        attempts: orders per scene; None: as many as things.
        port: 0 for a free one.
        watch: told of every picture of the fixed camera.

    Attributes:
        fps: pictures per second, may be changed.
        log: what was ordered, and its outcome.
    """

    def __init__(
        self,
        seeds: list[int],
        count: int = 5,
        family: Family = "mixed",
        *,
        fps: float = FPS,
        wrist: bool = False,
        attempts: int | None = None,
        port: int = 0,
        max_age_s: float = MAX_AGE_S,
        watch: Callable[[np.ndarray], None] = lambda image: None,
    ) -> None:
        self._seeds, self._count, self._family = list(seeds), count, family
        self.fps, self._attempts, self._max_age_s, self._watch = fps, attempts, max_age_s, watch
        self._videos = {"/video": _Video(), **({"/wrist": _Video()} if wrist else {})}
        self._orders: queue.Queue[_Order] = queue.Queue()
        self._stopped, self._ended = threading.Event(), threading.Event()
        self._moving, self._settled_ns, self._done, self._due_s = True, 0, False, 0.0
        self._depth = b""
        self.log: list[dict[str, Any]] = []
        self.cell: Cell | None = None
        self._still: dict[str, Picture] = {}
        self._next_scene()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Of the services; the video is below it at /video."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def scene(self) -> int:
        """Seed of the scene that lies there."""
        return self._seed

    @property
    def stopped(self) -> bool:
        """`run` has been told to return."""
        return self._stopped.is_set()

    @property
    def done(self) -> bool:
        """All scenes are over."""
        return self._done

    def __enter__(self) -> "Station":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._ended.set()
        for video in self._videos.values():
            video.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
        if self.cell is not None:
            self.cell.__exit__(None, None, None)

    def stop(self) -> None:
        """Make `run` return."""
        self._stopped.set()

    def run(self, each: Callable[[], None] = lambda: None) -> None:
        """Show pictures and carry out orders until stopped; `each` is called several times a second."""
        while not self._stopped.is_set():
            try:
                order = self._orders.get(timeout=max(0.0, min(1 / self.fps, self._due_s - time.monotonic())))
            except queue.Empty:
                self._show_still()
            else:
                self._carry_out(order)
            each()
        self._ended.set()

    def order(self, kind: str, fields: dict[str, Any]) -> _Order:
        """Have an order carried out by the thread that runs; returns when it is done."""
        order = _Order(kind, fields)
        self._orders.put(order)
        while not order.done.wait(0.2):
            if self._ended.is_set():
                return _Order(kind, fields, status=503, answer={"error": "the cell is closed"})
        return order

    def state(self) -> RobotState:
        """What /state answers."""
        left = len(self.cell.things) if self.cell is not None else 0
        return RobotState(self._moving, self._settled_ns, left, self._done)

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Content type and body of a resource, None when there is none."""
        if path == "/depth":
            return "image/png", self._depth
        assert self.cell is not None
        found: dict[str, Any] = {
            "/state": lambda: asdict(self.state()),
            "/camera": self.cell.view.described,
            "/workspace": lambda: asdict(WORKSPACE),
        }
        return ("application/json", json.dumps(found[path]()).encode()) if path in found else None

    def video(self, path: str) -> _Video | None:
        """The live video of a path."""
        return self._videos.get(path)

    def _next_scene(self) -> None:
        self._moving = True
        if not self._seeds:
            self._done = True
            return
        if self.cell is not None:
            self.cell.__exit__(None, None, None)
        self._seed = self._seeds.pop(0)
        self.cell = Cell(self._seed, self._count, self._family, self._show_motion)
        self._left = self._attempts if self._attempts is not None else len(self.cell.things)
        self._come_to_rest()
        if self._left == 0 or not self.cell.things:
            self._next_scene()

    def _come_to_rest(self) -> None:
        assert self.cell is not None
        self._still = {"/video": self.cell.fixed()}
        if "/wrist" in self._videos:
            self._still["/wrist"] = self.cell.wrist()
        steps = np.nan_to_num(self.cell.sensed_depth(self._still["/video"]) / DEPTH_SCALE_M).astype(np.uint16)
        self._depth = bytes(cv2.imencode(".png", steps)[1].tobytes())
        self._settled_ns = time.time_ns() + round(LATENCY_S * 1e9)
        self._moving = False

    def _show_still(self) -> None:
        assert self.cell is not None
        for path, picture in self._still.items():
            image = self.cell.noisy(picture)
            self._videos[path].put(image)
            if path == "/video":
                self._watch(image)
        self._due_s = time.monotonic() + 1 / self.fps

    def _show_motion(self) -> None:
        if self.cell is None or not self._still:
            return
        self._still = {path: self.cell.wrist() if path == "/wrist" else self.cell.fixed() for path in self._still}
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        self._show_still()

    def _carry_out(self, order: _Order) -> None:
        refusal = self._refusal(order)
        if refusal is not None:
            order.status, order.answer = 409, {"error": refusal}
            order.done.set()
            return
        assert self.cell is not None
        self._moving = True
        entry: dict[str, Any] = {"scene": self._seed, "order": order.kind, "things": len(self.cell.things)}
        fields = {name: value for name, value in order.fields.items() if name != "seen_ns"}
        if order.kind == "grasp":
            entry["held"] = self.cell.grasp(Grasp(**fields))
            order.answer = {"held": entry["held"]}
        elif order.kind == "poke":
            self.cell.poke(Poke(**fields))
        elif order.kind == "wait":
            for _ in range(int(fields["frames"])):
                self._show_motion()
        self.log.append(entry)
        self._left -= 1
        if self._left <= 0 or not self.cell.things:
            self._next_scene()
        else:
            self._come_to_rest()
        order.done.set()

    def _refusal(self, order: _Order) -> str | None:
        if self._done:
            return "the run is over"
        seen_ns = int(order.fields.get("seen_ns", 0))
        age_s = (time.time_ns() - seen_ns) / 1e9
        if seen_ns < self._settled_ns:
            return "refused: the picture behind this order is older than the latest motion"
        if age_s > self._max_age_s:
            return (
                f"refused: the picture behind this order is {age_s * 1e3:.0f} ms old (max {self._max_age_s * 1e3:.0f})"
            )
        return None


def _handler(station: Station) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            video = station.video(self.path)
            if video is not None:
                self._stream(video)
                return
            found = station.answer(self.path)
            self._reply(*((200, *found) if found is not None else (404, "text/plain", b"no such resource")))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            order = station.order(self.path.strip("/"), json.loads(body))
            text = order.answer.get("error")
            kind, content = ("application/json", json.dumps(order.answer)) if text is None else ("text/plain", text)
            self._reply(order.status, kind, content.encode())

        def _reply(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, video: _Video) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            number = 0
            try:
                while (found := video.after(number)) is not None:
                    number, jpeg = found
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return  # the viewer has gone

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
