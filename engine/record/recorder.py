"""Decides which final scenes are kept for learning, and hands them to the writer."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from engine.config import RecordConfig
from engine.evidence import Evidence
from engine.frame import Frame
from engine.record.picture import rows_of
from engine.record.rows import FrameRow, SelectionRow
from engine.record.usefulness import REMEMBERED, Diversity, usefulness
from engine.scene import CommitInfo, Scene

_log = logging.getLogger("unseen.store")

_GLANCE = (64, 36)
_SAME_GRAY_LEVELS = 2.0
"""Mean difference of two glances below which they show the same picture; sensor noise is half of it."""

_SAME_LABELS = 0.9
"""Intersection over union of what is selected, above which the selection is the same."""

HELD_FRAMES = 64
"""Images kept per source while their masks are not final; a larger --lag loses images, not memory."""

_DISK = {"disk_full": "the disk is full", "locked": "another program holds it", "write_error": "it cannot be written"}


class NotKept(Exception):
    """A frame the writer did not take; the text is the cause as `docs/store.md` lists it."""


class RowWriter(Protocol):
    """Where the kept frames go.

    Attributes:
        path: the store, for messages.
        session: uuid hex of the run or of the recording.
    """

    path: Path
    session: str

    def append(self, frame: FrameRow, selections: Sequence[SelectionRow]) -> tuple[int, list[int]]:
        """Take one frame; its id, and the ids of those that made room. Raises `NotKept`."""

    def embeddings(self, count: int) -> list[tuple[int, np.ndarray]]:
        """(frame id, embedding float32 [E]) of the latest selections kept before, oldest first."""

    def close(self) -> None:
        """Nothing follows."""


@dataclass(frozen=True, slots=True)
class _Glance:
    """A picture and its selection, small: gray float32 [36, 64] and bool [36, 64]."""

    gray: np.ndarray
    selected: np.ndarray

    @classmethod
    def at(cls, frame: Frame, scene: Scene) -> "_Glance":
        small = cv2.resize(frame.image, _GLANCE, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(scene.labels, _GLANCE, interpolation=cv2.INTER_NEAREST)
        return cls(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32), labels > 0)

    def is_like(self, other: "_Glance") -> bool:
        union = np.count_nonzero(self.selected | other.selected)
        same = np.count_nonzero(self.selected & other.selected)
        close = float(np.abs(self.gray - other.gray).mean()) < _SAME_GRAY_LEVELS
        return bool(close and same >= _SAME_LABELS * union)


@dataclass(frozen=True, slots=True)
class _Candidate:
    frame: Frame
    before: Frame | None
    scene: Scene
    evidence: Evidence
    commit: CommitInfo
    glance: _Glance
    usefulness: float


@dataclass(slots=True)
class _Lane:
    """One source: images whose masks are not final, and the best frame of the current interval."""

    frames: dict[int, tuple[Frame, Frame | None]] = field(default_factory=dict)
    newest: Frame | None = None
    finals: int = 0
    best: _Candidate | None = None
    kept: _Glance | None = None


class Recorder:
    """Keeps the most useful certified frame of every interval, for several sources at once.

    Args:
        writer: the open store; closed with the recorder.
        config: interval, certificate, picture size.
        held_frames: images kept per source while their masks are not final.

    Attributes:
        kept: frames written.
        causes: final frames not kept, by cause; `evicted` counts kept ones that made room.
    """

    def __init__(self, writer: RowWriter, config: RecordConfig, held_frames: int = HELD_FRAMES) -> None:
        self._writer = writer
        self._config = config
        self._held_frames = held_frames
        self._diversity = Diversity(writer.embeddings(REMEMBERED))
        self._lanes: dict[str, _Lane] = {}
        self._trouble = ""
        self.kept = 0
        self.causes: Counter[str] = Counter()

    def step(self, frame: Frame | None, scenes: list[Scene], *, gap: bool = False) -> None:
        """One processed frame and what it settled; None where scenes are settled without one, at the end of a shot.

        Args:
            gap: frames were lost on the way here, so the one seen last is not the one before this one.
        """
        if frame is not None:
            lane = self._lanes.setdefault(frame.source, _Lane())
            lane.frames[frame.index] = (frame, None if gap else lane.newest)
            lane.newest = frame
            while len(lane.frames) > self._held_frames:
                del lane.frames[next(iter(lane.frames))]
        for scene in scenes:
            if scene.kind == "final":
                self._settle(self._lanes.setdefault(scene.source, _Lane()), scene)

    def _settle(self, lane: _Lane, scene: Scene) -> None:
        images = lane.frames.get(scene.frame_index)
        # Finals come in order: whatever is older was lost on the way here and never comes.
        lane.frames = {i: kept for i, kept in lane.frames.items() if i > scene.frame_index}
        cause = "no_image"
        if images is not None:
            cause = self._weigh(lane, *images, scene)
        if cause:
            self.causes[cause] += 1
        lane.finals += 1
        if lane.finals % self._config.interval == 0:
            self._keep_best(lane)

    def _weigh(self, lane: _Lane, frame: Frame, before: Frame | None, scene: Scene) -> str:
        """Make the scene the best of its interval or say why not."""
        commit, evidence = scene.commit, scene.evidence
        if commit is None or evidence is None:
            return "not_certified"
        if not commit.exact and commit.loss_bound > self._config.max_loss_bound:
            return "not_certified"
        if not scene.objects:
            return "empty"
        glance = _Glance.at(frame, scene)
        if lane.kept is not None and glance.is_like(lane.kept):
            return "too_similar"
        worth = usefulness(scene.objects, _embeddings(scene, evidence), self._diversity)
        best = lane.best
        if best is not None and best.usefulness >= worth:
            return "interval"
        lane.best = _Candidate(frame, before, scene, evidence, commit, glance, worth)
        return "" if best is None else "interval"

    def _keep_best(self, lane: _Lane) -> None:
        best, lane.best = lane.best, None
        if best is None:
            return
        row, selections = rows_of(
            best.frame, best.before, best.scene, best.evidence, best.commit, best.usefulness, self._config
        )
        if not selections:
            self.causes["empty"] += 1
            return
        try:
            frame_id, evicted = self._writer.append(row, selections)
        except NotKept as error:
            self.causes[str(error)] += 1
            self._say(str(error))
            return
        self.kept += 1
        self._say("")
        if evicted:
            self.causes["evicted"] += len(evicted)
            self._diversity.forget(evicted)
        lane.kept = best.glance
        self._diversity.keep(frame_id, _embeddings(best.scene, best.evidence))

    def _say(self, cause: str) -> None:
        """Tell trouble with the disk once, and once more when it is over."""
        trouble = cause if cause in _DISK else ""
        if trouble and not self._trouble:
            _log.warning(
                "%s: %s; frames are not recorded until that changes, the engine goes on",
                self._writer.path,
                _DISK[trouble],
            )
        if self._trouble and not cause:
            lost = sum(self.causes[name] for name in _DISK)
            _log.warning("%s: recording again, %d frames were lost so far", self._writer.path, lost)
        if trouble or not cause:
            self._trouble = trouble

    def summary(self) -> dict[str, object]:
        """What was kept and what was not, for the statistics of a run."""
        return {
            "store": self._writer.path.name,
            "session": self._writer.session,
            "kept": self.kept,
            "not_kept": dict(self.causes),
        }

    def close(self) -> None:
        """Write what the open intervals hold and close the store."""
        for lane in self._lanes.values():
            self._keep_best(lane)
        self._writer.close()


def _embeddings(scene: Scene, evidence: Evidence) -> list[np.ndarray | None]:
    return [evidence.embeddings.get(item.id) for item in scene.objects]
