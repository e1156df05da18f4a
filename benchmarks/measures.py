"""How well masks agree: region overlap J, boundary measure F, and both over a sequence."""

import math
from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np

BOUNDARY_TOLERANCE = 0.008
"""Distance at which contours still agree, as a fraction of the image diagonal (DAVIS)."""


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool maps (J); 1 when both are empty (the DAVIS convention)."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def contour(mask: np.ndarray) -> np.ndarray:
    """Contour pixels of a bool [H, W]: those that differ from a right, lower or lower right neighbour."""
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def boundary_f(truth: np.ndarray, output: np.ndarray) -> float:
    """F of the contours of two bool [H, W] maps: harmonic mean of contour precision and recall.

    A contour pixel is right when the other contour passes within 0.8 % of the diagonal, rounded up to
    pixels; distance is Euclidean, which equals dilating the other contour with a disk. Two maps without
    contour agree (1), a contour against none does not (0).
    """
    ours, theirs = contour(output), contour(truth)
    n_ours, n_theirs = np.count_nonzero(ours), np.count_nonzero(theirs)
    if n_ours == 0 or n_theirs == 0:
        return float(n_ours == n_theirs)
    radius_px = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*truth.shape))
    precision = np.count_nonzero(ours & _near(theirs, radius_px)) / n_ours
    recall = np.count_nonzero(theirs & _near(ours, radius_px)) / n_theirs
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near(edge: np.ndarray, radius_px: int) -> np.ndarray:
    distance = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance <= radius_px + 1e-3


@dataclass(frozen=True, slots=True)
class FrameScore:
    """How one frame's output covers its annotation.

    Attributes:
        index: frame.
        j, f: overlap and boundary measure of the foreground output; f is nan where it was not asked for.
        precision, recall: of the foreground output's pixels; 1 where there is nothing to get wrong.
        best_id: highest overlap of one published id, chosen with the annotation.
        output_px: size of the foreground output.
    """

    index: int
    j: float
    f: float
    precision: float
    recall: float
    best_id: float
    output_px: int

    @property
    def cause(self) -> str:
        """What mostly kept J down, from the figures alone.

        "found, not foreground": some id fits far better than the foreground output, so the object was
        found and then called background. "nothing found": the output is empty. "split": the union fits,
        no single id does. Else "missed" when recall is below precision and "leaked" when it is not.
        """
        if self.best_id >= self.j + 0.2:
            return "found, not foreground"
        if self.output_px == 0:
            return "nothing found"
        if self.j >= 0.25 and self.best_id < 0.6 * self.j:
            return "split"
        return "missed" if self.recall < self.precision else "leaked"


class SequenceScore:
    """J_fg, F_fg and J_best_id of one sequence; show every frame but the first and the last.

    J_fg: mean overlap of the foreground output with the merged annotation. F_fg: mean boundary measure of
    the same. J_best_id: mean overlap of the one id that matches best over the whole sequence, 0 in frames
    where it is absent.
    """

    def __init__(self) -> None:
        self.frames: list[FrameScore] = []
        self._by_id: dict[int, float] = defaultdict(float)

    def add(
        self,
        index: int,
        truth: np.ndarray,
        foreground: np.ndarray,
        ids: np.ndarray,
        valid: np.ndarray | None = None,
    ) -> FrameScore:
        """One frame.

        Args:
            index: of the frame.
            truth: bool [H, W] merged annotation.
            foreground: bool [H, W] foreground output.
            ids: integer [H, W], 0 is none.
            valid: bool [H, W]; other pixels count nowhere, and F, which needs whole contours, is nan.
        """
        if valid is not None:
            truth, foreground, ids = truth & valid, foreground & valid, np.where(valid, ids, 0)
        hit, n_truth, n_output = (int(np.count_nonzero(m)) for m in (truth & foreground, truth, foreground))
        areas = np.bincount(ids.ravel())
        hits = np.bincount(ids[truth], minlength=len(areas))
        overlaps = {int(v): hits[v] / (areas[v] + n_truth - hits[v]) for v in np.flatnonzero(areas) if v}
        for value, overlap in overlaps.items():
            self._by_id[value] += overlap
        union = n_truth + n_output - hit
        score = FrameScore(
            index,
            j=hit / union if union else 1.0,
            f=boundary_f(truth, foreground) if valid is None else math.nan,
            precision=hit / n_output if n_output else 1.0,
            recall=hit / n_truth if n_truth else 1.0,
            best_id=max(overlaps.values(), default=0.0),
            output_px=n_output,
        )
        self.frames.append(score)
        return score

    @property
    def j_fg(self) -> float:
        """Mean J of the foreground output."""
        return float(np.mean([frame.j for frame in self.frames])) if self.frames else 0.0

    @property
    def f_fg(self) -> float:
        """Mean F of the foreground output."""
        return float(np.mean([frame.f for frame in self.frames])) if self.frames else 0.0

    @property
    def j_best_id(self) -> float:
        """Mean J of the best single id."""
        return max(self._by_id.values(), default=0.0) / len(self.frames) if self.frames else 0.0


class InstanceScore:
    """How well each annotated instance is met over a sequence; first and last frame are the caller's to leave out.

    Every figure is the mean over instances of the mean over the frames in which the instance is annotated.
    best_candidate: the best of the candidates of the network and the foreground map, before the seeds; the seeds
    add candidates and tracked masks later, so that a published mask may be better. best_mask: the best published
    mask of the frame, whatever its id. best_id: the one published id that fits this instance best over the whole
    sequence, 0 where it is absent; two instances may choose the same id. All three choose with the annotation.
    """

    def __init__(self) -> None:
        self._frames: dict[int, int] = defaultdict(int)
        self._candidate: dict[int, float] = defaultdict(float)
        self._mask: dict[int, float] = defaultdict(float)
        self._by_id: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, truth: np.ndarray, candidates: np.ndarray, ids: np.ndarray) -> None:
        """One frame: integer [H, W] instances, bool [N, H, W] candidates, integer [H, W] published ids."""
        instances = [int(v) for v in np.unique(truth) if v]
        masks = np.stack([truth == v for v in instances]) if instances else np.empty((0, *truth.shape), bool)
        areas = np.bincount(ids.ravel())
        published = [int(v) for v in np.flatnonzero(areas) if v]
        by_candidate = pairwise_iou(masks, candidates)
        hits = np.array([np.bincount(ids[mask], minlength=len(areas))[published] for mask in masks])
        sizes = masks.reshape(len(masks), -1).sum(axis=1)
        by_id = hits / (sizes[:, None] + areas[published][None] - hits) if instances else np.empty((0, len(published)))
        for row, instance in enumerate(instances):
            self._frames[instance] += 1
            self._candidate[instance] += by_candidate[row].max(initial=0.0)
            self._mask[instance] += by_id[row].max(initial=0.0)
            for column, value in enumerate(published):
                self._by_id[instance][value] += by_id[row, column]

    def per_instance(self) -> list[dict[str, float | int]]:
        """The figures of every instance, ascending id."""
        return [
            {
                "instance": instance,
                "frames": count,
                "best_candidate": self._candidate[instance] / count,
                "best_mask": self._mask[instance] / count,
                "best_id": max(self._by_id[instance].values(), default=0.0) / count,
            }
            for instance, count in sorted(self._frames.items())
        ]

    def means(self) -> dict[str, float]:
        """Mean of each figure over the instances; zeros without any."""
        rows = self.per_instance()
        names = ("best_candidate", "best_mask", "best_id")
        return {name: float(np.mean([row[name] for row in rows])) if rows else 0.0 for name in names}


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Overlap of every mask of bool [M, H, W] with every mask of bool [N, H, W]: float64 [M, N]."""
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    # float32 sums of zeros and ones are exact below 2**24 pixels.
    flat_a, flat_b = (m.reshape(len(m), -1).astype(np.float32) for m in (a, b))
    shared = (flat_a @ flat_b.T).astype(np.float64)
    union = flat_a.sum(axis=1)[:, None] + flat_b.sum(axis=1)[None] - shared
    return np.where(union > 0, shared / np.maximum(union, 1.0), 1.0)
