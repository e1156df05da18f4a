"""The video of a run: the camera's picture with the newest masks beside a view of the whole cell."""

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.errors import StoreError
from examples.grasping.cell import IMAGE_SIZE, Cell
from streaming.overlay import draw_overlay
from streaming.subscriber import MaskSubscriber

_SHOWN_S = 0.6
"""Masks older than that are not drawn: the video must not show more than the planner may use."""


class Film:
    """Writes an MP4, and keeps its newest picture.

    Raises:
        StoreError: it cannot be written.
    """

    def __init__(self, path: Path, masks: MaskSubscriber, fps: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = cv2.VideoWriter(
            str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (2 * IMAGE_SIZE[1], IMAGE_SIZE[0])
        )
        if not self._writer.isOpened():
            raise StoreError(f"--video {path}: cannot be written; give another file, ending in .mp4")
        self._masks, self._scene = masks, None
        self.frames = 0
        self.newest = np.zeros((IMAGE_SIZE[0], 2 * IMAGE_SIZE[1], 3), np.uint8)

    def add(self, image: np.ndarray, cell: Cell, caption: str) -> None:
        """One picture uint8 [h, w, 3] of the fixed camera."""
        self._scene = self._masks.read(0.0) or self._scene
        scene: Any = self._scene
        if scene is not None and time.time_ns() - scene.t_capture_ns < _SHOWN_S * 1e9:
            image = draw_overlay(image, scene.labels, scene.objects, scale=1.0)
        else:
            image = image.copy()
            caption += ", no fresh masks"
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(image, caption, (6, 232), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, thickness, cv2.LINE_AA)
        self.newest = np.hstack([image, cell.side().image])
        self._writer.write(self.newest)
        self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        self._writer.release()
