"""A detector of another kind in the whole engine: its masks become objects, and what it lacks is not made up."""

import cv2
import numpy as np
import pytest

from engine.config import EngineConfig
from engine.frame import Frame
from engine.perceive.adapters.adapt import adapt
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from tests.engine.adapters.raw import GivenRunner

H, W = 240, 428


def test_a_detected_thing_that_moves_is_one_object_where_it_is() -> None:
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(0, 256, (30, 54, 3), np.uint8), (W, H), interpolation=cv2.INTER_CUBIC)
    patch = cv2.resize(rng.integers(0, 256, (10, 12, 3), np.uint8), (96, 80), interpolation=cv2.INTER_CUBIC)
    mask = np.ones((2, 1, 28, 28), np.float32)
    # The network sees the frame in the upper part of a square; half a thing is proposed beside the whole.
    raw = GivenRunner(
        (224, 224), {"boxes": np.zeros((2, 4)), "scores": np.array([0.9, 0.3], np.float32), "masks": mask}
    )
    pipeline = Pipeline(EngineConfig(), Network.of(adapt(raw, "maskrcnn", "given"), "given", "0"))
    scale = 224 / W
    finals = []
    for index in range(12):
        image, x, y = ground.copy(), 60 + 12 * index, 70
        image[y : y + 80, x : x + 96] = patch
        raw.values["boxes"] = np.array([[x, y, x + 96, y + 80], [x, y, x + 48, y + 80]], np.float32) * scale
        percepts = pipeline.perceive(Frame(image, index, 0, "scene"))
        assert percepts.masks.reshape(len(percepts.masks), -1).mean(axis=1).max() < 0.2
        finals += [
            scene for scene in pipeline.decide(Frame(image, index, 0, "scene"), percepts) if scene.kind == "final"
        ]
    finals += pipeline.flush()
    assert len(finals) == 12
    for scene in finals[2:]:
        assert [thing.id for thing in scene.objects] == [finals[2].objects[0].id]
        x0, y0, x1, y1 = scene.objects[0].box
        x = 60 + 12 * scene.frame_index
        assert (x0, y0, x1, y1) == pytest.approx((x, 70, x + 96, 150), abs=8)
