"""`--save-masks`: label maps, foreground maps and object lists as files."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np

from engine.errors import StoreError
from engine.frame import Frame
from engine.scene import Scene

FOREGROUND_LEVEL = 0.5
"""Objects whose `foreground` is above this make the object-level output."""


def id_map(scene: Scene) -> np.ndarray:
    """uint16 [H, W] of object ids; the label stands in for an id beyond 16 bits (see objects.jsonl)."""
    lookup = np.zeros(0x10000, np.uint16)
    for item in scene.objects:
        lookup[item.label] = item.id if item.id <= 0xFFFF else item.label
    return lookup[scene.labels]


def foreground_map(scene: Scene) -> np.ndarray:
    """uint8 [H, W], 255 where an object of the object-level output is, else 0."""
    lookup = np.zeros(0x10000, np.uint8)
    for item in scene.objects:
        if item.foreground > FOREGROUND_LEVEL:
            lookup[item.label] = 255
    return lookup[scene.labels]


class MaskWriter:
    """Writes DIR/masks/00000.png, DIR/foreground/00000.png and DIR/objects.jsonl for final scenes.

    The file number is the capture index, so dropped frames show as gaps.

    Raises:
        StoreError: the folder or a file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._masks, self._foreground = folder / "masks", folder / "foreground"
        try:
            ours = (folder / "objects.jsonl").exists()
            for path in (self._masks, self._foreground):
                path.mkdir(parents=True, exist_ok=True)
                old = list(path.glob("[0-9]*.png"))
                if old and not ours:
                    raise StoreError(f"--save-masks {folder}: {path.name}/ holds {len(old)} images of somebody else")
                # Masks of an earlier run beside those of this one would look like one recording.
                for image in old:
                    image.unlink()
            self._objects = (folder / "objects.jsonl").open("w", encoding="utf-8")
        except OSError as error:
            raise StoreError(f"--save-masks {folder}: {error.strerror or error}") from None

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        """Write the final ones among `scenes`."""
        for scene in scenes:
            if scene.kind == "final":
                self._write(scene)

    def _write(self, scene: Scene) -> None:
        name = f"{scene.frame_index:05d}.png"
        _write_png(self._masks / name, id_map(scene))
        _write_png(self._foreground / name, foreground_map(scene))
        line = {
            "frame": scene.frame_index,
            "t_capture_ns": scene.t_capture_ns,
            "pts_ns": scene.pts_ns,
            "commit": dataclasses.asdict(scene.commit) if scene.commit else None,
            "objects": [dataclasses.asdict(item) for item in scene.objects],
        }
        try:
            self._objects.write(json.dumps(line) + "\n")
        except OSError as error:
            raise StoreError(f"{self._objects.name}: {error.strerror or error}") from None

    def close(self) -> None:
        """Finish objects.jsonl."""
        try:
            self._objects.close()
        except OSError as error:
            raise StoreError(f"{self._objects.name}: {error.strerror or error}") from None


def _write_png(path: Path, image: np.ndarray) -> None:
    # Level 1: label maps are runs, higher levels take five times as long for a few per cent.
    encoded, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    try:
        if not encoded:
            raise OSError("cannot be encoded")
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from None
