"""A frame becomes raw percepts: resize, motion, network."""

import time

import cv2
import numpy as np

from engine.config import PerceiveConfig
from engine.frame import Frame
from engine.perceive.background import BackgroundCue
from engine.perceive.flow_network import FlowNetwork
from engine.perceive.motion import FLOW_SIZE, Motion, MotionEstimator, network_features
from engine.perceive.network import Network
from engine.percepts import Percepts


class Perceiver:
    """Holds the previous frame's gray image; everything else is a function of the frame.

    Args:
        network: the model; may be shared by several perceivers of one thread.
        config: thresholds.
        flow: computes the optical flow in place of OpenCV's; may be shared likewise.
        background: supplies the background map in place of the model's; may be shared likewise.
    """

    def __init__(
        self,
        network: Network,
        config: PerceiveConfig,
        flow: FlowNetwork | None = None,
        background: BackgroundCue | None = None,
    ) -> None:
        self._network = network
        self._config = config
        self._motion = MotionEstimator(flow)
        self._background = background
        self._frame_size: tuple[int, ...] | None = None

    def reset(self) -> None:
        """Forget the previous frame."""
        self._motion.reset()
        self._frame_size = None

    def configure(self, config: PerceiveConfig) -> None:
        """Follow other thresholds from the next frame on."""
        self._config = config

    def swap(self, network: Network) -> None:
        """See the next frame with another model; between two frames. Motion goes on: it is not the model's."""
        self._network = network

    def step(self, frame: Frame) -> Percepts:
        """Percepts of `frame` with the network's own candidates; flow None in the first frame of a shot."""
        start = time.perf_counter()
        if frame.image.shape[:2] != self._frame_size:
            self.reset()
            self._frame_size = frame.image.shape[:2]
        small = self._network.fit(frame.image)
        motion = self._motion.step(small, frame.image)
        if motion is not None and motion.mean_difference > self._config.cut_difference:
            motion = None
        features = network_features(motion, self._network.motion_size) if self._network.uses_motion else None
        after_motion = time.perf_counter()
        output = self._network.run(small, features, frame.image.shape[1] / frame.image.shape[0])
        h, w = self._network.grid
        masks = output.masks if output.masks is not None else np.empty((0, h, w), np.float32)
        scores = output.scores if output.scores is not None else np.full(len(masks), 0.5, np.float32)
        background = output.background
        if self._background is not None:
            background = self._background.map(frame.image, motion, (h, w))
        elif background is None:
            background = np.full((h, w), 0.5, np.float32)
        flow, residual = _to_grid(motion, (h, w))
        done = time.perf_counter()
        return Percepts(
            masks=masks > 0,
            scores=scores,
            background=background,
            embedding=output.embedding,
            flow=flow,
            residual=residual,
            logits=masks,
            timing_ms={"motion": (after_motion - start) * 1e3, "network": (done - after_motion) * 1e3},
            image=cv2.resize(small, (w, h), interpolation=cv2.INTER_AREA),
        )


def _to_grid(motion: Motion | None, grid: tuple[int, int]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Flow and residual as float32 [2, h, w] in pixels of the working grid."""
    if motion is None:
        return None, None
    scale = np.array([grid[1] / FLOW_SIZE[1], grid[0] / FLOW_SIZE[0]], np.float32).reshape(2, 1, 1)
    fields = []
    for field in (motion.flow, motion.residual):
        small = cv2.resize(field, grid[::-1], interpolation=cv2.INTER_AREA)
        fields.append(np.ascontiguousarray(small.transpose(2, 0, 1)) * scale)
    return fields[0], fields[1]
