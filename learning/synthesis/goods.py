"""Procedural goods as they lie in bins: cartons, cloth, wrapped packages, cans and tools."""

import cv2
import numpy as np

from learning.synthesis.shapes import SIDE_PX, Rng, fill, fit, radial, shaded_box, smooth_noise, surface

_SIZE = (SIDE_PX, SIDE_PX)
_Y, _X = np.mgrid[0:SIDE_PX, 0:SIDE_PX].astype(np.float32)


def print_on(rng: Rng, colour: np.ndarray) -> None:
    """Print labels, tape, bars and lines of text-like marks on uint8 [h, w, 3], in place."""
    h, w = colour.shape[:2]
    if rng.random() < 0.5:
        tape = rng.uniform(120, 230, 3) * np.array([0.8, 0.95, 1.0])
        at, width = int(rng.uniform(0.2, 0.8) * h), int(rng.uniform(0.05, 0.14) * h)
        band = colour[at : at + width].astype(np.float32)
        colour[at : at + width] = (0.45 * band + 0.55 * tape).astype(np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        lw, lh = int(rng.uniform(0.15, 0.5) * w), int(rng.uniform(0.1, 0.35) * h)
        x, y = int(rng.integers(0, w - lw)), int(rng.integers(0, h - lh))
        paper = rng.uniform(180, 255, 3) if rng.random() < 0.6 else rng.uniform(10, 240, 3)
        cv2.rectangle(colour, (x, y), (x + lw, y + lh), paper.tolist(), -1)
        ink = rng.uniform(0, 70, 3).tolist() if paper.mean() > 110 else rng.uniform(190, 255, 3).tolist()
        if rng.random() < 0.4:
            for column in range(x + 3, x + lw - 3, 2):
                if rng.random() < 0.55:
                    cv2.line(colour, (column, y + 3), (column, y + lh - 3), ink, 1)
            continue
        for row in range(y + 4, y + lh - 2, int(rng.integers(4, 9))):
            column = x + 3
            while column < x + lw - 4:
                length = int(rng.integers(2, 9))
                cv2.line(colour, (column, row), (min(column + length, x + lw - 3), row), ink, int(rng.integers(1, 3)))
                column += length + 3


def carton(rng: Rng, picture: np.ndarray | None) -> np.ndarray:
    """A printed box: seen flat from above, or with three faces."""
    if rng.random() < 0.6:
        base = np.array([95, 140, 180]) * rng.uniform(0.6, 1.2) + rng.normal(0, 12, 3)
        grain = rng.uniform(2, 9) * smooth_noise(rng, _SIZE, int(rng.integers(4, 30)))[..., None]
        colour = np.clip(base + grain, 0, 255).astype(np.uint8)
    else:
        colour = surface(rng, _SIZE, picture)
    if rng.random() < 0.8:
        print_on(rng, colour)
    if rng.random() < 0.5:
        return shaded_box(rng, colour)
    aspect = np.exp(rng.uniform(-0.9, 0))
    corners = np.array([[-1, -aspect], [1, -aspect], [1, aspect], [-1, aspect]]) + rng.normal(0, 0.025, (4, 2))
    alpha = np.zeros(_SIZE, np.uint8)
    fill(alpha, fit(corners))
    if rng.random() < 0.5:
        # The seam of the two flaps.
        at = SIDE_PX // 2
        colour[at - 1 : at + 1] = (colour[at - 1 : at + 1] * rng.uniform(0.4, 0.8)).astype(np.uint8)
    ramp = 1 + rng.uniform(-0.25, 0.25) * (_X / SIDE_PX - 0.5) + rng.uniform(-0.25, 0.25) * (_Y / SIDE_PX - 0.5)
    return np.dstack([np.clip(colour * ramp[..., None], 0, 255).astype(np.uint8), alpha])


def cloth(rng: Rng, picture: np.ndarray | None) -> np.ndarray:
    """Cloth with ridged folds, black or dark in two cases of three."""
    if rng.random() < 0.65:
        base = rng.uniform(6, 45) + rng.normal(0, 4, 3)
        colour = np.broadcast_to(base, (*_SIZE, 3)).astype(np.float32)
    else:
        colour = surface(rng, _SIZE, picture).astype(np.float32)
    folds = 1 - np.abs(smooth_noise(rng, _SIZE, int(rng.integers(3, 8))))
    folds += 0.5 * smooth_noise(rng, _SIZE, int(rng.integers(8, 16)))
    # Folds show on black cloth as well: they add light instead of only scaling it.
    out = (
        colour * (1 + rng.uniform(0.15, 0.4) * folds[..., None]) + rng.uniform(2, 12) * np.maximum(folds, 0)[..., None]
    )
    alpha = np.zeros(_SIZE, np.uint8)
    fill(alpha, fit(radial(rng, int(rng.integers(4, 11)))))
    return np.dstack([np.clip(out, 0, 255).astype(np.uint8), alpha])


def package(rng: Rng, picture: np.ndarray | None) -> np.ndarray:
    """A plastic bag or wrapped item: crinkled outline and streaks of reflected light."""
    colour = surface(rng, _SIZE, picture)
    if rng.random() < 0.5:
        print_on(rng, colour)
    aspect, turns = np.exp(rng.uniform(-0.8, 0)), np.linspace(0, 2 * np.pi, 90, endpoint=False)
    power = rng.uniform(0.35, 0.7)
    c, s = np.cos(turns), np.sin(turns)
    outline = np.stack([np.sign(c) * np.abs(c) ** power, aspect * np.sign(s) * np.abs(s) ** power], axis=1)
    outline *= 1 + rng.normal(0, 0.02, (len(turns), 1))
    alpha = np.zeros(_SIZE, np.uint8)
    fill(alpha, fit(outline))
    stretched = cv2.resize(smooth_noise(rng, (SIDE_PX, SIDE_PX // 2), int(rng.integers(4, 10))), _SIZE)
    streak = np.maximum(stretched - rng.uniform(0.9, 1.5), 0) + 0.6 * np.maximum(
        smooth_noise(rng, _SIZE, int(rng.integers(6, 18))) - 1.4, 0
    )
    out = colour * (1 + 0.12 * stretched[..., None]) + rng.uniform(80, 220) * streak[..., None]
    return np.dstack([np.clip(out, 0, 255).astype(np.uint8), alpha])


def cylinder(rng: Rng, picture: np.ndarray | None) -> np.ndarray:
    """A can or bottle lying on its side: shading across, a highlight along, sometimes a neck and a label."""
    colour = surface(rng, _SIZE, picture).astype(np.float32)
    width, length = rng.uniform(0.22, 0.7), 1.0
    outline = [[-width, -length], [width, -length], [width, length], [-width, length]]
    if rng.random() < 0.5:
        neck = width * rng.uniform(0.3, 0.6)
        outline = [[-neck, -1.4], [neck, -1.4], [neck, -1.1], [width, -0.75], [width, 1], [-width, 1], [-width, -0.75]]
        outline.append([-neck, -1.1])
    points = fit(np.array(outline))
    alpha = np.zeros(_SIZE, np.uint8)
    fill(alpha, points)
    low, high = points[:, 0].min(), points[:, 0].max()
    across = np.clip(2 * (_X - low) / (high - low) - 1, -1, 1)
    if rng.random() < 0.6:
        at, side = rng.uniform(0.35, 0.6) * SIDE_PX, rng.uniform(0.12, 0.3) * SIDE_PX
        label = surface(rng, _SIZE, picture)
        print_on(rng, label)
        band = np.abs(_Y - at) < side
        colour[band] = label[band]
    light = rng.uniform(-0.6, 0.6)
    shade = np.sqrt(np.maximum(1 - 0.85 * (across - light) ** 2, 0.06))
    gloss = np.exp(-(((across - light) / rng.uniform(0.04, 0.2)) ** 2)) * rng.uniform(0, 170)
    return np.dstack([np.clip(colour * shade[..., None] + gloss[..., None], 0, 255).astype(np.uint8), alpha])


def tool(rng: Rng, picture: np.ndarray | None) -> np.ndarray:
    """Something thin with a handle and a head, in two materials."""
    alpha = np.zeros(_SIZE, np.uint8)
    metal = np.full((*_SIZE, 3), rng.uniform(70, 200), np.float32) + rng.normal(0, 5, 3)
    metal *= 1 + 0.3 * np.sin(_X * rng.uniform(0.05, 0.2))[..., None]
    colour = np.clip(metal, 0, 255).astype(np.uint8)
    middle, thick = SIDE_PX / 2, rng.uniform(3, 11)
    bar = [[middle - thick, 8], [middle + thick, 8], [middle + thick, SIDE_PX - 8], [middle - thick, SIDE_PX - 8]]
    fill(alpha, np.array(bar, np.float32))
    grip = np.zeros_like(alpha)
    top = rng.uniform(0.4, 0.7) * SIDE_PX
    wide = thick * rng.uniform(1.1, 1.9)
    handle = [[middle - wide, top], [middle + wide, top], [middle + wide, SIDE_PX - 6], [middle - wide, SIDE_PX - 6]]
    fill(grip, np.array(handle, np.float32))
    colour[grip > 0] = surface(rng, _SIZE, None)[grip > 0]
    head = (radial(rng, 3) * rng.uniform(10, 30) + np.array([middle, 26])).astype(np.float32)
    fill(alpha, head)
    return np.dstack([colour, np.maximum(alpha, grip)])


_GOODS = (carton, carton, cloth, package, cylinder, tool)


def goods_cutout(rng: Rng, picture: np.ndarray | None) -> np.ndarray:
    """One random item, uint8 [SIDE_PX, SIDE_PX, 4] BGR and alpha."""
    return _GOODS[int(rng.integers(0, len(_GOODS)))](rng, picture)
