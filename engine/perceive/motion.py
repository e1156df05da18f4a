"""Optical flow with the camera's motion removed, and the motion features the network reads.

Training data is made with this very code, so what the network learned is what it sees at run time.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import cv2
import numba
import numpy as np

from engine.perceive.dis.flow import InverseSearch, Pyramid
from engine.select.compiled import compiled_sum

FLOW_SIZE = (192, 336)
"""Height, width flow is estimated at: 0.75 x the model input, the best ratio of separation to time measured."""

FEATURE_SIZE = (128, 224)
"""Height, width flow and features are given at: half the model input, no coarser than DIS itself resolves them."""

FEATURE_CHANNELS = 5
MOTION_DEFINITION = (
    "dis-medium-192x336-g12-v1@128x224+quadratic-irls:compress(residual),compress(camera),difference/32;"
    "compress(v)=v/sqrt(1+|v|)"
)
"""Identifies these features in a model's metadata; any change of the code below must change it."""

_FLOW_PER_FEATURE = np.array(
    [FLOW_SIZE[1] / FEATURE_SIZE[1], FLOW_SIZE[0] / FEATURE_SIZE[0]], np.float32
)  # pixels of one in pixels of the other, x and y
_FIT_STRIDE = 4
_FIT_ITERATIONS = 6
_DIFFERENCE_SCALE = 32.0
_DIFFERENCE_LIMIT = 4.0


@dataclass(frozen=True, slots=True)
class Motion:
    """Motion of one frame against the previous one, at FEATURE_SIZE; lengths are pixels of FLOW_SIZE.

    Attributes:
        flow: float32 [h, w, 2], backward flow (dx, dy): where the content of each pixel was, relative to it.
        residual: float32 [h, w, 2], flow minus the camera model.
        features: float32 [5, h, w]: residual, camera flow (both compressed as
            v / sqrt(1 + |v|)) and the camera-compensated gray difference.
        mean_difference: mean absolute camera-compensated difference in gray levels, high at a cut.
    """

    flow: np.ndarray
    residual: np.ndarray
    features: np.ndarray
    mean_difference: float


@lru_cache(maxsize=4)
def _quadratic_basis(h: int, w: int, stride: int) -> np.ndarray:
    """1, x, y, x^2, xy, y^2 of every `stride`-th pixel: float64 [6, points]."""
    y, x = np.mgrid[0:h:stride, 0:w:stride]
    x = (x.ravel() / w - 0.5) * 2
    y = (y.ravel() / h - 0.5) * 2
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])


def fit_camera_motion(flow: np.ndarray) -> np.ndarray:
    """Fit a quadratic motion model to a flow field by iteratively re-weighted least squares.

    Cauchy weights at the scale of the median residual: moving objects lose their vote.

    Args:
        flow: float32 [h, w, 2] in pixels.

    Returns:
        float64 [6, 2]: coefficients of 1, x, y, x^2, xy, y^2 with x, y in [-1, 1].
    """
    h, w = flow.shape[:2]
    basis = _quadratic_basis(h, w, _FIT_STRIDE)
    target = flow[::_FIT_STRIDE, ::_FIT_STRIDE].reshape(-1, 2).T.astype(np.float64, order="C")
    coefficients: np.ndarray = _reweighted_fit(basis, target)
    return coefficients


@compiled_sum
def _reweighted_fit(basis: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Coefficients [terms, 2] for basis [terms, points] and target [2, points]; each sum runs along the points."""
    terms, points = basis.shape
    weight = np.ones(points)
    scaled = np.empty(points)
    error = np.empty(points)
    normal = np.empty((terms, terms))
    moment = np.empty((terms, 2))
    coefficients = np.zeros((terms, 2))
    for _ in range(_FIT_ITERATIONS):
        for a in range(terms):
            row = basis[a]
            for i in range(points):
                scaled[i] = weight[i] * row[i]
            for b in range(a + 1):
                other = basis[b]
                total = 0.0
                for i in range(points):
                    total += scaled[i] * other[i]
                normal[a, b] = normal[b, a] = total
            normal[a, a] += 1e-6
            for k in range(2):
                wanted = target[k]
                total = 0.0
                for i in range(points):
                    total += scaled[i] * wanted[i]
                moment[a, k] = total
        coefficients = np.linalg.solve(normal, moment)
        for k in range(2):
            wanted = target[k]
            for i in range(points):
                scaled[i] = -wanted[i]
            for a in range(terms):
                row, share = basis[a], coefficients[a, k]
                for i in range(points):
                    scaled[i] += row[i] * share
            for i in range(points):
                error[i] = abs(scaled[i]) if k == 0 else error[i] + abs(scaled[i])
        scale = max(np.median(error), 0.05)
        for i in range(points):
            weight[i] = 1.0 / (1.0 + (error[i] / scale) ** 2)
    return coefficients


@numba.njit(cache=True, nogil=True, fastmath=True)
def _features(flow, coefficients, current, previous, residual, out):  # type: ignore[no-untyped-def]
    h, w = current.shape
    c = coefficients
    step_x = np.float32(2.0 / w)
    step_y = np.float32(2.0 / h)
    scale = np.float32(1.0 / _DIFFERENCE_SCALE)
    limit = np.float32(_DIFFERENCE_LIMIT)
    reach = np.float32(w / FLOW_SIZE[1])
    one = np.float32(1)
    for i in range(h):
        y = np.float32(i) * step_y - one
        for j in range(w):
            x = np.float32(j) * step_x - one
            cx = c[0, 0] + c[1, 0] * x + c[2, 0] * y + c[3, 0] * x * x + c[4, 0] * x * y + c[5, 0] * y * y
            cy = c[0, 1] + c[1, 1] * x + c[2, 1] * y + c[3, 1] * x * x + c[4, 1] * x * y + c[5, 1] * y * y
            rx = flow[i, j, 0] - cx
            ry = flow[i, j, 1] - cy
            residual[i, j, 0] = rx
            residual[i, j, 1] = ry
            px = min(max(np.float32(j) + cx * reach, np.float32(0)), np.float32(w - 1.001))
            py = min(max(np.float32(i) + cy * reach, np.float32(0)), np.float32(h - 1.001))
            x0 = int(px)
            y0 = int(py)
            fx = px - np.float32(x0)
            fy = py - np.float32(y0)
            top = previous[y0, x0] * (one - fx) + previous[y0, x0 + 1] * fx
            bottom = previous[y0 + 1, x0] * (one - fx) + previous[y0 + 1, x0 + 1] * fx
            difference = (current[i, j] - (top * (one - fy) + bottom * fy)) * scale
            out[0, i, j] = rx / np.sqrt(one + abs(rx))
            out[1, i, j] = ry / np.sqrt(one + abs(ry))
            out[2, i, j] = cx / np.sqrt(one + abs(cx))
            out[3, i, j] = cy / np.sqrt(one + abs(cy))
            out[4, i, j] = min(max(difference, -limit), limit)


class FlowEstimator(Protocol):
    """Optical flow in place of OpenCV's, such as `flow_network.FlowNetwork`."""

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """What is kept of a picture (uint8 [H, W, 3] BGR)."""
        ...

    def estimate(self, current: np.ndarray, previous: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Backward flow between two prepared pictures, float32 [h, w, 2] at `size` = (h, w), in its pixels."""
        ...


class MotionEstimator:
    """Backward optical flow and motion features; holds the previous frame.

    Args:
        flow: computes the flow; None: dense inverse search, which MOTION_DEFINITION stands for.
    """

    def __init__(self, flow: FlowEstimator | None = None) -> None:
        self._flow = flow
        self._search = InverseSearch()
        self._previous: tuple[Pyramid | np.ndarray, np.ndarray] | None = None  # what the flow needs; small gray

    def reset(self) -> None:
        """Forget the previous frame: the next step has no motion."""
        self._previous = None

    def step(self, image: np.ndarray, frame: np.ndarray | None = None) -> Motion | None:
        """Motion of `image` (uint8 [H, W, 3] BGR, normally the model input size) against the last one.

        Args:
            frame: the same picture at its full size, which a flow network may make use of.

        Returns None in the first frame after a reset.
        """
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        if self._flow is None:
            # Other people's models may be large: a linear resize by more than two would skip pixels.
            fine = image.shape[0] <= 2 * FLOW_SIZE[0] and image.shape[1] <= 2 * FLOW_SIZE[1]
            way = cv2.INTER_LINEAR if fine else cv2.INTER_AREA
            current = self._search.prepare(cv2.resize(gray, FLOW_SIZE[::-1], interpolation=way))
        else:
            current = self._flow.prepare(image if frame is None else frame)
        small = cv2.resize(gray, FEATURE_SIZE[::-1], interpolation=cv2.INTER_AREA)
        before, self._previous = self._previous, (current, small)
        if before is None:
            return None
        if self._flow is None:
            flow = self._search.estimate(current, before[0])
            flow = cv2.resize(flow, FEATURE_SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        else:
            flow = self._flow.estimate(current, before[0], FEATURE_SIZE) * _FLOW_PER_FEATURE
        coefficients = fit_camera_motion(flow).astype(np.float32)
        residual = np.empty_like(flow)
        features = np.empty((FEATURE_CHANNELS, *FEATURE_SIZE), np.float32)
        _features(flow, coefficients, small, before[1], residual, features)
        mean_difference = cv2.norm(features[4], cv2.NORM_L1) / features[4].size * _DIFFERENCE_SCALE
        return Motion(flow, residual, features, mean_difference)


def network_features(motion: Motion | None, size: tuple[int, int]) -> np.ndarray:
    """Motion input of the network, float32 [5, h, w] at `size` = (h, w); zeros when there is no motion."""
    if motion is None:
        return np.zeros((FEATURE_CHANNELS, *size), np.float32)
    return fit_features(motion.features, size)


def fit_features(features: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Features float32 [5, h', w'] at another size (h, w): their values are pixels of FLOW_SIZE and stay."""
    if features.shape[1:] == size:
        return features
    out = np.empty((FEATURE_CHANNELS, *size), np.float32)
    for channel in range(FEATURE_CHANNELS):
        cv2.resize(features[channel], size[::-1], dst=out[channel], interpolation=cv2.INTER_LINEAR)
    return out
