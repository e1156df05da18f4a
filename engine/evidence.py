"""What a final scene was decided on: kept by reference, worked out only where somebody records it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from engine.percepts import Percepts


@dataclass(frozen=True, slots=True)
class Evidence:
    """Cues of one frame behind its final scene; h x w is the working grid.

    Attributes:
        masks: bool [N, h, w], all candidates. scores: float32 [N]. members: those selected.
        ids: identity of each member.
        background: float32 [h, w], probability of background.
        flow, residual: float32 [2, h, w], with and without the camera's motion, grid pixels; None at a cut.
        embeddings: mean embedding float32 [E] of each identity over its mask and time, where there is one.
        model_name, model_hash, generation: the network that saw the frame.
    """

    masks: np.ndarray
    scores: np.ndarray
    members: tuple[int, ...]
    ids: tuple[int, ...]
    background: np.ndarray
    flow: np.ndarray | None
    residual: np.ndarray | None
    embeddings: Mapping[int, np.ndarray]
    model_name: str
    model_hash: str
    generation: int

    @classmethod
    def of(
        cls,
        percepts: Percepts,
        members: Sequence[int],
        ids: Sequence[int],
        embeddings: Mapping[int, np.ndarray],
        model: tuple[str, str, int],
    ) -> "Evidence":
        """The evidence in `percepts`, sharing its arrays (but not the logits, the largest of them)."""
        return cls(
            masks=percepts.masks,
            scores=percepts.scores,
            members=tuple(members),
            ids=tuple(ids),
            background=percepts.background,
            flow=percepts.flow,
            residual=percepts.residual,
            embeddings=embeddings,
            model_name=model[0],
            model_hash=model[1],
            generation=model[2],
        )

    def doubt(self) -> np.ndarray:
        """How much speaks for an object that was not selected: uint8 [h, w], 255 = certainly one.

        The larger of the foreground probability and the best score of a candidate not selected.
        """
        doubt = np.clip(1.0 - self.background, 0.0, 1.0)
        rest = np.setdiff1d(np.arange(len(self.masks)), self.members)
        for index in rest:
            np.maximum(doubt, self.masks[index] * min(float(self.scores[index]), 1.0), out=doubt)
        return np.asarray(np.rint(doubt * 255), np.uint8)

    def flow_px(self, size: tuple[int, int]) -> float | None:
        """Mean length of the optical flow in pixels of an image of `size` (H, W); None without flow."""
        if self.flow is None:
            return None
        return float(_lengths_px(self.flow, size).mean())

    def motion_px(self, size: tuple[int, int]) -> dict[int, float]:
        """Mean motion against the camera under the mask of each identity, pixels of `size`; empty without flow."""
        if self.residual is None:
            return {}
        lengths = _lengths_px(self.residual, size)
        return {
            identity: cv2.mean(lengths, self.masks[member].astype(np.uint8))[0]
            for identity, member in zip(self.ids, self.members, strict=True)
        }


def _lengths_px(field: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 [h, w]: lengths of a field [2, h, w] of grid pixels, in pixels of an image of `size`."""
    h, w = field.shape[1:]
    lengths: np.ndarray = np.hypot(field[0] * np.float32(size[1] / w), field[1] * np.float32(size[0] / h))
    return lengths
