"""Annotated sequences through the whole engine, streaming and causal, frame by frame.

The first and the last frame of a sequence are shown to the engine and not scored.
"""

import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from benchmarks.davis import Sequence
from benchmarks.measures import FrameScore, InstanceScore, SequenceScore
from engine.frame import Frame
from engine.percepts import Percepts
from engine.pipeline import Pipeline
from engine.scene import Object, Scene
from streaming.sinks.masks import foreground_map, id_map
from streaming.sinks.overlay_video import OverlayVideo

MOVING, UNKNOWN, OUTSIDE = 255, 170, 85
"""Gray values of a CDnet annotation; 50 is a shadow and 0 is still, and both count as not moving."""

FPS = 24.0
"""Of overlay videos; the sequences do not state theirs."""


class Judge(Protocol):
    """What looks at the scored frames of a sequence."""

    def perceived(self, percepts: Percepts, truth: np.ndarray, index: int) -> None:
        """Candidates of the network and the foreground map, before the seeds; truth is integer [H, W]."""

    def decided(self, scene: Scene, truth: np.ndarray) -> None:
        """A provisional or final scene."""

    def figures(self) -> dict[str, Any]:
        """What to report of the sequence."""


class ForegroundJudge:
    """J_fg, F_fg and J_best_id of provisional and final masks against the merged annotation."""

    def __init__(self) -> None:
        self.scores = {"final": SequenceScore(), "provisional": SequenceScore()}

    def perceived(self, percepts: Percepts, truth: np.ndarray, index: int) -> None:
        """Only what is published counts here."""

    def decided(self, scene: Scene, truth: np.ndarray) -> None:
        """Compare foreground and ids with the merged annotation."""
        self.scores[scene.kind].add(scene.frame_index, truth > 0, foreground_map(scene) > 0, id_map(scene))

    def figures(self) -> dict[str, Any]:
        """Frames scored, the three figures of both kinds, causes of the final frames below J = 1/2."""
        return {
            "frames": len(self.scores["final"].frames),
            **{
                kind: {
                    "J_fg": round(score.j_fg, 4),
                    "F_fg": round(score.f_fg, 4),
                    "J_best_id": round(score.j_best_id, 4),
                }
                for kind, score in self.scores.items()
            },
            "causes_below_half": _causes(self.scores["final"].frames),
        }


class MovingJudge:
    """J of moving pixels: 255 moves; 170 and 85 count nowhere; shadows (50) and the rest do not move.

    J_fg is the mean over frames, as on every sequence. J_pooled, precision and recall are over the pixels of
    all frames together, so that frames with a few moving pixels do not weigh as much as full ones.
    """

    def __init__(self) -> None:
        self.scores = {"final": SequenceScore(), "provisional": SequenceScore()}
        self._pixels = {kind: np.zeros(3, np.int64) for kind in self.scores}

    def perceived(self, percepts: Percepts, truth: np.ndarray, index: int) -> None:
        """Only what is published counts here."""

    def decided(self, scene: Scene, truth: np.ndarray) -> None:
        """Compare the foreground output with the moving pixels, where the annotation is sure."""
        moving, valid = moving_pixels(truth)
        foreground = foreground_map(scene) > 0
        self.scores[scene.kind].add(scene.frame_index, moving, foreground, id_map(scene), valid)
        counts = (moving & foreground & valid, moving & valid, foreground & valid)
        self._pixels[scene.kind] += [np.count_nonzero(m) for m in counts]

    def figures(self) -> dict[str, Any]:
        """Frames scored, the figures of both kinds, causes of the final frames below J = 1/2."""
        out: dict[str, Any] = {"frames": len(self.scores["final"].frames)}
        for kind, score in self.scores.items():
            hit, moving, output = (int(v) for v in self._pixels[kind])
            out[kind] = {
                "J_fg": round(score.j_fg, 4),
                "J_pooled": round(hit / max(1, moving + output - hit), 4),
                "precision": round(hit / max(1, output), 4),
                "recall": round(hit / max(1, moving), 4),
            }
        return {**out, "causes_below_half": _causes(self.scores["final"].frames)}


def moving_pixels(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a CDnet annotation moves and where it counts: bool [H, W] each; the palette is gray."""
    gray = truth & 0xFF
    return gray == MOVING, (gray != UNKNOWN) & (gray != OUTSIDE)


class InstanceJudge:
    """Best overlap per annotated instance: of candidates, of published masks, of one id (`InstanceScore`)."""

    def __init__(self) -> None:
        self._score = InstanceScore()
        self._candidates: dict[int, np.ndarray] = {}

    def perceived(self, percepts: Percepts, truth: np.ndarray, index: int) -> None:
        """Keep the candidates of the network and the foreground map, before the seeds, until the masks are final."""
        self._candidates[index] = enlarged(percepts.logits, truth.shape)

    def decided(self, scene: Scene, truth: np.ndarray) -> None:
        """Score the final scene."""
        if scene.kind == "final":
            self._score.add(truth, self._candidates.pop(scene.frame_index), id_map(scene))

    def figures(self) -> dict[str, Any]:
        """Means over the instances and every instance."""
        rows = [{k: round(v, 4) for k, v in row.items()} for row in self._score.per_instance()]
        return {**{k: round(v, 4) for k, v in self._score.means().items()}, "instances": rows}


@dataclass(frozen=True, slots=True)
class _Kept:
    labels: bytes
    shape: tuple[int, int]
    objects: tuple[Object, ...]


class Recorder:
    """Keeps the final masks of a sequence, compressed, for pictures drawn once the worst frames are known."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}

    def perceived(self, percepts: Percepts, truth: np.ndarray, index: int) -> None:
        """Only what is published is kept."""

    def decided(self, scene: Scene, truth: np.ndarray) -> None:
        """Keep a final scene."""
        if scene.kind == "final":
            labels = zlib.compress(scene.labels.tobytes(), 1)
            self._kept[scene.frame_index] = _Kept(labels, scene.labels.shape, scene.objects)

    def figures(self) -> dict[str, Any]:
        """Nothing: this judge has no opinion."""
        return {}

    def scene(self, index: int) -> tuple[np.ndarray, tuple[Object, ...]]:
        """Label map uint16 [H, W] and objects of frame `index`."""
        kept = self._kept[index]
        return np.frombuffer(zlib.decompress(kept.labels), np.uint16).reshape(kept.shape), kept.objects


def enlarged(logits: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Soft masks [N, h, w] interpolated to (H, W) and cut at zero, as the engine draws them: bool [N, H, W]."""
    out = np.empty((len(logits), *size), bool)
    for index, soft in enumerate(logits):
        out[index] = cv2.resize(soft, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) > 0
    return out


def run_sequence(
    sequence: Sequence, pipeline: Pipeline, judges: list[Judge], overlay: Path | None = None
) -> dict[str, Any]:
    """Show a sequence to a fresh pipeline and its judges.

    Args:
        overlay: an .mp4 to draw the final masks into, with a picture beside it.

    Returns:
        the figures of every judge, how many frames were decided exactly and how many by deadline, seconds.

    Raises:
        SourceError: a frame or a mask that cannot be read.
        StoreError: the overlay cannot be written.
    """
    start = time.perf_counter()
    last = len(sequence.frames) - 1
    truths: dict[int, np.ndarray] = {}
    video = OverlayVideo(overlay, FPS) if overlay is not None else None
    commits: Counter[bool] = Counter()

    def take(frame: Frame | None, scenes: list[Scene]) -> None:
        for scene in scenes:
            if scene.commit is not None:
                commits[scene.commit.exact] += 1
            if 0 < scene.frame_index < last:
                for judge in judges:
                    judge.decided(scene, truths[scene.frame_index])
        for scene in scenes:
            if scene.kind == "final":  # its provisional scene came earlier, or in this very step
                truths.pop(scene.frame_index, None)
        if video is not None:
            video.step(frame, scenes)

    try:
        for index in range(len(sequence.frames)):
            frame = Frame(sequence.image(index), index, time.time_ns(), sequence.name)
            percepts = pipeline.perceive(frame)
            if 0 < index < last:
                truths[index] = sequence.truth(index)
                for judge in judges:
                    judge.perceived(percepts, truths[index], index)
            take(frame, pipeline.decide(frame, percepts))
        take(None, pipeline.flush())
    finally:
        if video is not None:
            video.close()
    figures = {key: value for judge in judges for key, value in judge.figures().items()}
    seconds = round(time.perf_counter() - start, 2)
    return {**figures, "commits_exact": commits[True], "commits_forced": commits[False], "seconds": seconds}


def _causes(frames: list[FrameScore]) -> dict[str, int]:
    return dict(Counter(frame.cause for frame in frames if frame.j < 0.5).most_common())
