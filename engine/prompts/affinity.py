"""Labels carried from earlier frames to a new one by feature affinity (Eq. 17), in a window around the motion."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from engine.percepts import Percepts
from engine.prompts.config import PromptsConfig
from engine.select.compiled import compiled_sum

CAP = 40.0
"""Largest squared distance told apart: where nothing is alike, all earlier pixels vote the same."""


@dataclass(frozen=True, slots=True)
class Past:
    """One earlier frame that votes on the labels of the new one.

    Attributes:
        features: float32 [h, w, F], `frame_features` of that frame.
        labels: float32 [h, w] in [0, 1], the object there.
        position: float32 [2, h, w], (x, y) in that frame where each pixel of the new frame is expected.
        radius, stride: the window around it, working-grid pixels: every `stride`-th one up to `radius` away.
        share: how much this frame counts against the others.
    """

    features: np.ndarray
    labels: np.ndarray
    position: np.ndarray
    radius: int
    stride: int = 1
    share: float = 1.0


def frame_features(percepts: Percepts, config: PromptsConfig) -> np.ndarray:
    """What is compared between frames: float32 [h, w, F], scaled so that exp(-|x - x'|^2) is the affinity.

    The embedding tells objects of one frame apart and drifts from frame to frame; colour is the steadier of the
    two, so both count. A cue that is missing is left out.
    """
    h, w = percepts.background.shape
    parts = []
    if percepts.embedding is not None:
        parts.append(np.nan_to_num(percepts.embedding).transpose(1, 2, 0) * np.float32(config.embedding_scale))
    if percepts.image is not None:
        lab = cv2.cvtColor(percepts.image, cv2.COLOR_BGR2LAB).astype(np.float32)
        parts.append(lab * (np.float32(config.colour_scale) * np.array([0.5, 1.0, 1.0], np.float32)))
    if not parts:
        return np.zeros((h, w, 1), np.float32)
    return np.ascontiguousarray(np.concatenate(parts, axis=2))


def propagate(features: np.ndarray, pasts: Sequence[Past], wanted: np.ndarray, nearness: float) -> np.ndarray:
    """Labels by the affinity to every earlier frame: v_k(m) = sum_n A_k(n, m) y_k(n), A_k = softmax_n (Eq. 17).

    The affinity of two pixels is -min(|x_n - x_m|^2, 40) - nearness |offset|^2; for features of equal length this
    is the paper's inner product up to factors. Offsets are those of the window: the motion counts as a cue. The
    paper compares with one frame; ours are averaged with weights share_k sqrt(W_k), W_k the softmax's denominator:
    a frame that knows the pixel counts more, but the latest one, always the most alike, does not drown the memory.

    Args:
        features: float32 [h, w, F] of the new frame.
        pasts: earlier frames.
        wanted: bool [h, w], the pixels to label; the others get 0.
        nearness: per squared pixel.

    Returns:
        float32 [h, w] in [0, 1].
    """
    h, w = features.shape[:2]
    votes = np.zeros((h, w), np.float32)
    weights = np.zeros((h, w), np.float32)
    for past in pasts:
        _vote(
            features,
            past.features,
            past.labels,
            past.position,
            wanted,
            past.radius,
            past.stride,
            np.float32(past.share),
            np.float32(nearness),
            votes,
            weights,
        )
    return votes / np.maximum(weights, np.float32(1e-30))


@compiled_sum
def _vote(
    features: np.ndarray,
    past: np.ndarray,
    labels: np.ndarray,
    position: np.ndarray,
    wanted: np.ndarray,
    radius: int,
    stride: int,
    share: np.float32,
    nearness: np.float32,
    votes: np.ndarray,
    weights: np.ndarray,
) -> None:
    h, w, size = features.shape
    for y in range(h):
        for x in range(w):
            if not wanted[y, x]:
                continue
            column = int(np.floor(position[0, y, x] + np.float32(0.5)))
            row = int(np.floor(position[1, y, x] + np.float32(0.5)))
            vote = np.float32(0.0)
            weight = np.float32(0.0)
            for dy in range(-radius, radius + 1, stride):
                v = row + dy
                if v < 0 or v >= h:
                    continue
                for dx in range(-radius, radius + 1, stride):
                    u = column + dx
                    if u < 0 or u >= w:
                        continue
                    apart = np.float32(0.0)
                    for c in range(size):
                        difference = features[y, x, c] - past[v, u, c]
                        apart += difference * difference
                    affinity = np.exp(-min(apart, np.float32(CAP)) - nearness * np.float32(dx * dx + dy * dy))
                    vote += affinity * labels[v, u]
                    weight += affinity
            if weight > np.float32(0.0):
                trust = share * np.sqrt(weight)
                votes[y, x] += trust * vote / weight
                weights[y, x] += trust


@compiled_sum
def nearest(queries: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Squared distance of each query [P, F] to its nearest sample [S, F]: float32 [P], infinite without samples."""
    out = np.full(len(queries), np.float32(np.inf), np.float32)
    size = queries.shape[1]
    for p in range(len(queries)):
        for s in range(len(samples)):
            apart = np.float32(0.0)
            for c in range(size):
                difference = queries[p, c] - samples[s, c]
                apart += difference * difference
            out[p] = min(out[p], apart)
    return out
