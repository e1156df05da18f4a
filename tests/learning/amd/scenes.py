"""A textured square that moves over textured ground: videos whose segments are known."""

import json
from pathlib import Path

import cv2
import numpy as np

SIZE = (64, 128)


def texture(rng: np.random.Generator, size: tuple[int, int], level: float) -> np.ndarray:
    """Smooth colours around a level, uint8 [h, w, 3]."""
    small = rng.normal(level, 45, (size[0] // 4 + 1, size[1] // 4 + 1, 3))
    return np.clip(cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def moving_square(frames: int, seed: int = 0, step_px: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 [frames, h, w, 3] RGB of a square, a third as high as the picture, that goes right and starts over."""
    rng = np.random.default_rng(seed)
    ground, side = texture(rng, size, 90), size[0] // 3
    square = texture(rng, (side, side), 200)
    out = np.repeat(ground[None], frames, axis=0)
    for index in range(frames):
        left = (8 + index * step_px) % (size[1] - side)
        out[index, side : 2 * side, left : left + side] = square
    return out


def channels_first(frames: np.ndarray) -> np.ndarray:
    """uint8 [N, 3, h, w]."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))


def write_cache(folder: Path, clips: int = 4) -> Path:
    """A cache of short videos of moving squares, the last one held out."""
    folder.mkdir(parents=True)
    windows, rows = [], []
    for clip in range(clips):
        rows.append(moving_square(4, seed=clip))
        held = clip == clips - 1
        windows.append({"first": 4 * clip, "count": 4, "source": "s", "clip": str(clip), "held_out": held})
    (folder / "frames.rgb").write_bytes(np.concatenate(rows).tobytes())
    index = {"frames": 4 * clips, "size": SIZE, "windows": windows}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
