"""Renders the two frames of a sample from a background and a stack of moving layers."""

from dataclasses import dataclass, field

import cv2
import numba
import numpy as np

from learning.synthesis.sample import SIZE
from learning.synthesis.shapes import Rng, smooth_noise

_H, _W = SIZE
_GRID = np.stack(np.meshgrid(np.arange(_W, dtype=np.float32), np.arange(_H, dtype=np.float32)), axis=-1)

_MOST_TAPS = 9


def similarity(centre: tuple[float, float], shift: tuple[float, float], angle: float, scale: float) -> np.ndarray:
    """Rotation by `angle` rad and scaling about `centre`, then a shift in pixels; float64 [3, 3]."""
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    x, y = centre
    return np.array([[c, -s, x - c * x + s * y + shift[0]], [s, c, y - s * x - c * y + shift[1]], [0, 0, 1.0]])


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a 3x3 projective matrix to points [..., 2]."""
    m = matrix.astype(np.float32)
    x, y = points[..., 0], points[..., 1]
    out = np.empty(points.shape, np.float32)
    out[..., 0] = m[0, 0] * x + m[0, 1] * y + m[0, 2]
    out[..., 1] = m[1, 0] * x + m[1, 1] * y + m[1, 2]
    if m[2, 0] != 0 or m[2, 1] != 0:
        out /= (m[2, 0] * x + m[2, 1] * y + m[2, 2])[..., None]
    return out


@dataclass
class Layer:
    """A cut-out in the scene.

    Attributes:
        rgba: uint8 [h, w, 4], BGR and alpha.
        place: float64 [3, 3], current frame pixel -> cut-out pixel.
        motion: float64 [3, 3], previous frame pixel -> current frame pixel.
        label: instance id, 0 for a layer that counts as background.
        bend: float32 [h, w, 2] or None, displacement in the previous frame on top of `motion`, at a coarse
            grid over the whole frame.
        shadow: opacity of a soft shadow, 0 for none.
        shadow_shift: offset of the shadow in frame pixels.
        shadow_shape: float64 [2, 2], linear map from the object to its shadow about the foot: identity for light from
            behind the camera, skewed and flattened for a shadow cast on the ground.
        foot: where the object stands, in pixels of the current frame.
    """

    rgba: np.ndarray
    place: np.ndarray
    motion: np.ndarray
    label: int
    bend: np.ndarray | None = None
    shadow: float = 0.0
    shadow_shift: tuple[float, float] = (0.0, 0.0)
    shadow_shape: np.ndarray = field(default_factory=lambda: np.eye(2))
    foot: tuple[float, float] = (0.0, 0.0)


@dataclass
class Stage:
    """Everything that is in front of the camera, far to near.

    Attributes:
        canvas: uint8 [H, W, 3] background picture.
        view: float64 [3, 3], current frame pixel -> canvas pixel.
        camera: float64 [3, 3], previous frame pixel -> current frame pixel of the background.
        parallax: float32 [256, 448, 2] or None, extra displacement of the background in the previous frame.
        layers: far to near.
        exposure: part of the frame interval during which the shutter is open; what moves on the sensor is smeared.
    """

    canvas: np.ndarray
    view: np.ndarray
    camera: np.ndarray
    parallax: np.ndarray | None = None
    layers: list[Layer] = field(default_factory=list)
    exposure: float = 0.0


@numba.njit(cache=True, nogil=True)
def _blend(frame, ids, patch, top, left, label, write):  # type: ignore[no-untyped-def]
    for i in range(patch.shape[0]):
        for j in range(patch.shape[1]):
            a = np.int32(patch[i, j, 3])
            if a > 0:
                y = top + i
                x = left + j
                for c in range(3):
                    f = np.int32(frame[y, x, c])
                    frame[y, x, c] = np.uint8(f + ((np.int32(patch[i, j, c]) - f) * a + 127) // 255)
                if write and a > 127:
                    ids[y, x] = label


@numba.njit(cache=True, nogil=True)
def _darken(frame, alpha, top, left, strength):  # type: ignore[no-untyped-def]
    for i in range(alpha.shape[0]):
        for j in range(alpha.shape[1]):
            if alpha[i, j] > 0:
                factor = 1.0 - strength * alpha[i, j] / 255.0
                for c in range(3):
                    frame[top + i, left + j, c] = np.uint8(frame[top + i, left + j, c] * factor)


@numba.njit(cache=True, nogil=True)
def _accumulate(total, patch):  # type: ignore[no-untyped-def]
    for i in range(patch.shape[0]):
        for j in range(patch.shape[1]):
            a = np.int32(patch[i, j, 3])
            if a > 0:
                for c in range(3):
                    total[i, j, c] += a * np.int32(patch[i, j, c])
                total[i, j, 3] += a


@numba.njit(cache=True, nogil=True)
def _average(total, taps):  # type: ignore[no-untyped-def]
    out = np.zeros(total.shape, np.uint8)
    for i in range(total.shape[0]):
        for j in range(total.shape[1]):
            a = total[i, j, 3]
            if a > 0:
                for c in range(3):
                    out[i, j, c] = np.uint8(total[i, j, c] // a)
                out[i, j, 3] = np.uint8(a // taps)
    return out


def _taps(moment: float, exposure: float, speed_px: float) -> np.ndarray:
    """Moments, in frame intervals before the current frame, whose mean is one exposure about `moment`."""
    count = int(np.clip(np.ceil(exposure * speed_px / 1.5), 1, _MOST_TAPS))
    return moment + (exposure * np.linspace(-0.5, 0.5, count) if count > 1 else np.zeros(1))


def _window(corners: np.ndarray, margin: int) -> tuple[int, int, int, int] | None:
    x0, y0 = np.floor(corners.min(axis=0)).astype(int) - margin
    x1, y1 = np.ceil(corners.max(axis=0)).astype(int) + margin + 1
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, _W), min(y1, _H)
    return (x0, y0, x1, y1) if x1 - x0 > 1 and y1 - y0 > 1 else None


def _sources(layer: Layer, grid: np.ndarray, bend: np.ndarray | None, moment: float) -> np.ndarray:
    """Cut-out points seen at frame points `grid`, `moment` frame intervals before the current frame."""
    if moment == 0:
        return transform(layer.place, grid)
    moved = transform(layer.motion, grid if bend is None else grid + bend)
    return transform(layer.place, grid + np.float32(moment) * (moved - grid) if moment != 1 else moved)


def _draw_shadow(frame: np.ndarray, layer: Layer, corners: np.ndarray, moment: float) -> None:
    foot = np.array([layer.foot], np.float32)
    foot = (foot + moment * (transform(np.linalg.inv(layer.motion), foot) - foot))[0]
    away = np.eye(3)
    away[:2, :2] = layer.shadow_shape
    away[:2, 2] = foot - layer.shadow_shape @ foot + layer.shadow_shift
    window = _window(transform(away, corners), 5)
    if window is None:
        return
    x0, y0, x1, y1 = window
    grid = transform(np.linalg.inv(away), _GRID[y0:y1, x0:x1])
    alpha = np.ascontiguousarray(layer.rgba[..., 3])
    alpha = cv2.remap(alpha, _sources(layer, grid, None, moment), None, cv2.INTER_LINEAR)
    _darken(frame, cv2.blur(alpha, (7, 7)), y0, x0, layer.shadow)


def _draw(frame: np.ndarray, ids: np.ndarray, layer: Layer, moment: float, exposure: float) -> None:
    h, w = layer.rgba.shape[:2]
    corners = transform(np.linalg.inv(layer.place), np.array([[0, 0], [w, 0], [0, h], [w, h]], np.float32))
    path = transform(np.linalg.inv(layer.motion), corners) - corners
    moments = _taps(moment, exposure, float(np.hypot(path[:, 0], path[:, 1]).max()))
    swept = np.concatenate([corners + np.float32(m) * path for m in (moments[0], moments[-1])])
    bend, margin = None, 2
    if layer.bend is not None and moments[-1] != 0:
        margin += int(np.ceil(np.abs(layer.bend).max() * moments[-1]))
    if layer.shadow > 0:
        _draw_shadow(frame, layer, corners + np.float32(moment) * path, moment)
    window = _window(swept, margin)
    if window is None:
        return
    x0, y0, x1, y1 = window
    if layer.bend is not None and moments[-1] != 0:
        bend = cv2.resize(layer.bend, (_W, _H), interpolation=cv2.INTER_LINEAR)[y0:y1, x0:x1]
    total = np.zeros((y1 - y0, x1 - x0, 4), np.int32) if len(moments) > 1 else None
    for at in moments:
        points = _sources(layer, _GRID[y0:y1, x0:x1], bend, float(at))
        patch = cv2.remap(layer.rgba, points, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        if total is not None:
            _accumulate(total, patch)
    if total is not None:
        patch = _average(total, len(moments))
    _blend(frame, ids, patch, y0, x0, layer.label, True)


def _draw_background(stage: Stage, moment: float) -> np.ndarray:
    shift = transform(stage.camera, _GRID) - _GRID
    speed = float(np.hypot(shift[..., 0], shift[..., 1]).max()) if stage.exposure > 0 else 0.0
    if stage.parallax is not None:
        shift += stage.parallax
    moments = _taps(moment, stage.exposure, speed)
    frames = []
    for at in moments:
        grid = transform(stage.view, _GRID + np.float32(at) * shift if at != 0 else _GRID)
        frames.append(cv2.remap(stage.canvas, grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))
    if len(frames) == 1:
        return frames[0]
    total = np.zeros(frames[0].shape, np.float32)
    for frame in frames:
        cv2.accumulate(frame, total)
    return (total / np.float32(len(frames))).astype(np.uint8)


def render(stage: Stage, pair: bool) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Draw the stage.

    Returns:
        previous: uint8 [256, 448, 3] BGR, or None unless `pair`.
        current: uint8 [256, 448, 3] BGR.
        ids: uint8 [256, 448], ids of the front-most layer in the current frame.
    """
    frames = []
    ids = np.zeros(SIZE, np.uint8)
    unused = np.zeros(SIZE, np.uint8)
    for moment in (1.0, 0.0) if pair else (0.0,):
        frame = _draw_background(stage, moment)
        for layer in stage.layers:
            _draw(frame, unused if moment else ids, layer, moment, stage.exposure)
        frames.append(frame)
    return (frames[0] if pair else None), frames[-1], ids


_NOISE = np.random.default_rng(7).standard_normal((2 * _H, 2 * _W, 3)).astype(np.float32)


@dataclass(frozen=True)
class Lens:
    """Imaging conditions shared by the two frames of a sample."""

    blur: float
    smear: np.ndarray | None
    lookup: np.ndarray
    tint: np.ndarray
    noise: float
    jpeg: int

    @staticmethod
    def draw(rng: Rng) -> "Lens":
        """Random conditions; one frame in three is nearly clean."""
        gamma = np.exp(rng.normal(0, 0.25))
        gain = rng.uniform(0.7, 1.2)
        ramp = np.clip((np.linspace(0, 1, 256) ** gamma) * gain * 255 + rng.normal(0, 8), 0, 255)
        smear = None
        if rng.random() < 0.12:
            length, angle = int(rng.integers(3, 10)), rng.uniform(0, np.pi)
            smear = np.zeros((length | 1, length | 1), np.float32)
            half = (length | 1) // 2
            offset = np.array([np.cos(angle), np.sin(angle)]) * half
            a, b = np.round(half - offset).astype(int), np.round(half + offset).astype(int)
            cv2.line(smear, tuple(a.tolist()), tuple(b.tolist()), 1.0)
            smear /= smear.sum()
        clean = rng.random() < 0.33
        return Lens(
            blur=0.0 if clean else float(rng.uniform(0, 1.3)),
            smear=smear,
            lookup=ramp.astype(np.uint8),
            tint=np.exp(rng.normal(0, 0.06, 3)).astype(np.float32),
            noise=0.4 if clean else float(np.exp(rng.uniform(np.log(0.5), np.log(6)))),
            jpeg=int(rng.integers(45, 98)),
        )

    def expose(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        """Image uint8 [256, 448, 3] as the camera would deliver it, with noise of its own."""
        out = cv2.LUT(image, self.lookup)
        if self.blur > 0.3:
            out = cv2.GaussianBlur(out, (0, 0), self.blur)
        if self.smear is not None:
            out = cv2.filter2D(out, -1, self.smear)
        y, x = int(rng.integers(0, _H)), int(rng.integers(0, _W))
        gain = self.tint * np.float32(1 + rng.normal(0, 0.01))
        exposed = out.astype(np.float32) * gain + _NOISE[y : y + _H, x : x + _W] * np.float32(self.noise)
        out = np.clip(exposed, 0, 255).astype(np.uint8)
        return cv2.imdecode(cv2.imencode(".jpg", out, (cv2.IMWRITE_JPEG_QUALITY, self.jpeg))[1], cv2.IMREAD_COLOR)


def bend_field(rng: Rng, amplitude: float) -> np.ndarray:
    """Smooth displacement, float32 [16, 28, 2] pixels, for non-rigid motion."""
    cells = int(rng.integers(3, 10))
    return np.stack([smooth_noise(rng, (16, 28), cells) for _ in range(2)], axis=-1) * np.float32(amplitude)
