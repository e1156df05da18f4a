"""The whole of it: coarse to fine, search, blend, refine."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from engine.perceive.dis.blend import blend
from engine.perceive.dis.lanes import PATCH_PX
from engine.perceive.dis.search import BORDER_PX, patch_grid, search, structure

_FINEST_LEVEL = 1
"""Pictures are halved so often before the flow is computed; the result is enlarged to their size."""

_FACTOR = 2**_FINEST_LEVEL


@dataclass(frozen=True, slots=True)
class Level:
    """One size of a picture: uint8 [h, w], and as float32 with and without its border continued."""

    image: np.ndarray
    plain: np.ndarray
    wide: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray) -> "Level":
        """All of it from a picture uint8 [h, w]."""
        plain = image.astype(np.float32)
        edges = (BORDER_PX, BORDER_PX, BORDER_PX, BORDER_PX)
        return cls(image, plain, cv2.copyMakeBorder(plain, *edges, cv2.BORDER_REPLICATE))


Pyramid = list[Level]
"""A picture prepared, finest level first."""


class InverseSearch:
    """Optical flow as by `cv2.DISOpticalFlow`: medium preset, 12 descent steps, one variational refinement.

    Pictures are prepared once and used twice, as the newer and as the older of a pair.
    """

    def __init__(self) -> None:
        self._refinements: list[cv2.VariationalRefinement] = []

    def prepare(self, gray: np.ndarray) -> Pyramid:
        """The levels of a picture uint8 [h, w]: sides are even, and at least 32 pixels."""
        h, w = gray.shape
        coarsest = min(int(math.log2(max(h, w) / (4 * PATCH_PX)) + 0.5), int(math.log2(min(h, w) / PATCH_PX)))
        image, size = gray, (h // _FACTOR, w // _FACTOR)
        pyramid = []
        for _ in range(_FINEST_LEVEL, coarsest + 1):
            image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
            pyramid.append(Level.of(image))
            size = (size[0] // 2, size[1] // 2)
        return pyramid

    def estimate(self, current: Pyramid, previous: Pyramid) -> np.ndarray:
        """Backward flow float32 [h, w, 2] between two prepared pictures of the same size, in its pixels."""
        while len(self._refinements) < len(current):
            self._refinements.append(_refinement())
        dense = np.zeros((2, *current[-1].image.shape), np.float32)
        for level in range(len(current) - 1, -1, -1):
            now, before = current[level], previous[level]
            size = now.image.shape[::-1]
            if level < len(current) - 1:
                dense = 2 * np.stack([cv2.resize(flow, size, interpolation=cv2.INTER_LINEAR) for flow in dense])
            _search_level(now, before, *dense)
            self._refinements[level].calcUV(now.image, before.image, *dense)
        full = (_FACTOR * size[0], _FACTOR * size[1])
        # A power of two: the same numbers whether before or after.
        return cv2.resize(cv2.merge(list(dense * np.float32(_FACTOR))), full, interpolation=cv2.INTER_LINEAR)


def _search_level(now: Level, before: Level, flow_x: np.ndarray, flow_y: np.ndarray) -> None:
    """Improve the flow float32 [h, w] of one level in place."""
    gradient_x, gradient_y = (gradient.astype(np.float32) for gradient in cv2.spatialGradient(now.image))
    grid = patch_grid(now.image.shape)
    tensor = np.empty((5, *grid), np.float32)
    structure(gradient_x, gradient_y, tensor)
    sparse_x, sparse_y = np.empty((2, *grid), np.float32)
    search(now.plain, before.wide, gradient_x, gradient_y, tensor, flow_x, flow_y, sparse_x, sparse_y)
    blend(now.plain, before.plain, sparse_x, sparse_y, flow_x, flow_y)


def _refinement() -> "cv2.VariationalRefinement":
    """One step of variational refinement, weights as of DIS: a level's own, so that its buffers stay."""
    refinement = cv2.VariationalRefinement_create()
    refinement.setFixedPointIterations(1)
    refinement.setSorIterations(5)
    refinement.setAlpha(20.0)
    refinement.setGamma(10.0)
    refinement.setDelta(5.0)
    if hasattr(refinement, "setEpsilon"):  # older versions have it fixed
        refinement.setEpsilon(0.01)
    return refinement
