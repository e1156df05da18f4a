"""Procedural cut-outs: blobs, polygons, boxes, bars and cloth with random surfaces."""

import cv2
import numpy as np

Rng = np.random.Generator

SIDE_PX = 176
"""Height and width of the canvas a shape is drawn on."""


def smooth_noise(rng: Rng, size: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth random field, float32 [h, w], about unit standard deviation, `cells` bumps across."""
    coarse = rng.standard_normal((max(2, cells * size[0] // size[1]) + 1, cells + 1)).astype(np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def surface(rng: Rng, size: tuple[int, int], picture: np.ndarray | None) -> np.ndarray:
    """Random surface, uint8 [h, w, 3]: a patch of `picture`, a plain colour, a gradient, stripes or noise."""
    h, w = size
    choice = rng.random()
    if picture is not None and choice < 0.5:
        ph, pw = picture.shape[:2]
        side = int(rng.uniform(0.2, 0.8) * min(ph, pw))
        y, x = rng.integers(0, ph - side), rng.integers(0, pw - side)
        patch = cv2.resize(picture[y : y + side, x : x + side], (w, h)).astype(np.float32)
        patch = patch * rng.uniform(0.6, 1.3, 3) + rng.uniform(-25, 25, 3)
        return np.clip(patch, 0, 255).astype(np.uint8)
    dark = rng.random() < 0.25
    base = rng.uniform(5, 60, 3) if dark else rng.uniform(20, 240, 3)
    if rng.random() < 0.4:
        base = np.full(3, base.mean()) + rng.normal(0, 6, 3)
    out = np.broadcast_to(base.astype(np.float32), (h, w, 3)).copy()
    if choice < 0.7:
        out += rng.uniform(5, 30) * smooth_noise(rng, size, int(rng.integers(2, 12)))[..., None]
    elif choice < 0.85:
        angle = rng.uniform(0, np.pi)
        y, x = np.mgrid[0:h, 0:w].astype(np.float32)
        phase = (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.08, 0.6)
        out += (np.sin(phase) > rng.uniform(-0.7, 0.7))[..., None] * rng.uniform(-110, 110, 3)
    else:
        ramp = np.linspace(-1, 1, w, dtype=np.float32)[None, :, None]
        out += ramp * rng.uniform(-70, 70, 3) + rng.normal(0, rng.uniform(1, 12), (h, w, 1))
    return np.clip(out, 0, 255).astype(np.uint8)


def radial(rng: Rng, lobes: int) -> np.ndarray:
    """Random closed outline about the origin, float64 [72, 2]; more lobes make it more ragged."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(angle)
    for k in range(1, lobes + 1):
        radius += rng.normal(0, 0.32 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.25, 2.0)
    stretch = rng.uniform(0.35, 1.0)
    return np.stack([radius * np.cos(angle), stretch * radius * np.sin(angle)], axis=1)


def _rectangle(rng: Rng) -> np.ndarray:
    aspect = np.exp(rng.uniform(-1.6, 0))
    jitter = rng.normal(0, 0.06, (4, 2))
    return np.array([[-1, -aspect], [1, -aspect], [1, aspect], [-1, aspect]]) + jitter


def fit(points: np.ndarray) -> np.ndarray:
    """Points [..., 2] scaled to fill the shape canvas, float32."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (SIDE_PX - 12) / (high - low).max()
    return ((points - (low + high) / 2) * scale + SIDE_PX / 2).astype(np.float32)


def fill(mask: np.ndarray, points: np.ndarray, value: int = 255) -> None:
    """Fill a polygon [n, 2] in pixels with smooth edges, in place."""
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], value, cv2.LINE_AA, 4)


def shaded_box(rng: Rng, texture: np.ndarray) -> np.ndarray:
    """Three visible faces of a box covered with `texture`, each with its own shade; uint8 [SIDE_PX, SIDE_PX, 4]."""
    right = np.array([rng.uniform(0.5, 1.2), rng.uniform(0.1, 0.5)])
    left = np.array([-rng.uniform(0.5, 1.2), rng.uniform(0.1, 0.5)])
    down = np.array([0.0, rng.uniform(0.4, 1.3)])
    zero = np.zeros(2)
    faces = [
        [zero, right, right + left, left],
        [left, left + right, left + right + down, left + down],
        [right, right + left, right + left + down, right + down],
    ]
    points = fit(np.array(faces).reshape(-1, 2)).reshape(3, 4, 2)
    colour = np.zeros((SIDE_PX, SIDE_PX, 3), np.float32)
    square = np.array([[0, 0], [SIDE_PX, 0], [SIDE_PX, SIDE_PX], [0, SIDE_PX]], np.float32)
    alpha = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for face, shade in zip(points, rng.permutation([1.0, rng.uniform(0.7, 0.95), rng.uniform(0.45, 0.8)]), strict=True):
        inside = np.zeros_like(alpha)
        fill(inside, face)
        warp = cv2.getPerspectiveTransform(square, face.astype(np.float32))
        side = cv2.warpPerspective(texture, warp, (SIDE_PX, SIDE_PX), borderMode=cv2.BORDER_REPLICATE)
        colour[inside > 0] = side[inside > 0] * shade
        alpha = np.maximum(alpha, inside)
    return np.dstack([np.clip(colour, 0, 255).astype(np.uint8), alpha])


def shape_cutout(rng: Rng, picture: np.ndarray | None) -> np.ndarray:
    """One procedural object, uint8 [SIDE_PX, SIDE_PX, 4] BGR and alpha."""
    kind = rng.random()
    if kind < 0.16:
        return shaded_box(rng, surface(rng, (SIDE_PX, SIDE_PX), picture))
    alpha = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    colour = surface(rng, alpha.shape, picture)
    if kind < 0.45:
        fill(alpha, fit(radial(rng, int(rng.integers(1, 7)))))
    elif kind < 0.66:
        fill(alpha, fit(_rectangle(rng)))
    elif kind < 0.78:
        # Several parts with different surfaces are one object: colour alone must not decide.
        for _ in range(int(rng.integers(2, 5))):
            part = np.zeros_like(alpha)
            centre = rng.uniform(0.35, 0.65, 2) * SIDE_PX
            outline = radial(rng, 3) if rng.random() < 0.5 else _rectangle(rng)
            fill(part, (outline * rng.uniform(18, 45) + centre).astype(np.float32))
            colour[part > 0] = surface(rng, alpha.shape, picture)[part > 0]
            alpha = np.maximum(alpha, part)
    elif kind < 0.88:
        outline = radial(rng, 2)
        outer = fit(outline)
        fill(alpha, outer)
        inner = (outer - SIDE_PX / 2) * rng.uniform(0.3, 0.8) + SIDE_PX / 2
        rim = np.zeros_like(alpha)
        fill(rim, inner.astype(np.float32))
        colour[rim > 0] = (colour[rim > 0] * rng.uniform(0.4, 0.9)).astype(np.uint8)
    else:
        # Cloth: a ragged outline with soft folds.
        fill(alpha, fit(radial(rng, 10)))
        folds = 1 + rng.uniform(0.1, 0.35) * smooth_noise(rng, alpha.shape, int(rng.integers(4, 10)))[..., None]
        colour = np.clip(colour * folds, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        light = 1 + rng.uniform(0.05, 0.4) * smooth_noise(rng, alpha.shape, 2)[..., None]
        colour = np.clip(colour * light, 0, 255).astype(np.uint8)
    return np.dstack([colour, alpha])
