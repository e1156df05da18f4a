"""Objects of the built-in scene: outlines that may move, surface, shading, and the blend into a picture."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from streaming.sources.demo_textures import Palette, object_surface

# A cycle of a non-rigid outline is drawn this many times in advance; at 30 fps a step is about one frame.
CYCLE_STEPS = 24
SUPERSAMPLING = 2
_CORNERS = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]], np.float64)

# Polygons in [-1, 1]^2 at a phase of the cycle in [0, 1).
Outline = Callable[[float], list[np.ndarray]]


@dataclass(frozen=True, slots=True)
class Sprite:
    """Pictures of one thing over its cycle.

    Attributes:
        steps: uint8 [h, w, 4] BGR multiplied by alpha, and alpha; one picture for a rigid thing.
        anchor_px: (x, y) of the point that stands on the ground, in sprite pixels.
    """

    steps: tuple[np.ndarray, ...]
    anchor_px: tuple[float, float]


def warp_into_box(
    sprite: np.ndarray, matrix: np.ndarray, size: tuple[int, int]
) -> tuple[tuple[slice, slice], np.ndarray] | None:
    """Warp by the 2x3 `matrix` into (slices of the frame, uint8 [h, w, 4]); None when out of view."""
    height, width = sprite.shape[:2]
    corners = (_CORNERS * (width, height, 1)) @ matrix.T
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, (size[1], size[0]))
    if x0 >= x1 or y0 >= y1:
        return None
    local = matrix.copy()
    local[:, 2] -= (x0, y0)
    warped = cv2.warpAffine(sprite, local, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR)
    return (slice(y0, y1), slice(x0, x1)), warped


def blend(image: np.ndarray, box: tuple[slice, slice], warped: np.ndarray) -> np.ndarray:
    """Lay `warped` (alpha-multiplied) over `image` in `box`; return its alpha, uint8 [h, w]."""
    alpha = cv2.extractChannel(warped, 3)
    see_through = cv2.cvtColor(cv2.bitwise_not(alpha), cv2.COLOR_GRAY2BGR)
    behind = cv2.multiply(image[box], see_through, scale=1 / 255)
    image[box] = cv2.add(behind, cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR))
    return alpha


def shaded_sprite(surface: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Light a flat surface as if the outline were a rounded body, and multiply by alpha.

    Args:
        surface: float32 [h, w, 3] BGR in [0, 255].
        mask: uint8 [h, w], 0 or 255.
    """
    depth_px = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    rim = np.clip(depth_px / max(float(depth_px.max()) * 0.8, 1.0), 0, 1)
    bulge = cv2.GaussianBlur(np.sqrt(1 - (1 - rim) ** 2), (0, 0), 2.5)
    gain = 0.22 * mask.shape[0]
    normal_x = cv2.Sobel(bulge, cv2.CV_32F, 1, 0, scale=gain / 8)
    normal_y = cv2.Sobel(bulge, cv2.CV_32F, 0, 1, scale=gain / 8)
    light = (0.66 + 0.45 * normal_x + 0.6 * normal_y) / np.sqrt(1 + normal_x**2 + normal_y**2)
    alpha = mask.astype(np.float32) / 255
    lit = np.clip(surface * np.clip(0.38 + 0.78 * light, 0.3, 1.35)[..., None], 0, 255) * alpha[..., None]
    big = np.dstack([lit, mask.astype(np.float32)]).clip(0, 255).astype(np.uint8)
    return cv2.resize(big, None, fx=1 / SUPERSAMPLING, fy=1 / SUPERSAMPLING, interpolation=cv2.INTER_AREA)


def make_sprite(rng: np.random.Generator, kind: int, height_px: int, palette: Palette) -> Sprite:
    """Sprite number `kind`, about `height_px` pixels high, in the colours of `palette`."""
    outline_maker, rigid = OUTLINES[kind % len(OUTLINES)]
    outline = outline_maker(rng)
    # Outlines live in [-1, 1]^2 with some air around them, so that moving limbs stay inside.
    side = SUPERSAMPLING * max(16, height_px)
    surface = object_surface(rng, (side, side), palette)
    phases = (0.0,) if rigid else tuple(np.arange(CYCLE_STEPS) / CYCLE_STEPS)
    steps = tuple(shaded_sprite(surface, _fill(outline(phase), side)) for phase in phases)
    foot_px = float(np.nonzero(steps[0][..., 3].any(1))[0].max())
    return Sprite(steps, (steps[0].shape[1] / 2, foot_px))


def _fill(parts: list[np.ndarray], side: int) -> np.ndarray:
    """Fill polygons given in [-1, 1]^2 and round their corners; uint8 [side, side]."""
    mask = np.zeros((side, side), np.uint8)
    for part in parts:
        points = np.round((part * 0.9 + 1) * (side / 2) * 16).astype(np.int32)
        cv2.fillPoly(mask, [points], 255, shift=4)
    smooth = cv2.GaussianBlur(mask, (0, 0), max(1.0, side / 90))
    return np.where(smooth > 127, 255, 0).astype(np.uint8)


def _ellipse(x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    u, v = rx * np.cos(angle), ry * np.sin(angle)
    return np.stack([x + u * np.cos(tilt) - v * np.sin(tilt), y + u * np.sin(tilt) + v * np.cos(tilt)], -1)


def _limb(x: float, y: float, angle: float, length: float, thick: float) -> np.ndarray:
    """A bar with round ends from (x, y); angle 0 hangs down."""
    turn = np.linspace(0, np.pi, 12)
    cap = thick * np.stack([np.cos(turn), np.sin(turn)], -1)
    bar = np.concatenate([cap + np.array([0, length]), -cap])
    cos, sin = np.cos(angle), np.sin(angle)
    turned: np.ndarray = bar @ np.array([[cos, -sin], [sin, cos]]) + np.array([x, y])
    return turned


def _jelly(rng: np.random.Generator) -> Outline:
    order = np.arange(2, 7)
    size = rng.uniform(0.04, 0.16, 5) / (order / 2)
    start = rng.uniform(0, 2 * np.pi, 5)
    speed = rng.integers(-1, 2, 5)
    speed[0] = 1
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)

    def outline(phase: float) -> list[np.ndarray]:
        turn = start + 2 * np.pi * phase * speed
        radius = 0.72 * (1 + (size[:, None] * np.cos(order[:, None] * angle + turn[:, None])).sum(0))
        return [np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)]

    return outline


def _animal(rng: np.random.Generator) -> Outline:
    trunk, neck, head = rng.uniform(0.55, 0.68), rng.uniform(0.2, 0.45), rng.uniform(0.17, 0.24)
    leg = rng.uniform(0.55, 0.75)

    def outline(phase: float) -> list[np.ndarray]:
        swing = 0.55 * np.sin(2 * np.pi * phase + np.array([0, np.pi, np.pi, 0]))
        hips = (-trunk + 0.12, -trunk + 0.25, trunk - 0.25, trunk - 0.12)
        legs = [_limb(x, 0.1, a, leg, 0.09) for x, a in zip(hips, swing, strict=True)]
        nod = 0.05 * np.sin(4 * np.pi * phase)
        face = _ellipse(trunk + 0.12, -neck - 0.12 + nod, head, head * 0.75, 0.3)
        throat = _ellipse(trunk - 0.02, -neck / 2, 0.15, neck / 2 + 0.2, 0.4)
        tail = _limb(-trunk + 0.05, -0.1, -2.0 + 0.4 * np.sin(2 * np.pi * phase), 0.45, 0.05)
        return [_ellipse(0, 0, trunk, 0.3), *legs, throat, face, tail]

    return outline


def _figure(rng: np.random.Generator) -> Outline:
    shoulder, hip = rng.uniform(0.2, 0.27), rng.uniform(0.15, 0.2)

    def outline(phase: float) -> list[np.ndarray]:
        swing = 0.5 * np.sin(2 * np.pi * phase)
        arms = [_limb(s * (shoulder - 0.04), -0.42, -s * swing * 0.7 + s * 0.4, 0.58, 0.075) for s in (-1, 1)]
        legs = [_limb(s * hip * 0.55, 0.12, s * (0.12 + swing * 0.6), 0.75, 0.11) for s in (-1, 1)]
        torso = _ellipse(0, -0.13, shoulder, 0.42)
        return [torso, *arms, *legs, _ellipse(0, -0.72, 0.15, 0.19), _ellipse(0, 0.15, hip, 0.15)]

    return outline


def _bird(rng: np.random.Generator) -> Outline:
    span = rng.uniform(0.75, 0.9)

    def outline(phase: float) -> list[np.ndarray]:
        lift = np.sin(2 * np.pi * phase)
        wings = [
            np.array([[s * 0.05, -0.12], [s * span * 0.55, -0.35 * lift - 0.12], [s * span, -0.6 * lift],
                      [s * span * 0.6, -0.2 * lift + 0.12], [s * 0.05, 0.18]])
            for s in (-1, 1)
        ]  # fmt: skip
        return [*wings, _ellipse(0, 0.02, 0.17, 0.38), _ellipse(0, -0.35, 0.12, 0.14)]

    return outline


def _ball(rng: np.random.Generator) -> Outline:
    radius = rng.uniform(0.6, 0.75)
    return lambda phase: [_ellipse(0, 0, radius, radius)]


def _case(rng: np.random.Generator) -> Outline:
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    width, height = rng.uniform(0.65, 0.9), rng.uniform(0.5, 0.75)
    body = np.stack([width * np.sign(cos) * abs(cos) ** 0.3, height * np.sign(sin) * abs(sin) ** 0.3], -1)
    return lambda phase: [body, _ellipse(0, -height, 0.25, 0.14)]


def _vase(rng: np.random.Generator) -> Outline:
    y = np.linspace(-0.95, 0.95, 60)
    knots = np.concatenate([rng.uniform(0.2, 0.3, 1), rng.uniform(0.18, 0.65, 4), rng.uniform(0.3, 0.42, 1)])
    half = cv2.GaussianBlur(np.interp(y, np.linspace(-0.95, 0.95, 6), knots)[:, None], (1, 0), 0.1, sigmaY=4)[:, 0]
    side = np.concatenate([np.stack([half, y], -1), np.stack([-half, y], -1)[::-1]])
    return lambda phase: [side]


# (outline, is it rigid), in the order in which objects get them.
OUTLINES: tuple[tuple[Callable[[np.random.Generator], Outline], bool], ...] = (
    (_animal, False),
    (_ball, True),
    (_figure, False),
    (_case, True),
    (_jelly, False),
    (_bird, False),
    (_vase, True),
)
BALL = 1
BIRD = 5
