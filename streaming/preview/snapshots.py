"""The moment a viewer wants to keep: a picture with masks and a JSON file with every mask in it, of the same frame."""

import json
import re
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.frame import Frame
from engine.scene import Scene
from streaming.overlay import draw_overlay
from streaming.preview.message import describe_object, png

_KEPT = 4
"""A full-HD picture takes 3 MB; a viewer downloads at once or takes another one."""


class Snapshots:
    """The latest few snapshots, to be downloaded by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()

    def take(self, frame: Frame, scene: Scene) -> dict[str, Any]:
        """Keep a frame with its scene; returns the name of both files and what is in them."""
        readable = re.sub(r"[^A-Za-z0-9-]+", "-", frame.source).strip("-") or "source"
        name = f"{readable}-{frame.index:06d}"
        # One at a time: four viewers in a hurry must not take four cores.
        with self._lock:
            picture = png(draw_overlay(frame.image, scene.labels, scene.objects, scale=1.0))
            described = json.dumps(describe_snapshot(frame, scene), separators=(",", ":")).encode()
            self._kept[name] = (picture, described)
            self._kept.move_to_end(name)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return {"name": name, "frame": frame.index, "objects": len(scene.objects)}

    def file(self, name: str) -> bytes | None:
        """Content of NAME.png or NAME.json, None when it is not kept (any more)."""
        stem, _, suffix = name.rpartition(".")
        with self._lock:
            kept = self._kept.get(stem)
        if kept is None or suffix not in ("png", "json"):
            return None
        return kept[0] if suffix == "png" else kept[1]


def describe_snapshot(frame: Frame, scene: Scene) -> dict[str, Any]:
    """JSON values of a frame's scene; `label_runs` are (value, length) of the label map in row-major order."""
    height, width = scene.labels.shape
    return {
        "source": frame.source,
        "frame": frame.index,
        "kind": scene.kind,
        "t_capture_ns": frame.t_capture_ns,
        "size": [height, width],
        "objects": [describe_object(item, ()) for item in scene.objects],
        "label_runs": label_runs(scene.labels),
    }


def label_runs(labels: NDArray[np.uint16]) -> list[list[int]]:
    """(value, length) of each run of equal pixels, row by row."""
    flat = labels.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    runs: list[list[int]] = np.stack([flat[starts].astype(np.int64), lengths], axis=1).tolist()
    return runs
