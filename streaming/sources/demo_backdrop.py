"""The static world of the built-in scene: a wall, a floor in perspective, clutter and poles."""

import cv2
import numpy as np

from streaming.sources.demo_sprites import SUPERSAMPLING, Sprite, shaded_sprite
from streaming.sources.demo_textures import Palette, bricks, colorize, noise

THEMES = ("room", "yard", "garden")

WALLS: dict[str, Palette] = {
    "room": ((150, 168, 176), (176, 194, 204), (196, 212, 220)),
    "yard": ((48, 62, 104), (74, 96, 146), (110, 134, 172)),
    "garden": ((22, 50, 34), (44, 86, 62), (88, 130, 104)),
}
FLOORS: dict[str, Palette] = {
    "room": ((40, 70, 104), (66, 104, 146), (102, 146, 184)),
    "yard": ((112, 118, 122), (140, 146, 150), (172, 176, 178)),
    "garden": ((30, 72, 52), (52, 112, 84), (92, 156, 128)),
}
WOOD: Palette = ((36, 52, 74), (62, 86, 116), (104, 130, 160))
METAL: Palette = ((70, 70, 68), (120, 120, 118), (176, 176, 172))


def paint_backdrop(
    rng: np.random.Generator, size: tuple[int, int], horizon_px: int, unit_px: float, theme: str
) -> np.ndarray:
    """Paint the world that the camera pans over.

    Args:
        rng: decides what is painted.
        size: (height, width) of the canvas in pixels.
        horizon_px: row in which the wall meets the floor.
        unit_px: height of the camera's frame; everything scales with it.
        theme: one of `THEMES`.

    Returns:
        uint8 [H, W, 3] BGR.
    """
    height, width = size
    wall = _wall(rng, (horizon_px, width), unit_px, theme)
    floor = _floor(rng, (height - horizon_px, width), unit_px, theme)
    canvas = np.concatenate([wall, floor])
    # Light gathers less in the corner between wall and floor, and falls off towards the sides.
    rows = np.arange(height, dtype=np.float32)[:, None] - horizon_px
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    corner = 1 - 0.3 * np.exp(-np.abs(rows) / (0.05 * unit_px))
    spread = 1.06 - 0.2 * (columns + 0.25) ** 2
    clouds = 0.9 + 0.2 * noise(rng, size, unit_px * 0.7, 2)
    return np.clip(canvas * (corner * spread * clouds)[..., None], 0, 255).astype(np.uint8)


def make_pole(rng: np.random.Generator, length_px: int, thick_px: int) -> Sprite:
    """A post or trunk that stands in front of things but belongs to the background."""
    size = (SUPERSAMPLING * length_px, SUPERSAMPLING * thick_px)
    grain = noise(rng, (size[0] // 12 + 1, size[1]), size[1] * 0.5, 4)
    grain = cv2.resize(grain, size[::-1], interpolation=cv2.INTER_CUBIC)
    surface = colorize(np.clip(grain, 0, 1), WOOD if rng.random() < 0.6 else METAL)
    across = np.linspace(-1, 1, size[1], dtype=np.float32)
    surface *= (0.65 + 0.5 * np.sqrt(np.clip(1 - (across + 0.3) ** 2, 0, 1)))[None, :, None]
    mask = np.zeros(size, np.uint8)
    margin = max(1, size[1] // 10)
    mask[:, margin:-margin] = 255
    return Sprite((shaded_sprite(surface, mask),), (thick_px / 2, float(length_px)))


def _wall(rng: np.random.Generator, size: tuple[int, int], unit_px: float, theme: str) -> np.ndarray:
    palette = WALLS[theme]
    if theme == "yard":
        wall = bricks(rng, size, (unit_px * 0.04, unit_px * 0.1), palette)
    elif theme == "garden":
        leaves = 0.5 * noise(rng, size, unit_px * 0.3, 3) + 0.5 * noise(rng, size, unit_px * 0.03, 2)
        wall = colorize(leaves, palette)
        _sky(rng, wall, unit_px)
    else:
        plaster = 0.35 + 0.25 * noise(rng, size, unit_px * 0.25, 6)
        bands = (np.arange(size[1]) // max(1, round(unit_px * 0.05)) % 2)[None, :] * 0.12
        wall = colorize(np.clip(plaster + bands, 0, 1), palette)
    if theme != "garden":
        for centre in np.arange(0.12, 1, 0.22) * size[1]:
            _panel(rng, wall, centre + rng.uniform(-0.1, 0.1) * unit_px, unit_px)
        board_px = max(2, round(unit_px * 0.035))
        wall[-board_px:] = 0.35 * wall[-board_px:] + 0.5 * np.array(palette[0], np.float32)
    return wall


def _sky(rng: np.random.Generator, wall: np.ndarray, unit_px: float) -> None:
    """Open the upper part of a hedge to the sky along an uneven edge."""
    height, width = wall.shape[:2]
    edge = (0.35 + 0.25 * noise(rng, (1, width), unit_px * 0.4, 5)[0]) * height
    share = np.clip((edge[None, :] - np.arange(height)[:, None]) / 2, 0, 1)[..., None].astype(np.float32)
    haze = colorize(noise(rng, (height, width), unit_px * 0.6, 4), ((206, 176, 140), (222, 204, 182), (236, 230, 224)))
    wall[:] = share * haze + (1 - share) * wall


def _panel(rng: np.random.Generator, wall: np.ndarray, centre_px: float, unit_px: float) -> None:
    """A framed picture or window on the wall."""
    high, wide = (round(unit_px * rng.uniform(*span)) for span in ((0.18, 0.34), (0.14, 0.3)))
    top = wall.shape[0] - round(unit_px * rng.uniform(0.16, 0.26)) - high
    left = round(centre_px) - wide // 2
    if top < 0 or left < 0 or left + wide > wall.shape[1]:
        return
    edge = max(2, round(unit_px * 0.014))
    shade = cv2.GaussianBlur(np.pad(np.ones((high, wide), np.float32), edge * 3), (0, 0), edge)
    y0, x0 = max(0, top - edge * 2), max(0, left - edge * 2)
    area = wall[y0 : top + high + edge * 4, x0 : left + wide + edge * 4]
    area *= 1 - 0.35 * shade[: area.shape[0], : area.shape[1], None]
    wall[top : top + high, left : left + wide] = colorize(noise(rng, (high, wide), unit_px * 0.1, 4), WOOD)
    inner = (high - 2 * edge, wide - 2 * edge)
    tones = [
        (low + int(blue), low + int(green), low + int(red))
        for low, (blue, green, red) in zip((40, 90, 150), rng.integers(0, 80, (3, 3)), strict=True)
    ]
    ramp = np.linspace(0, 0.6, inner[0], dtype=np.float32)[:, None]
    scene = colorize(np.clip(ramp + 0.5 * noise(rng, inner, unit_px * 0.12, 4), 0, 1), tones)
    wall[top + edge : top + high - edge, left + edge : left + wide - edge] = scene


def _floor(rng: np.random.Generator, size: tuple[int, int], unit_px: float, theme: str) -> np.ndarray:
    """A floor seen at a slant: painted from above, then projected."""
    height, width = size
    flat_size = (round(unit_px * 1.6), round(width * 1.2))
    if theme == "garden":
        blades = 0.55 * noise(rng, flat_size, unit_px * 0.5, 3) + 0.45 * noise(rng, flat_size, unit_px * 0.02, 2)
        flat = colorize(blades, FLOORS[theme])
        _strew(rng, flat, unit_px, ((210, 225, 235), (90, 190, 225), (180, 140, 200)), 0.004, 160)
        _strew(rng, flat, unit_px, ((60, 84, 100), (110, 120, 124)), 0.012, 40)
    elif theme == "yard":
        flat = bricks(rng, flat_size, (unit_px * 0.16, unit_px * 0.2), FLOORS[theme])
        _strew(rng, flat, unit_px, ((40, 90, 120), (50, 70, 84), (60, 120, 140)), 0.009, 90)
    else:
        flat = bricks(rng, flat_size, (unit_px * 0.07, unit_px * 0.8), FLOORS[theme])
        _rug(rng, flat, unit_px)
    flat_height, flat_width = flat_size
    overhang = width * 0.45
    seen = np.array([[0, 0], [width, 0], [width + overhang, height], [-overhang, height]], np.float32) * 2
    whole = np.array([[0, 0], [flat_width, 0], [flat_width, flat_height], [0, flat_height]], np.float32)
    projection = cv2.getPerspectiveTransform(whole, seen)
    # Twice the size first: the far rows squeeze many texture rows into one.
    large = cv2.warpPerspective(flat, projection, (width * 2, height * 2), borderMode=cv2.BORDER_REFLECT)
    return cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)


def _rug(rng: np.random.Generator, flat: np.ndarray, unit_px: float) -> None:
    height, width = flat.shape[:2]
    x0, x1 = round(width * 0.3), round(width * rng.uniform(0.55, 0.7))
    y0, y1 = round(height * 0.3), round(height * 0.8)
    y, x = np.mgrid[: y1 - y0, : x1 - x0].astype(np.float32)
    border_px = np.minimum.reduce([x, y, x1 - x0 - 1 - x, y1 - y0 - 1 - y])
    lines = (np.floor(border_px / (unit_px * 0.05)) % 3) / 2.5
    weave = 0.25 * noise(rng, (y1 - y0, x1 - x0), unit_px * 0.08, 4)
    flat[y0:y1, x0:x1] = colorize(np.clip(lines * 0.7 + weave, 0, 1), ((66, 60, 92), (120, 116, 148), (168, 176, 190)))


def _strew(
    rng: np.random.Generator, flat: np.ndarray, unit_px: float, colours: Palette, radius: float, count: int
) -> None:
    """Scatter small flat things: flowers, stones, leaves."""
    for _ in range(count):
        centre = (int(rng.integers(flat.shape[1])), int(rng.integers(flat.shape[0])))
        axes = tuple(max(1, round(unit_px * radius * rng.uniform(0.6, 1.6))) for _ in range(2))
        tone = np.array(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.75, 1.1)
        cv2.ellipse(
            flat,
            centre,
            axes,
            float(rng.uniform(0, 180)),
            0,
            360,
            tone.clip(0, 255).tolist(),
            -1,
            cv2.LINE_AA,
        )
