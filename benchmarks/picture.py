"""The picture of the README: final masks of the engine on one frame of each of four clips.

python -m benchmarks.picture --clips DIR --out docs/masks.jpg
"""

import argparse
import itertools
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np

from engine.config import EngineConfig
from engine.errors import EngineError, SourceError
from engine.frame import Frame
from engine.perceive.network import DEFAULT_MODEL, Network
from engine.pipeline import Pipeline
from streaming.overlay import draw_overlay
from streaming.sinks.overlay_video import telling
from streaming.sources import open_source

SHOWN = (
    "general/edgetam_02_cups.mp4",
    "general/edgetam_22_dogskateboarder.mp4",
    "general/intel_bottle_0.mp4",
    "general/intel_cars.mp4",
)
"""Clips licensed for redistribution with attribution."""

_TILE = (640, 360)
_FRAMES = 150


def most_telling(clip: Path, network: Network) -> np.ndarray:
    """The frame that `--overlay` would put beside its video, with its final masks drawn: uint8 [360, 640, 3]."""
    pipeline = Pipeline(EngineConfig(), network)
    frames: dict[int, Frame] = {}
    best, picture = -1.0, None
    with open_source(str(clip)) as source:
        for frame in itertools.islice(source, _FRAMES):
            frames[frame.index] = frame
            for scene in pipeline.step(frame):
                if scene.kind == "final" and telling(scene) > best:
                    best = telling(scene)
                    image = frames[scene.frame_index].image
                    picture = draw_overlay(image, scene.labels, scene.objects, scale=1.0)
            frames.pop(frame.index - 20, None)
    if picture is None:
        raise SourceError(f"{clip}: no frame")
    return cv2.resize(picture, _TILE, interpolation=cv2.INTER_AREA)


def main() -> int:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        network = Network(DEFAULT_MODEL)
        tiles = [most_telling(options.clips / name, network) for name in SHOWN]
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    sheet = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
    if not cv2.imwrite(str(options.out), sheet, [cv2.IMWRITE_JPEG_QUALITY, 85]):
        print(f"error: {options.out} cannot be written", file=sys.stderr)
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(main())
