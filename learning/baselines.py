"""Other ways to label unlabelled video, to compare the selection with.

Score threshold, test-time augmentation (Data Distillation: Radosavovic et al. 2018), frame-by-frame tracking, and two
that look at the truth: the best of the same candidates, and the truth itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from learning.average_precision import Answer


@dataclass(frozen=True, slots=True)
class SoftAnswer:
    """Masks of one image before they are cut: probabilities float32 [N, h, w], scores float [N]."""

    probabilities: np.ndarray
    scores: np.ndarray

    def hard(self) -> Answer:
        """The masks cut at one half."""
        return Answer(self.probabilities > 0.5, self.scores)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair of masks: bool [N, h, w], [M, h, w] -> float [N, M]."""
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)), np.float32)
    flat_a, flat_b = a.reshape(len(a), -1).astype(np.float32), b.reshape(len(b), -1).astype(np.float32)
    shared = flat_a @ flat_b.T
    either = flat_a.sum(axis=1)[:, None] + flat_b.sum(axis=1)[None] - shared
    return np.asarray(shared / np.maximum(either, 1))


def _subset(answer: Answer, kept: Sequence[int]) -> Answer:
    chosen = list(kept)
    return Answer(answer.masks[chosen], answer.scores[chosen])


def without_copies(answer: Answer, max_iou: float) -> Answer:
    """Best score first, without masks that overlap a better one by more than `max_iou`."""
    order = np.argsort(-answer.scores, kind="stable")
    iou = overlaps(answer.masks, answer.masks)
    kept: list[int] = []
    for i in order:
        if all(iou[i, k] <= max_iou for k in kept):
            kept.append(int(i))
    return _subset(answer, kept)


def above_threshold(answer: Answer, threshold: float, max_iou: float = 0.5) -> Answer:
    """The masks with a score of at least `threshold`, without copies."""
    return without_copies(_subset(answer, np.flatnonzero(answer.scores >= threshold).tolist()), max_iou)


def best_threshold(answers: Sequence[Answer], truths: Sequence[np.ndarray], min_iou: float = 0.5) -> float:
    """The score threshold with the best F1 on labelled images.

    Args:
        truths: integer [h, w] instances per image, 0 = background.
        min_iou: overlap from which a mask counts as found.
    """
    scores, hits, wanted = [], [], 0
    for answer, truth in zip(answers, truths, strict=True):
        chosen = without_copies(answer, 0.5)
        real = instance_masks(truth)
        wanted += len(real)
        taken = np.zeros(len(real), bool)
        iou = overlaps(chosen.masks, real)
        for i, score in enumerate(chosen.scores):
            free = np.where(taken, 0.0, iou[i])
            hit = bool(len(real)) and bool(free.max() >= min_iou)
            if hit:
                taken[free.argmax()] = True
            scores.append(float(score))
            hits.append(hit)
    if not any(hits):
        return 0.5
    order = np.argsort(-np.array(scores), kind="stable")
    found = np.cumsum(np.array(hits)[order])
    f1 = 2 * found / (np.arange(1, len(order) + 1) + wanted)
    return scores[order[int(f1.argmax())]]


def matching_threshold(answers: Sequence[Answer], per_image: float) -> float:
    """The threshold above which images hold `per_image` masks on average (Data Distillation's rule)."""
    scores = np.sort(np.concatenate([answer.scores for answer in answers]))[::-1]
    count = min(len(scores), max(1, round(per_image * len(answers))))
    return float(scores[count - 1]) if len(scores) else 1.0


def instance_masks(truth: np.ndarray) -> np.ndarray:
    """Integer [h, w] instances as bool [N, h, w]."""
    values = [value for value in np.unique(truth) if value]
    return np.array([truth == value for value in values], bool).reshape(-1, *truth.shape)


def augmented(
    ask: Callable[[np.ndarray], SoftAnswer], image: np.ndarray, sizes: Sequence[tuple[int, int]], min_iou: float = 0.5
) -> Answer:
    """Answers to several sizes of an image and their mirror images, merged.

    Masks of the views that overlap a better-scored one join it: the probabilities of the group are averaged and its
    score is the sum of its best score per view over the number of views, so that what only one view sees scores low.

    Args:
        ask: soft masks of an image uint8 [h, w, 3], at the size of that image.
        sizes: (height, width) of the views.
    """
    h, w = image.shape[:2]
    parts, scores, views = [], [], []
    for number, (height, width) in enumerate(sizes):
        view = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        for mirrored in (False, True):
            found = ask(np.ascontiguousarray(view[:, ::-1]) if mirrored else view)
            for mask in found.probabilities:
                back = cv2.resize(mask, (w, h), interpolation=cv2.INTER_LINEAR)
                parts.append(back[:, ::-1] if mirrored else back)
            scores.extend(found.scores.tolist())
            views.extend([2 * number + int(mirrored)] * len(found.scores))
    if not parts:
        return Answer(np.zeros((0, h, w), bool), np.zeros(0))
    stacked, score, view_of = np.stack(parts), np.array(scores), np.array(views)
    iou = overlaps(stacked > 0.5, stacked > 0.5)
    left = np.ones(len(score), bool)
    masks, merged = [], []
    for i in np.argsort(-score, kind="stable"):
        if not left[i]:
            continue
        group = np.flatnonzero(left & (iou[i] >= min_iou))
        group = group if len(group) else np.array([i])
        left[group] = False
        masks.append(np.average(stacked[group], axis=0, weights=score[group] + 1e-6) > 0.5)
        best = [score[group][view_of[group] == v].max() for v in np.unique(view_of[group])]
        merged.append(float(np.sum(best)) / (2 * len(sizes)))
    order = np.argsort(-np.array(merged), kind="stable")
    return Answer(np.array(masks)[order], np.array(merged)[order])


def tracked(
    answers: Sequence[Answer],
    start: float,
    carry: float,
    min_frames: int,
    move: Callable[[int, np.ndarray], np.ndarray] | None = None,
    min_iou: float = 0.5,
) -> list[Answer]:
    """Frame-by-frame tracking: masks that continue from frame to frame for long enough.

    Each frame's masks are assigned to the tracks of the frame before by overlap (Hungarian); a free mask with a score
    of at least `start` begins a track, one of at least `carry` may continue one.

    Args:
        min_frames: shorter tracks are left out.
        move: masks bool [N, h, w] of frame t - 1 as they will lie in frame t; None leaves them where they are.

    Returns:
        Per frame the masks of the tracks that lasted, each with its track's mean score.
    """
    tracks: list[list[tuple[int, int]]] = []
    open_tracks: list[int] = []
    usable = [above_threshold(answer, carry) for answer in answers]
    for t, answer in enumerate(usable):
        now: list[int] = []
        owner = np.full(len(answer.scores), -1)
        if open_tracks and len(answer.scores):
            past = np.stack([usable[t - 1].masks[tracks[k][-1][1]] for k in open_tracks])
            iou = overlaps(past if move is None else move(t, past), answer.masks)
            for row, column in zip(*linear_sum_assignment(-iou), strict=True):
                if iou[row, column] >= min_iou:
                    owner[column] = open_tracks[row]
        for i, score in enumerate(answer.scores):
            if owner[i] < 0 and score < start:
                continue
            if owner[i] < 0:
                owner[i] = len(tracks)
                tracks.append([])
            tracks[owner[i]].append((t, i))
            now.append(int(owner[i]))
        open_tracks = now
    kept: list[list[tuple[int, float]]] = [[] for _ in answers]
    for members in tracks:
        if len(members) >= min_frames:
            mean = float(np.mean([usable[t].scores[i] for t, i in members]))
            for t, i in members:
                kept[t].append((i, mean))
    return [
        Answer(answer.masks[[i for i, _ in chosen]], np.array([score for _, score in chosen]))
        for answer, chosen in zip(usable, kept, strict=True)
    ]


def selected_by_truth(answer: Answer, truth: np.ndarray, min_iou: float = 0.5) -> Answer:
    """The candidates that match the instances of integer [h, w] best (Hungarian on overlap, as in the paper)."""
    iou = overlaps(answer.masks, instance_masks(truth))
    rows, columns = linear_sum_assignment(-iou)
    return _subset(answer, [int(r) for r, c in zip(rows, columns, strict=True) if iou[r, c] >= min_iou])


def truth_itself(truth: np.ndarray) -> Answer:
    """Every instance of integer [h, w] with score 1."""
    masks = instance_masks(truth)
    return Answer(masks, np.ones(len(masks)))
