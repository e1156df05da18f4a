"""Unlabelled frames of real clips with their motion, for self-training."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from engine.perceive.motion import MotionEstimator
from learning.synthesis.sample import MAX_INSTANCES, SIZE, Origin, Sample

_GENERAL_FRAMES = 16
_ROBOT_FRAMES = 1
"""Robot clips outnumber the rest eleven to one: sample by source, not by clip."""


def clip_samples(videos: list[Path], seed: int) -> Iterator[Sample]:
    """Frames of each clip with motion against the frame before, no labels."""
    rng = np.random.default_rng(seed)
    for video in videos:
        count = _GENERAL_FRAMES if video.parent.name == "general" else _ROBOT_FRAMES
        gap = int(rng.integers(4, 9)) if count > 1 else int(rng.integers(4, 30))
        yield from _frames(video, count, gap)


def _frames(video: Path, count: int, gap: int) -> Iterator[Sample]:
    capture = cv2.VideoCapture(str(video))
    estimator = MotionEstimator()
    for index in range((count - 1) * gap + gap + 1):
        wanted, before = index % gap == 0 and index > 0, (index + 1) % gap == 0
        if not capture.grab():
            break
        if not (wanted or before):
            continue
        ok, frame = capture.retrieve()
        if not ok:
            break
        frame = cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA)
        motion = estimator.step(frame)
        if wanted and motion is not None:
            none = np.zeros(MAX_INSTANCES, np.uint8)
            yield Sample(
                np.ascontiguousarray(frame[..., ::-1]),
                motion.features,
                np.zeros(SIZE, np.uint8),
                none,
                Origin.CLIP,
            )
    capture.release()
