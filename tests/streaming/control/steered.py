"""A session that writes down what it is told, to see what the control channel lets through."""

import threading
import time
from dataclasses import dataclass, field

import numpy as np

from engine.config import EngineConfig
from engine.errors import SourceError, UsageError
from engine.frame import Frame
from engine.scene import Scene
from streaming.control.operations import Operations
from streaming.control.settings import LiveSettings
from tests.streaming.scenes import make_object, make_scene

FRAME_SIZE = (48, 64)


@dataclass(frozen=True)
class Status:
    name: str
    state: str = "live"


@dataclass
class RecordingSession:
    """Two sources, a model registry and live settings; `told` is everything that would have changed something."""

    told: list[tuple] = field(default_factory=list)
    names: list[str] = field(default_factory=lambda: ["cam", "door"])
    hold: threading.Event = field(default_factory=threading.Event)
    generation: int = 1

    def __post_init__(self) -> None:
        self.hold.set()

    def sources(self) -> list[Status]:
        return [Status(name) for name in self.names]

    def add_source(self, text: str, /) -> str:
        name, _, uri = text.partition("=")
        if uri == "nowhere":
            raise SourceError(f"source {name}: cannot be opened")
        self.told.append(("add", text))
        self.names.append(name)
        return name

    def remove_source(self, name: str, /) -> None:
        self.told.append(("remove", name))
        self.names.remove(name)

    def pause(self, name: str | None, /) -> None:
        self.hold.wait(30)
        self.told.append(("pause", name))

    def resume(self, name: str | None, /) -> None:
        self.told.append(("resume", name))

    def track(self, source: str, /, *, mask=None, box=None, point=None) -> int:
        if point is not None and not (0 <= point[0] < FRAME_SIZE[1] and 0 <= point[1] < FRAME_SIZE[0]):
            raise UsageError(f"point {point} lies outside the frame")
        self.told.append(("track", source, mask, box, point))
        return 41

    def forget(self, source: str, identity: int, /) -> None:
        if identity != 41:
            raise UsageError(f"object {identity} is not tracked")
        self.told.append(("forget", source, identity))

    def snapshot(self, source: str, /) -> tuple[Frame, Scene]:
        image = np.random.default_rng(0).integers(0, 256, (*FRAME_SIZE, 3)).astype(np.uint8)
        labels = np.zeros(FRAME_SIZE, np.uint16)
        labels[10:20, 10:30] = 1
        scene = make_scene(9, "provisional", source, labels=labels, objects=(make_object(7, 1, box=(10, 10, 30, 20)),))
        return Frame(image, 9, time.time_ns(), source), scene

    def stop(self) -> None:
        self.told.append(("stop",))

    def configure(self, config: EngineConfig) -> None:
        self.told.append(("configure", config))

    def reload(self) -> int:
        self.generation += 1
        self.told.append(("reload", self.generation))
        return self.generation

    def rollback(self) -> int:
        raise RuntimeError("a defect of the registry")

    def operations(self) -> Operations:
        return Operations(
            self, lambda: {"frames": 12, "fps": 29.5}, LiveSettings(EngineConfig(), self.configure), models=self
        )
