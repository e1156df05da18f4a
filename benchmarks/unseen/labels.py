"""What the engines say about a video, and which pixels of it become objects, background or nobody's business."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from benchmarks.unseen.plan import SIZE
from benchmarks.unseen.training import IGNORED_ID
from engine.config import EngineConfig
from engine.frame import Frame
from engine.perceive.network import Network
from engine.percepts import Percepts
from engine.pipeline import Pipeline
from engine.scene import Object, Scene
from learning.average_precision import Answer

OURS = "ours"

ENGINES: Mapping[str, Mapping[str, float]] = {
    OURS: {},
    "background": {"lambda_flow": 0.0, "lambda_consistency": 0.0, "conflict_tolerance": 0.99},
    "background + no overlap": {"lambda_flow": 0.0, "lambda_consistency": 0.0},
    "background + no overlap + flow": {"lambda_consistency": 0.0},
    "all but the score prior": {"lambda_score": 0.0},
}
"""Engines that label the videos: the shipped one, Table 4's, and one without what we added to Eq. 2."""

_RUN, _RUN_REACH = 4, 3
_LABEL_SCORE, _PLAIN_SCORE, _LABEL_STEP_PX = 0.4, 0.6, 0.1
"""An object that an engine selected becomes a label if its identity is in four of the seven frames about it, its score
is not below the first value, and it scores above the second or moves against its surroundings by so many cells."""

_OPEN_FOREGROUND = 0.2
_OPEN_SCORE = 0.3
_OPEN_FLOW_PX = 0.1
_OPEN_FLOW_CONTRAST = 3.0
"""What no mask covers is open, not background: from this foreground probability, under a candidate this sure, or where
the flow without the camera's is this many cells and this many times the frame's median."""


@dataclass(frozen=True)
class Watched:
    """One frame of a video with what the engines said about it."""

    percepts: Percepts
    finals: dict[str, Scene]


def engine_config(changes: Mapping[str, float]) -> EngineConfig:
    """The default engine with changes to its selection."""
    config = EngineConfig()
    return dataclasses.replace(config, select=dataclasses.replace(config.select, **changes))  # type: ignore[arg-type]


def watch(images: Sequence[np.ndarray], network: Network) -> list[Watched]:
    """Run every engine over one video; they share one look at each frame."""
    pipelines = {name: Pipeline(engine_config(changes), network) for name, changes in ENGINES.items()}
    percepts: list[Percepts] = []
    finals: dict[str, dict[int, Scene]] = {name: {} for name in ENGINES}
    for index, image in enumerate(images):
        frame = Frame(image, index, index, "video")
        percepts.append(pipelines[OURS].perceive(frame))
        for name, pipeline in pipelines.items():
            scenes = pipeline.decide(frame, percepts[-1])
            finals[name] |= {s.frame_index: s for s in scenes if s.kind == "final"}
    for name, pipeline in pipelines.items():
        finals[name] |= {s.frame_index: s for s in pipeline.flush()}
    return [Watched(p, {name: finals[name][i] for name in ENGINES}) for i, p in enumerate(percepts)]


def enlarged(values: np.ndarray) -> np.ndarray:
    """A map [h, w] of the working grid at picture size."""
    return cv2.resize(np.asarray(values, np.float32), SIZE[::-1], interpolation=cv2.INTER_LINEAR)


def doubtful_pixels(percepts: Percepts) -> np.ndarray:
    """Where the network half believes in an object, bool [h, w] at picture size."""
    doubted = np.any(percepts.masks[percepts.scores >= _OPEN_SCORE], axis=0)
    return np.asarray((enlarged(1 - percepts.background) >= _OPEN_FOREGROUND) | (enlarged(doubted) > 0))


def moving_pixels(percepts: Percepts) -> np.ndarray:
    """Where something moves against the camera, bool [h, w] at picture size."""
    if percepts.residual is None:
        return np.zeros(SIZE, bool)
    speed = np.hypot(*percepts.residual)
    return np.asarray(enlarged(speed) >= max(_OPEN_FLOW_PX, _OPEN_FLOW_CONTRAST * float(np.median(speed))))


def label_map(answer: Answer, doubtful: np.ndarray | None) -> np.ndarray:
    """Ids uint8 [h, w] of masks, the better-scored in front; uncovered pixels of `doubtful` are open."""
    ids = np.zeros(SIZE, np.uint8)
    if doubtful is not None:
        ids[doubtful] = IGNORED_ID
    order = np.argsort(-answer.scores, kind="stable")[: IGNORED_ID - 1]
    for number, index in reversed(list(enumerate(order, 1))):
        ids[answer.masks[index]] = number
    return ids


def motion_step(mask: np.ndarray, residual: np.ndarray) -> float:
    """How differently from its surroundings a mask moves, in cells per frame.

    Args:
        mask: bool [h, w] on the working grid.
        residual: float32 [2, h, w], flow without the camera's.
    """
    # Flow bleeds over borders: look past the nearest cell.
    near, far = (cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) for side in (3, 9))
    ring = (far > 0) & (near == 0)
    if not mask.any() or not ring.any():
        return 0.0
    return float(np.hypot(*(residual[:, mask].mean(axis=1) - np.median(residual[:, ring], axis=1))))


def believed(watched: Sequence[Watched], t: int, engine: str) -> list[Object]:
    """The objects an engine selected in frame `t` that become labels.

    Under one identity for long enough, not quite against the network's own opinion, and either moving apart from their
    surroundings or plain to the network. What is not believed stays open.
    """
    around = range(max(0, t - _RUN_REACH), min(len(watched), t + _RUN_REACH + 1))
    seen = Counter(item.id for i in around for item in watched[i].finals[engine].objects)
    scene, percepts = watched[t].finals[engine], watched[t].percepts
    grid = percepts.background.shape
    out = []
    for item in scene.objects:
        if seen[item.id] < _RUN or item.score < _LABEL_SCORE:
            continue
        share = cv2.resize((scene.labels == item.label).astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
        still = percepts.residual is None or motion_step(share > 0.5, percepts.residual) < _LABEL_STEP_PX
        if item.score >= _PLAIN_SCORE or not still:
            out.append(item)
    return out


def scene_labels(scene: Scene, chosen: Sequence[Object], doubtful: np.ndarray) -> np.ndarray:
    """`label_map` of the chosen objects of a scene; its other objects are open."""
    masks = np.array([scene.labels == item.label for item in chosen], bool).reshape(-1, *SIZE)
    scores = np.array([item.score for item in chosen])
    return label_map(Answer(masks, scores), doubtful | (scene.labels > 0))
