"""The best distinct boxes against the obvious way to find them."""

import numpy as np
import pytest

from engine.perceive.adapters.duplicates import CONSIDERED, DUPLICATE_IOU, best_distinct


def obvious(boxes: np.ndarray, scores: np.ndarray, limit: int) -> list[int]:
    def iou(a: np.ndarray, b: np.ndarray) -> float:
        w = min(a[2], b[2]) - max(a[0], b[0])
        h = min(a[3], b[3]) - max(a[1], b[1])
        shared = max(w, 0) * max(h, 0)
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)

    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i))[:CONSIDERED]:
        if all(iou(boxes[i], boxes[k]) <= DUPLICATE_IOU for k in kept):
            kept.append(i)
    return kept[:limit]


@pytest.mark.parametrize(
    ("seed", "count", "limit"), [(0, 0, 5), (1, 1, 5), (2, 300, 40), (3, 300, 1000), (4, 1500, 60)]
)
def test_the_same_boxes_as_the_obvious_way(seed: int, count: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    things = rng.uniform(0, 200, (12, 4)).astype(np.float32)
    things[:, 2:] = things[:, :2] + 20 + things[:, 2:]
    boxes = things[rng.integers(0, 12, count)] + rng.normal(0, 1.5, (count, 4)).astype(np.float32)
    scores = rng.random(count, np.float32).round(3)
    kept = best_distinct(boxes, scores, limit)
    assert kept.tolist() == obvious(boxes, scores, limit)
    assert count < 300 or len(kept) < count
