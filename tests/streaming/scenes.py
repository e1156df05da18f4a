"""Small scenes, a reader written from the protocol page alone, and waiting without guessing times."""

import json
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np

from engine.scene import CommitInfo, Object, Scene


def make_object(object_id: int = 7, label: int = 1, **changes) -> Object:
    fields = {"score": 0.5, "box": (1, 1, 3, 3), "area": 4, "age": 2, "novelty": 0.25, "foreground": 0.75}
    return Object(id=object_id, label=label, **(fields | changes))


def make_scene(
    frame: int = 0, kind: str = "final", source: str = "cam", size: tuple[int, int] = (6, 8), **changes
) -> Scene:
    """A scene with one object whose label map tells which frame it belongs to."""
    labels = np.zeros(size, np.uint16)
    labels[1:3, 1:3] = 1
    labels[-1, -1] = frame % 60000 + 1
    fields = {
        "labels": labels,
        "objects": (make_object(),),
        "t_capture_ns": time.time_ns(),
        "commit": CommitInfo(exact=True, lag=2, loss_bound=0.0) if kind == "final" else None,
    }
    return Scene(frame_index=frame, kind=kind, source=source, **(fields | changes))


def read_by_the_page(parts: list[bytes]) -> tuple[dict, np.ndarray]:
    """Header and label map of a scene, with nothing but the wire protocol's description."""
    header = json.loads(parts[1].decode("utf-8"))
    number = [part["name"] for part in header["parts"]].index("labels")
    part = header["parts"][number]
    assert part["encoding"] == "rle+zlib"
    assert part["dtype"] == "<u2"
    assert part["shape"] == header["size"]
    h, w = part["shape"]
    runs = zlib.decompress(parts[2 + number])
    n = len(runs) // 6
    values = struct.unpack(f"<{n}H", runs[: 2 * n])
    lengths = struct.unpack(f"<{n}I", runs[2 * n :])
    assert sum(lengths) == h * w
    pixels: list[int] = []
    for value, length in zip(values, lengths, strict=True):
        pixels += [value] * length
    return header, np.array(pixels, np.uint16).reshape(h, w)


def eventually(condition: Callable[[], object], timeout_s: float = 60.0) -> bool:
    """Wait until `condition` holds; False when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.005)
    return True
