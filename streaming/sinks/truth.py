"""Scores a run against the built-in scene's exact masks."""

from collections import defaultdict
from typing import Any

import numpy as np

from engine.frame import Frame
from engine.scene import Scene
from streaming.sinks.masks import FOREGROUND_LEVEL


class TruthScore:
    """Compares final label maps with `Frame.truth`, on every second pixel of each axis.

    Definitions: `J_fg`, mean intersection over union of the object-level output with the union of all
    objects; `J_best_id`, mean over true objects of the mean, over the frames that show the object, of the
    overlap with the one published id that matches it best; `J_best`, the same with the best object of
    each frame. First frame left out: nothing has moved yet.
    """

    def __init__(self) -> None:
        self._truth: dict[int, np.ndarray] = {}
        self._foreground = 0.0
        self._frames = 0
        self._visible: dict[int, int] = defaultdict(int)
        self._by_id: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        self._best: dict[int, float] = defaultdict(float)

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        """Keep the frame's truth until its masks are final, score those that are."""
        if frame is not None and frame.truth is not None:
            self._truth[frame.index] = frame.truth[::2, ::2]
        for scene in scenes:
            if scene.kind != "final":
                continue
            truth = self._truth.get(scene.frame_index)
            self._truth = {i: kept for i, kept in self._truth.items() if i > scene.frame_index}
            if truth is not None and scene.frame_index > 0:
                self._score(truth, scene)

    def _score(self, truth: np.ndarray, scene: Scene) -> None:
        labels = scene.labels[::2, ::2]
        ids = {item.label: item.id for item in scene.objects}
        shown = [item.label for item in scene.objects if item.foreground > FOREGROUND_LEVEL]
        predicted, actual = np.isin(labels, shown), truth > 0
        union = np.count_nonzero(predicted | actual)
        self._foreground += np.count_nonzero(predicted & actual) / union if union else 1.0
        self._frames += 1
        for value in np.unique(truth[actual]):
            mask = truth == value
            area = np.count_nonzero(mask)
            if area < 64:
                continue  # a sliver entering the view has no shape to compare
            self._visible[int(value)] += 1
            best = 0.0
            for label, inter in zip(*np.unique(labels[mask], return_counts=True), strict=True):
                if label in ids:
                    iou = inter / (area + np.count_nonzero(labels == label) - inter)
                    self._by_id[int(value)][ids[int(label)]] += iou
                    best = max(best, iou)
            self._best[int(value)] += best

    def close(self) -> None:
        """Nothing to finish."""

    def summary(self) -> dict[str, Any]:
        """{"J_fg", "J_best", "J_best_id", "objects", "frames"}; empty when nothing was scored."""
        if not self._frames:
            return {}
        per_object = [
            (max(self._by_id[value].values(), default=0.0) / count, self._best[value] / count)
            for value, count in self._visible.items()
        ]
        by_id, best = np.mean(per_object, axis=0) if per_object else (0.0, 0.0)
        return {
            "J_fg": round(self._foreground / self._frames, 4),
            "J_best": round(float(best), 4),
            "J_best_id": round(float(by_id), 4),
            "objects": len(per_object),
            "frames": self._frames,
        }
