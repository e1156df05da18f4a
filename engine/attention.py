"""Where looking on would pay: how unsure each mask is, and a ranked list of what deserves another look.

Two different things are worth the attention of a camera that can move. *Novel*: sure over time, unsure in one
image (`Object.novelty`); the network has yet to learn it. *Uncertain*: nobody knows well what or where it is.
Besides, the background map may see something in a place that no selected mask covers: *unexplained*.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from engine.percepts import Percepts
from engine.scene import Look, Object
from engine.select.compiled import compiled

MOST_LOOKS = 5
"""Entries of the list: what a camera can still visit before the scene is another one."""

_LEAST_PRIORITY = 0.1
"""Below, nothing would be learned by looking."""

_STABLE_LOGIT = 1.0
"""Threshold shift of the stability of a mask; sigmoid(1) = 0.73."""

_ESTABLISHED_FRAMES = 10.0
"""Age from which the evidence of the video counts in full."""

_LEAST_REGION = 0.002
"""Fraction of the image; smaller unexplained regions are noise of the background map."""

_FULL_REGION = 0.02
"""Fraction of the image from which an unexplained region's size takes nothing off its priority."""


def video_evidence(foreground: float, age: int) -> float:
    """How sure the video is of an object, in [0, 1]: its saliency over time, in full after ten frames."""
    return foreground * min(1.0, age / _ESTABLISHED_FRAMES)


def stabilities(logits: np.ndarray) -> np.ndarray:
    """How little each mask depends on where its logits are cut: float64 [N] in [0, 1].

    The intersection over union of the masks cut at +1 and at -1 (the stability score of Kirillov et al.,
    *Segment Anything*, 2023, section 5).

    Args:
        logits: float32 [N, h, w].
    """
    return _stabilities(np.ascontiguousarray(logits), _STABLE_LOGIT)


@compiled
def _stabilities(logits: np.ndarray, shift: float) -> np.ndarray:
    count, height, width = logits.shape
    out = np.zeros(count)
    for i in range(count):
        inner = 0
        outer = 0
        for y in range(height):
            for x in range(width):
                inner += logits[i, y, x] > shift
                outer += logits[i, y, x] > -shift
        out[i] = inner / outer if outer else 0.0
    return out


def uncertainty(score: float, evidence: float, stability: float) -> float:
    """1 - sqrt(max(score, evidence) stability): 0 when something surely is there and its border is clear.

    The geometric mean lets neither a sure object with a vague border nor a crisp mask of doubtful worth pass
    for certain. How close the second best answer came is one number per frame and ranks nothing within it:
    it is told separately (`CommitInfo.margin`).
    """
    return float(1.0 - np.sqrt(np.clip(max(score, evidence) * stability, 0.0, 1.0)))


def look_list(
    objects: Sequence[Object],
    percepts: Percepts,
    members: Sequence[int],
    frame_size: tuple[int, int],
    regions: Sequence[Look] | None = None,
) -> tuple[Look, ...]:
    """What deserves another look, the most first, `MOST_LOOKS` at most.

    The priority of an object is its novelty, or its uncertainty x foreground if that is larger; of an unexplained
    region, its mean foreground probability x sqrt(area / 2 % of the image), the root at most 1.

    Args:
        objects: of the scene.
        percepts: what the frame's masks and background are taken from.
        members: the selected candidates.
        frame_size: (H, W), the unit of the boxes.
        regions: what `unexplained` found, where that is known already.
    """
    looks = list(unexplained(percepts, members, frame_size) if regions is None else regions)
    for item in objects:
        unsure = item.uncertainty * item.foreground
        reason = "novel" if item.novelty >= unsure else "uncertain"
        looks.append(Look(item.id, item.box, reason, max(item.novelty, unsure)))
    looks = [look for look in looks if look.priority >= _LEAST_PRIORITY]
    return tuple(sorted(looks, key=lambda look: -look.priority)[:MOST_LOOKS])


def unexplained(percepts: Percepts, members: Sequence[int], frame_size: tuple[int, int]) -> list[Look]:
    """Connected foreground that no selected mask covers; borders of selected masks do not count.

    Args:
        percepts, members, frame_size: as of `look_list`.
    """
    open_ = (percepts.background < 0.5).astype(np.uint8)
    if len(members):
        covered = np.asarray(percepts.masks[list(members)].any(axis=0), np.uint8)
        open_[cv2.dilate(covered, np.ones((3, 3), np.uint8)) > 0] = 0
    if not open_.any():
        return []
    count, labels, stats, _ = cv2.connectedComponentsWithStats(open_, connectivity=4)
    h, w = open_.shape
    sy, sx = frame_size[0] / h, frame_size[1] / w
    sums = np.bincount(labels.ravel(), weights=1.0 - percepts.background.ravel(), minlength=count)
    looks = []
    for label in range(1, count):
        x, y, width, height, area = (int(v) for v in stats[label])
        share = area / (h * w)
        if share < _LEAST_REGION:
            continue
        box = (int(x * sx), int(y * sy), round((x + width) * sx), round((y + height) * sy))
        priority = float(sums[label] / area) * min(1.0, (share / _FULL_REGION) ** 0.5)
        looks.append(Look(None, box, "unexplained", min(priority, 1.0)))
    return looks
