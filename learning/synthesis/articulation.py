"""Articulated motion: parts of one object that turn about joints, swing apart or stand still on the ground."""

import cv2
import numpy as np

from learning.synthesis.render import similarity, transform
from learning.synthesis.sample import SIZE
from learning.synthesis.shapes import Rng, smooth_noise

FIELD = (64, 112)
"""Height, width of the displacement grid: fine enough for a limb of 15 px."""

_CELL_PX = SIZE[0] / FIELD[0]
_POINTS = (
    np.stack(np.meshgrid(np.arange(FIELD[1]), np.arange(FIELD[0])), axis=-1).astype(np.float32) + 0.5
) * np.float32(_CELL_PX) - np.float32(0.5)
_MAX_SHIFT = 0.3
"""Largest displacement of a part as a share of the object's length; more would tear the picture."""


def outline_points(rgba: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Opaque points of a cut-out in the current frame, float32 [n, 2], on a coarse grid; n is at least 1."""
    stride = max(1, max(rgba.shape[:2]) // 32)
    y, x = np.nonzero(rgba[::stride, ::stride, 3] > 127)
    if len(x) == 0:
        y, x = np.array([rgba.shape[0] // (2 * stride)]), np.array([rgba.shape[1] // (2 * stride)])
    return transform(np.linalg.inv(place), np.stack([x, y], axis=-1).astype(np.float32) * stride)


def skinned_field(weights: np.ndarray, motions: list[np.ndarray]) -> np.ndarray:
    """Displacement of a body whose parts move rigidly.

    A frame point p of the previous frame shows what lay at sum_k w_k(p) M_k^-1(p) before the parts moved; the field is
    that point minus p.

    Args:
        weights: float32 [parts, 64, 112], sum 1 over the parts at every point.
        motions: float64 [3, 3] of every part, in pixels of the previous frame.

    Returns:
        float32 [64, 112, 2] pixels.
    """
    field = np.zeros((*FIELD, 2), np.float32)
    for weight, motion in zip(weights, motions, strict=True):
        field += weight[..., None] * (transform(np.linalg.inv(motion), _POINTS) - _POINTS)
    return field


def _step(values: np.ndarray, at: float, width: float) -> np.ndarray:
    return np.clip((values - at) / width + 0.5, 0, 1).astype(np.float32)


def draw_articulation(rng: Rng, points: np.ndarray, motion: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Random articulation of an object along its long axis: two to four parts.

    Args:
        points: [n, 2] of the object in the current frame.
        motion: the object's own motion, previous -> current frame.
        ground: motion of the ground it stands on, previous -> current frame.

    Returns:
        Displacement float32 [64, 112, 2] in the previous frame on top of `motion`.
    """
    before = transform(np.linalg.inv(motion), points)
    centre = before.mean(axis=0)
    spread = np.cov((before - centre).T) if len(before) > 2 else np.eye(2)
    axis = np.linalg.eigh(spread)[1][:, 1]
    axis *= np.sign(axis[1]) or 1.0
    along = (before - centre) @ axis
    low, high = np.percentile(along, (2, 98)) if len(along) > 2 else (-10.0, 10.0)
    length = max(float(high - low), 8.0)
    u, v = (_POINTS - centre) @ axis, (_POINTS - centre) @ np.array([-axis[1], axis[0]])
    u = u + 0.05 * length * smooth_noise(rng, FIELD, int(rng.integers(4, 12)))
    soft = length * rng.uniform(0.08, 0.2)

    ends = [(+1, high - length * rng.uniform(0.25, 0.5))]
    if rng.random() < 0.5:
        ends.append((-1, low + length * rng.uniform(0.15, 0.35)))
    weights, joints = [], []
    for side, cut in ends:
        limb = _step(side * u, side * cut, soft)
        joint = centre + cut * axis
        if side > 0 and rng.random() < 0.6:
            # Two legs, or two arms, on either side of the long axis.
            right = _step(v, rng.normal(0, 0.04) * length, soft)
            weights += [limb * right, limb * (1 - right)]
            joints += [joint, joint]
        else:
            weights.append(limb)
            joints.append(joint)
    body = np.clip(1 - np.sum(weights, axis=0), 0, 1)
    swing = abs(rng.normal(0, 0.16)) + 0.03
    motions = [_limb_motion(rng, joint, swing, motion, ground, length) for joint in joints]
    field = skinned_field(np.stack([body, *weights]), [np.eye(3), *motions])
    return np.clip(field, -_MAX_SHIFT * length, _MAX_SHIFT * length)


def _limb_motion(
    rng: Rng, joint: np.ndarray, swing: float, motion: np.ndarray, ground: np.ndarray, length: float
) -> np.ndarray:
    """Motion of one part, in the previous frame, relative to the body's."""
    relative = np.linalg.inv(ground) @ motion
    shift = transform(relative, joint.astype(np.float32)) - joint
    if rng.random() < 0.35 and np.hypot(*shift) < 0.2 * length:
        # Standing foot: its total motion is the ground's.
        return relative
    angle = float(np.clip(rng.choice([-1, 1]) * swing * rng.uniform(0.4, 1.2), -0.45, 0.45))
    step = rng.normal(0, 0.01, 2) * length
    return similarity((float(joint[0]), float(joint[1])), (float(step[0]), float(step[1])), angle, 1.0)


def mean_shift_px(field: np.ndarray, points: np.ndarray) -> float:
    """Mean length of a displacement field [h, w, 2] over frame points [n, 2]."""
    scale = np.array([field.shape[1] / SIZE[1], field.shape[0] / SIZE[0]], np.float32)
    maps = (points * scale).astype(np.float32).reshape(-1, 1, 2)
    return float(np.linalg.norm(cv2.remap(field, maps, None, cv2.INTER_NEAREST), axis=-1).mean())
