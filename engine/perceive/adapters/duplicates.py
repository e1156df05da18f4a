"""Detections without non-maximum suppression say the same thing many times: the best of each, best first."""

import numba
import numpy as np

DUPLICATE_IOU = 0.9
"""Boxes above this are one proposal twice: as for masks, `ProposeConfig.duplicate_iou`, which would drop them later."""

CONSIDERED = 1000
"""Detections looked at, best first; the rest of ten thousand would cost more than it brings."""


def best_distinct(boxes: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """Indices int64 [n <= limit] of the best-scored boxes, near-copies of better ones left out.

    Args:
        boxes: float32 [N, 4] x0, y0, x1, y1.
        scores: float32 [N].
        limit: how many at most.
    """
    if len(scores) > CONSIDERED:
        first = np.argpartition(-scores, CONSIDERED)[:CONSIDERED]
        # Equal scores go by index, whatever the partition did.
        first.sort()
        order = first[np.argsort(-scores[first], kind="stable")]
    else:
        order = np.argsort(-scores, kind="stable")
    kept: np.ndarray = _distinct(np.ascontiguousarray(boxes[order], np.float32), DUPLICATE_IOU, limit)
    return order[kept]


@numba.njit(cache=True, nogil=True)
def _distinct(boxes, duplicate_iou, limit):  # type: ignore[no-untyped-def]
    kept = np.empty(min(limit, len(boxes)), np.int64)
    n = 0
    for i in range(len(boxes)):
        if n == len(kept):
            break
        x0, y0, x1, y1 = boxes[i]
        area = max(x1 - x0, 0.0) * max(y1 - y0, 0.0)
        duplicate = False
        for k in range(n):
            a0, b0, a1, b1 = boxes[kept[k]]
            shared = max(min(x1, a1) - max(x0, a0), 0.0) * max(min(y1, b1) - max(y0, b0), 0.0)
            if shared > duplicate_iou * (area + max(a1 - a0, 0.0) * max(b1 - b0, 0.0) - shared):
                duplicate = True
                break
        if not duplicate:
            kept[n] = i
            n += 1
    return kept[:n]
