"""Labels for the unlabelled videos, by every method; the truth is looked at only where a method says so."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.unseen.detector import detections, soft_masks
from benchmarks.unseen.labels import (
    ENGINES,
    Watched,
    believed,
    doubtful_pixels,
    enlarged,
    label_map,
    moving_pixels,
    scene_labels,
    watch,
)
from benchmarks.unseen.plan import SIZE, Plan
from benchmarks.unseen.training import IGNORED_ID, LabelledFrame
from benchmarks.unseen.world import World
from engine.perceive.network import Network
from engine.percepts import Percepts
from learning.average_precision import Answer
from learning.baselines import (
    above_threshold,
    augmented,
    best_threshold,
    instance_masks,
    matching_threshold,
    overlaps,
    selected_by_truth,
    tracked,
    truth_itself,
)
from learning.networks.compact import Compact

DISTILLATION = "Data Distillation"

METHODS = (
    "score threshold",
    DISTILLATION,
    "frame-by-frame tracking",
    *ENGINES,
    "selection by truth",
    "training on truth",
)

_VIEWS = ((128, 224), (160, 288), (192, 352))
"""Sizes of Data Distillation's views, multiples of the network's stride."""

_TRACK_FRAMES = 5
"""Shorter tracks are left out; a fifth of a video."""

_CARRY = 0.5
"""Part of the score threshold with which a track may go on."""


def _candidates(percepts: Percepts) -> Answer:
    masks = np.array([enlarged(logits) > 0 for logits in percepts.logits], bool)
    return Answer(masks.reshape(-1, *SIZE), percepts.scores)


def _moved(watched: Sequence[Watched], t: int, masks: np.ndarray) -> np.ndarray:
    """Masks bool [N, h, w] of frame t - 1 carried along the flow into frame t."""
    flow = watched[t].percepts.flow
    if flow is None:
        return masks
    grid_width = flow.shape[2]
    x, y = (enlarged(part) * (SIZE[1] / grid_width) for part in flow)
    columns, rows = np.meshgrid(np.arange(SIZE[1], dtype=np.float32), np.arange(SIZE[0], dtype=np.float32))
    carried = [cv2.remap(m.astype(np.uint8), columns + x, rows + y, cv2.INTER_NEAREST) > 0 for m in masks]
    return np.array(carried, bool).reshape(-1, *SIZE)


@dataclass(frozen=True)
class Thresholds:
    """Operating points of the baselines, chosen on stills of the seen family.

    Attributes:
        score: best F1 of the base on them.
        per_image: objects that they hold on average.
    """

    score: float
    per_image: float


def choose_thresholds(network: Compact, world: World) -> Thresholds:
    """Operating points from the check stills, which neither train nor are scored."""
    check = world.pictures("check")
    answers = [detections(network, image) for image in check.images]
    counts = [len(instance_masks(ids)) for ids in check.ids]
    return Thresholds(best_threshold(answers, list(check.ids)), float(np.mean(counts)))


class Miner:
    """Labels every `label_every`-th frame of the videos by every method; one file per video and pass.

    Args:
        base: the trained base; model: the file of it that the engine loads.
    """

    def __init__(self, folder: Path, world: World, plan: Plan, base: Compact, model: Path) -> None:
        self._folder, self._world, self._plan, self._base, self._model = folder, world, plan, base, model
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"labels_{number:03d}.npz"

    def _chosen(self) -> range:
        # The first frames have no motion yet.
        return range(self._plan.label_every - 1, self._plan.frames, self._plan.label_every)

    def missing(self) -> list[int]:
        """Videos without labels."""
        return [n for n in range(self._plan.videos) if not self._path(n).exists()]

    def mine(self, numbers: Sequence[int]) -> None:
        """Make the labels of these videos."""
        if not numbers:
            return
        network = Network(self._model, threads=1)
        thresholds = choose_thresholds(self._base, self._world)
        for number in numbers:
            labels = self._label(number, network, thresholds)
            partial = self._path(number).with_suffix(".part")
            with partial.open("wb") as file:
                np.savez_compressed(file, **labels)
            os.replace(partial, self._path(number))

    def _label(self, number: int, network: Network, thresholds: Thresholds) -> dict[str, np.ndarray]:
        """Ids uint8 [chosen frames, h, w] by method; a frame without certificate is open everywhere."""
        video = self._world.pictures("video", number)
        watched = watch(list(video.images), network)
        found = [detections(self._base, image) for image in video.images]
        tracks = tracked(
            found,
            thresholds.score,
            _CARRY * thresholds.score,
            min(_TRACK_FRAMES, self._plan.frames),
            lambda t, masks: _moved(watched, t, masks),
        )
        chosen = self._chosen()
        distilled = [augmented(lambda view: soft_masks(self._base, view), video.images[t], _VIEWS) for t in chosen]
        labels: dict[str, list[np.ndarray]] = {name: [] for name in METHODS if name != DISTILLATION}
        doubts = []
        for t in chosen:
            doubtful = doubtful_pixels(watched[t].percepts)
            doubts.append(doubtful)
            unclear = doubtful | moving_pixels(watched[t].percepts)
            for name, scene in watched[t].finals.items():
                commit = scene.commit
                sure = commit is not None and (commit.exact or commit.loss_bound <= self._plan.max_loss_bound)
                if sure:
                    labels[name].append(scene_labels(scene, believed(watched, t, name), unclear))
                else:
                    labels[name].append(np.full(SIZE, IGNORED_ID, np.uint8))
            labels["score threshold"].append(label_map(above_threshold(found[t], thresholds.score), doubtful))
            labels["frame-by-frame tracking"].append(label_map(tracks[t], unclear))
            best = selected_by_truth(_candidates(watched[t].percepts), video.ids[t])
            labels["selection by truth"].append(label_map(best, unclear))
            labels["training on truth"].append(label_map(truth_itself(video.ids[t]), None))
        stacked = {name: np.stack(values) for name, values in labels.items()}
        return {**stacked, **_packed(distilled), "open": np.stack(doubts)}

    def labels(self, method: str) -> list[LabelledFrame]:
        """Labelled frames of a method that hold at least one object."""
        stored = [self._read(number) for number in range(self._plan.videos)]
        ids = self._distilled(stored) if method == DISTILLATION else [labels[method] for labels in stored]
        frames = []
        for number, per_video in enumerate(ids):
            images = self._world.pictures("video", number).images
            for t, labelled in zip(self._chosen(), per_video, strict=True):
                if ((labelled > 0) & (labelled < IGNORED_ID)).any():
                    frames.append(LabelledFrame(images[t], labelled))
        return frames

    def _read(self, number: int) -> dict[str, np.ndarray]:
        with np.load(self._path(number)) as stored:
            return dict(stored)

    def _distilled(self, stored: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
        """Data Distillation's labels: its threshold needs the answers to all videos."""
        answers = [_unpacked(labels) for labels in stored]
        per_image = choose_thresholds(self._base, self._world).per_image
        threshold = matching_threshold([a for video in answers for a in video], per_image)
        return [
            np.stack(
                [
                    label_map(above_threshold(answer, threshold), doubtful)
                    for answer, doubtful in zip(video, labels["open"], strict=True)
                ]
            )
            for video, labels in zip(answers, stored, strict=True)
        ]

    def quality(self, method: str) -> dict[str, float]:
        """How good the labels of a method are: frames, objects, and the share of them that is an object (IoU 0.5)."""
        truths = {}
        for number in range(self._plan.videos):
            video = self._world.pictures("video", number)
            truths |= {video.images[t].tobytes(): video.ids[t] for t in self._chosen()}
        right, claimed, ious = 0, 0, []
        frames = self.labels(method)
        for frame in frames:
            masks = instance_masks(np.where(frame.ids == IGNORED_ID, 0, frame.ids))
            best = overlaps(masks, instance_masks(truths[frame.image.tobytes()])).max(axis=1, initial=0.0)
            claimed += len(masks)
            right += int((best >= 0.5).sum())
            ious += best[best >= 0.5].tolist()
        wanted = sum(len(instance_masks(ids)) for ids in truths.values())
        return {
            "frames": len(frames),
            "objects": claimed,
            "precision": right / max(1, claimed),
            "recall": right / max(1, wanted),
            "mean_iou": float(np.mean(ious)) if ious else 0.0,
        }


def _packed(answers: Sequence[Answer]) -> dict[str, np.ndarray]:
    return {
        "distilled_masks": np.packbits(np.concatenate([a.masks for a in answers]), axis=2),
        "distilled_scores": np.concatenate([a.scores for a in answers]),
        "distilled_counts": np.array([len(a.scores) for a in answers]),
    }


def _unpacked(labels: Mapping[str, np.ndarray]) -> list[Answer]:
    cuts = np.cumsum(labels["distilled_counts"])[:-1]
    masks = np.unpackbits(labels["distilled_masks"], axis=2, count=SIZE[1]).astype(bool)
    return [
        Answer(m, s) for m, s in zip(np.split(masks, cuts), np.split(labels["distilled_scores"], cuts), strict=True)
    ]
