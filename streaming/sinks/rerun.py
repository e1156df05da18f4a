"""`--rerun`: frames, masks and boxes for the Rerun viewer.

Into a file, never into a socket: the library holds up the end of the process for as long as a viewer that hangs does
not answer.
"""

import logging
import math
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.errors import StoreError, UsageError
from engine.frame import Frame
from engine.scene import Scene
from streaming.sinks.masks import id_map
from streaming.sinks.new_file import new_file

_log = logging.getLogger("unseen.rerun")

_JPEG_QUALITY = 80
_OPACITY = 0.5
_ANSWER_S = 2.0
_ROOM_BYTES = 256_000_000
"""Left free on the disk: once it is full, the library never lets the process end."""
_FLUSH_EVERY_S = 1.0


def require_rerun() -> None:
    """Refuse before anything is opened what needs Rerun where it is not installed.

    Raises:
        UsageError: with the command that installs it.
    """
    if find_spec("rerun") is None:
        raise UsageError("--rerun needs rerun-sdk: pip install 'unseen-engine[rerun]' (about 700 MB)")


class RerunSink:
    """Logs every frame and its final scene under the name of its source.

    Entities: `SOURCE/image` (JPEG), `SOURCE/image/masks` (pixel = object id), `SOURCE/image/objects` (boxes); timelines
    `frame` and `capture`. What a disk does not take is lost, and said once.

    Args:
        path: see `new_file`.

    Attributes:
        path: of the file that is written.

    Raises:
        UsageError, StoreError: see `require_rerun` and `new_file`; or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        require_rerun()
        import rerun

        self._rerun: Any = rerun
        self.path = new_file("--rerun", path, ".rrd")
        self._stream: Any = rerun.RecordingStream("unseen")
        self._lost = False
        self._flushed_s = -math.inf
        try:
            self._stream.save(self.path)
        except (OSError, RuntimeError) as error:
            raise StoreError(f"--rerun {self.path}: {' '.join(str(error).split())}") from None

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        """Log the frame and the final ones among `scenes`."""
        if self._lost or not self._has_room():
            return
        if frame is not None:
            self._at(frame.index, frame.t_capture_ns)
            _, jpeg = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            picture = self._rerun.EncodedImage(contents=jpeg.tobytes(), media_type="image/jpeg")
            self._stream.log(f"{frame.source}/image", picture)
        for scene in scenes:
            if scene.kind == "final":
                self._log(scene)

    def close(self) -> None:
        """Hand over what is left."""
        if not self._lost:
            self._flush()
        self._stream.disconnect()

    def _at(self, frame_index: int, t_capture_ns: int) -> None:
        self._stream.set_time("frame", sequence=frame_index)
        self._stream.set_time("capture", timestamp=np.datetime64(t_capture_ns, "ns"))

    def _log(self, scene: Scene) -> None:
        self._at(scene.frame_index, scene.t_capture_ns)
        path = f"{scene.source}/image"
        self._stream.log(f"{path}/masks", self._rerun.SegmentationImage(id_map(scene), opacity=_OPACITY))
        # An empty list too: boxes that are not logged anew stay.
        boxes = np.array([item.box for item in scene.objects], np.float32).reshape(-1, 4)
        objects = self._rerun.Boxes2D(
            array=boxes,
            array_format=self._rerun.Box2DFormat.XYXY,
            class_ids=[item.id & 0xFFFF for item in scene.objects],
            labels=[str(item.id) for item in scene.objects],
        )
        self._stream.log(f"{path}/objects", objects)

    def _has_room(self) -> bool:
        """Once a second: hand over what was logged, and see that there is room for more."""
        if time.monotonic() - self._flushed_s < _FLUSH_EVERY_S:
            return True
        self._flush()
        free = shutil.disk_usage(self.path.parent).free
        if free < _ROOM_BYTES:
            self._give_up(f"{free / 1e6:.0f} MB free, {_ROOM_BYTES / 1e6:.0f} MB are left alone")
        return not self._lost

    def _flush(self) -> None:
        self._flushed_s = time.monotonic()
        try:
            self._stream.flush(timeout_sec=_ANSWER_S)
        except Exception as error:  # Rerun's own classes, which differ between versions
            self._give_up(" ".join(str(error).split())[:160])

    def _give_up(self, why: str) -> None:
        self._lost = True
        _log.warning("%s: %s; what follows is not recorded, the engine goes on", self.path, why)
