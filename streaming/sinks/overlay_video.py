"""`--overlay`: a video with the final masks drawn over the frames, and one picture of it."""

import math
from pathlib import Path

import cv2
import numpy as np

from engine.errors import StoreError
from engine.frame import Frame
from engine.scene import Scene
from streaming.overlay import draw_overlay

_SCALE = 1.0


def telling(scene: Scene) -> float:
    """How much a scene shows: established objects of good size count, a newborn flicker does not."""
    return sum(math.sqrt(item.area) * item.foreground for item in scene.objects if item.age >= 10)


class OverlayVideo:
    """Writes an mp4 (mp4v) and, beside it, a PNG of its most telling frame.

    Args:
        path: the video file.
        fps: frames per second of the video; 30 when the source does not know.

    Raises:
        StoreError: the file cannot be written.
    """

    def __init__(self, path: Path, fps: float | None) -> None:
        self.path = path
        self._fps = fps or 30.0
        self._frames: dict[int, Frame] = {}
        self._writer: cv2.VideoWriter | None = None
        self._size: tuple[int, int] | None = None
        self._best = -1.0
        try:
            self.picture = path.with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except (OSError, ValueError) as error:
            raise StoreError(f"--overlay {path}: {error}") from None

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        """Keep the frame until its masks are final, draw those that are."""
        if frame is not None:
            self._frames[frame.index] = frame
        for scene in scenes:
            if scene.kind != "final":
                continue
            frame_of_scene = self._frames.get(scene.frame_index)
            # Finals come in order: whatever is older was dropped on the way here and never comes.
            self._frames = {i: kept for i, kept in self._frames.items() if i > scene.frame_index}
            if frame_of_scene is not None:
                self._draw(frame_of_scene, scene)

    def _draw(self, frame: Frame, scene: Scene) -> None:
        picture = draw_overlay(frame.image, scene.labels, scene.objects, scale=_SCALE)
        if self._writer is None:
            self._size = (picture.shape[1], picture.shape[0])
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), codec, self._fps, self._size)
            if not self._writer.isOpened():
                raise StoreError(f"--overlay {self.path}: no video can be written (use a name ending in .mp4)")
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size)
        self._writer.write(picture)
        if telling(scene) > self._best:
            self._best = telling(scene)
            self._write_picture(picture)

    def _write_picture(self, picture: np.ndarray) -> None:
        if not cv2.imwrite(str(self.picture), picture):
            raise StoreError(f"--overlay {self.picture}: cannot be written")

    def close(self) -> None:
        """Finish the video."""
        if self._writer is None:
            return
        self._writer.release()
        # The encoder says nothing about a full disk; a video without its index cannot be opened.
        check = cv2.VideoCapture(str(self.path))
        readable = check.isOpened()
        check.release()
        if not readable:
            raise StoreError(f"--overlay {self.path}: the video is not readable (is the disk full?)")
