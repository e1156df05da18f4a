"""Proof that an exported model still gives the masks of the network it came from."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from engine.config import EngineConfig
from engine.errors import ModelError
from engine.perceive.backends.runner import Runner
from engine.perceive.contract import OUTPUTS
from engine.percepts import Percepts
from engine.propose.candidates import propose
from engine.select.selection import Selection
from export.frames import NetworkInput

_TOP = 5
"""Masks per frame that are compared: the best-scored ones, those the engine will choose from."""

_MIN_SCORE = 0.05
_SAME_IOU = 0.5


@dataclass(frozen=True)
class Limits:
    """What an export may cost; fields as in `Parity`."""

    mask_iou: float
    background_error: float
    embedding_error: float
    rank: float
    selection: float


LIMITS = {
    "onnx": Limits(mask_iou=0.99, background_error=0.002, embedding_error=0.01, rank=0.98, selection=0.98),
    "half": Limits(mask_iou=0.97, background_error=0.01, embedding_error=0.05, rank=0.9, selection=0.93),
    "int8": Limits(mask_iou=0.97, background_error=0.01, embedding_error=0.1, rank=0.85, selection=0.9),
}
"""fp32 differs by rounding only; half precision and INT8 may move borders by a fraction of a cell."""


@dataclass(frozen=True)
class Parity:
    """How well one model agrees with another.

    Attributes:
        mask_iou: mean IoU of a top mask of the reference with its best match.
        background_error: mean absolute difference of the background probability.
        embedding_error: norm of the embeddings' difference over the norm of the reference's.
        rank: mean Spearman correlation of the scores of matched masks.
        selection: 2 x shared / (objects of both), over the objects the engine selects in each frame taken alone;
            shared at IoU 0.5.
        frames, masks: how many were compared.
    """

    mask_iou: float
    background_error: float
    embedding_error: float
    rank: float
    selection: float
    frames: int
    masks: int

    def __str__(self) -> str:
        return (
            f"mask IoU {self.mask_iou:.3f}, background error {self.background_error:.4f}, "
            f"embedding error {self.embedding_error:.3f}, score rank {self.rank:.3f}, "
            f"selection {self.selection:.3f} ({self.frames} frames, {self.masks} masks)"
        )

    def rows(self, limits: Limits) -> list[tuple[str, float, str, bool]]:
        """(quantity, measured, limit in words, whether it holds) of every quantity."""
        least = [("mask IoU", "mask_iou"), ("score rank agreement", "rank"), ("selection agreement", "selection")]
        most = [("background error", "background_error"), ("embedding error", "embedding_error")]
        rows = []
        for label, name in least:
            measured, limit = getattr(self, name), getattr(limits, name)
            rows.append((label, measured, f"at least {limit}", measured >= limit))
        for label, name in most:
            measured, limit = getattr(self, name), getattr(limits, name)
            rows.append((label, measured, f"at most {limit}", measured <= limit))
        return rows


class Comparison:
    """Collects the agreement of two models, frame by frame."""

    def __init__(self) -> None:
        self._ious: list[float] = []
        self._ranks: list[float] = []
        self._background: list[float] = []
        self._embedding = np.zeros(2)
        self._selected = np.zeros(2, np.int64)
        self._config = EngineConfig()

    def add(self, reference: dict[str, np.ndarray], candidate: dict[str, np.ndarray]) -> None:
        """One frame: outputs of both as the model contract names them, batch 1."""
        self._background.append(float(np.abs(reference["background"] - candidate["background"]).mean()))
        difference = candidate["embedding"] - reference["embedding"]
        self._embedding += [float(np.linalg.norm(difference)) ** 2, float(np.linalg.norm(reference["embedding"])) ** 2]
        self._compare_masks(reference, candidate)
        chosen = [self._select(output) for output in (reference, candidate)]
        shared = _matches(*chosen)
        self._selected += [2 * shared, len(chosen[0]) + len(chosen[1])]

    def result(self) -> Parity:
        """The agreement so far; 1 where nothing was to be compared."""
        mean_iou, mean_rank = (float(np.mean(v)) if v else 1.0 for v in (self._ious, self._ranks))
        shared, selected = self._selected
        wrong, norm = self._embedding
        return Parity(
            mask_iou=mean_iou,
            background_error=float(np.mean(self._background)),
            embedding_error=float(np.sqrt(wrong / norm)) if norm else 0.0,
            rank=mean_rank,
            selection=float(shared / selected) if selected else 1.0,
            frames=len(self._background),
            masks=len(self._ious),
        )

    def _compare_masks(self, reference: dict[str, np.ndarray], candidate: dict[str, np.ndarray]) -> None:
        scores = reference["scores"][0]
        top = np.argsort(-scores)[:_TOP]
        truth = reference["masks"][0][top] > 0
        keep = (scores[top] >= _MIN_SCORE) & truth.any(axis=(1, 2))
        if not keep.any():
            return
        overlap = _iou(truth[keep], candidate["masks"][0] > 0)
        match = overlap.argmax(axis=1)
        self._ious.extend(overlap.max(axis=1).tolist())
        if keep.sum() >= 3:
            a, b = _ranks(scores[top][keep]), _ranks(candidate["scores"][0][match])
            self._ranks.append(float(np.corrcoef(a, b)[0, 1]))

    def _select(self, output: dict[str, np.ndarray]) -> np.ndarray:
        """The masks the engine chooses in this frame alone, bool [n, h, w]."""
        raw = Percepts(
            masks=output["masks"][0] > 0,
            scores=output["scores"][0],
            background=output["background"][0, 0],
            embedding=None,
            flow=None,
            residual=None,
            logits=output["masks"][0],
        )
        percepts = propose(raw, self._config.propose)
        selection = Selection(self._config.select)
        commits = [*selection.step(percepts, 0).commits, *selection.flush()]
        chosen: np.ndarray = percepts.masks[list(commits[0].members)]
        return chosen


def measure(reference: Runner, candidate: Runner, frames: Iterable[NetworkInput]) -> Parity:
    """Run both models on the same frames."""
    comparison = Comparison()
    for frame in frames:
        feeds = frame.feeds()
        expected = reference.run({name: feeds[name] for name in reference.inputs}, OUTPUTS)
        comparison.add(expected, candidate.run({name: feeds[name] for name in candidate.inputs}, OUTPUTS))
    return comparison.result()


def check(parity: Parity, limits: Limits, target: str) -> None:
    """Raise when a figure is beyond its limit.

    Raises:
        ModelError: one line with the measured value and the limit.
    """
    advice = "calibrate on more frames (--data), keep layers in fp32 (--keep) or export with --to onnx"
    for label, measured, limit, holds in parity.rows(limits):
        if not holds:
            raise ModelError(
                f"{target} export differs from its network: {label} {measured:.4f}, must be {limit}; {advice}"
            )


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.reshape(len(a), -1).astype(np.float32), b.reshape(len(b), -1).astype(np.float32)
    both = a @ b.T
    return both / np.maximum(a.sum(1)[:, None] + b.sum(1)[None] - both, 1)


def _matches(a: np.ndarray, b: np.ndarray) -> int:
    """Pairs with IoU above a half: as both sets hold masks that hardly overlap, no mask is in two pairs."""
    return int((_iou(a, b) > _SAME_IOU).sum()) if len(a) and len(b) else 0


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)
