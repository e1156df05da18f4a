"""Two families of objects that share no shapes.

Seen: solids out of a geometry book (boxes, cylinders, cones, balls) in plain colours or patterns. Unseen: the thousand
random meshes that pybullet ships, concave and of many parts, half of them covered with pieces of photographs. Meshes
of the videos never come back in the held-out stills.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from learning.synthesis.shapes import Rng, smooth_noise, surface

MESHES = 1000
_VIDEO_MESHES = 600
"""The meshes below this number are for the videos, the others for the held-out stills."""

_TEXTURE = (128, 128)


@dataclass(frozen=True)
class Solid:
    """Triangles of one object about the origin, within radius 1, three vertices each and not shared.

    Attributes:
        vertices, normals: float64 [3 T, 3].
        uvs: float64 [3 T, 2] in [0, 1].
    """

    vertices: np.ndarray
    normals: np.ndarray
    uvs: np.ndarray


def solid(triangles: np.ndarray) -> Solid:
    """Flat-shaded triangles float [T, 3, 3], centred and scaled, with the texture thrown on along the axes."""
    corners = triangles.reshape(-1, 3)
    centred = triangles - (corners.min(axis=0) + corners.max(axis=0)) / 2
    centred = centred / np.linalg.norm(centred, axis=2).max()
    normals = np.cross(centred[:, 1] - centred[:, 0], centred[:, 2] - centred[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    facing = np.abs(normals).argmax(axis=1)
    uvs = np.empty((len(centred), 3, 2))
    for axis, seen in enumerate(((1, 2), (0, 2), (0, 1))):
        uvs[facing == axis] = centred[facing == axis][:, :, seen] / 2 + 0.5
    return Solid(centred.reshape(-1, 3), np.repeat(normals, 3, axis=0), uvs.reshape(-1, 2))


def _turned(profile: np.ndarray, sides: int) -> np.ndarray:
    """Triangles of the body that a profile [n, 2] of (radius, height) sweeps about the z axis."""
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.concatenate(
        [
            profile[:, None, :1] * ring[None],
            np.broadcast_to(profile[:, None, 1:], (len(profile), sides + 1, 1)),
        ],
        axis=2,
    )
    a, b, c, d = points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]
    return np.concatenate([np.stack([a, b, c], axis=2), np.stack([a, c, d], axis=2)]).reshape(-1, 3, 3)


def seen_solid(rng: Rng) -> Solid:
    """A random box, cylinder, cone or ball."""
    kind = int(rng.integers(0, 4))
    if kind == 0:
        # A prism of four sides is a box.
        body = _turned(np.array([[0, -1], [1, -1], [1, 1], [0, 1.0]]), 4)
    elif kind == 1:
        body = _turned(np.array([[0, -1], [1, -1], [1, 1], [0, 1.0]]), 20)
    elif kind == 2:
        body = _turned(np.array([[0, -1], [1, -1], [rng.uniform(0, 0.5), 1], [0, 1.0]]), 20)
    else:
        turn = np.linspace(-np.pi / 2, np.pi / 2, 12)
        body = _turned(np.stack([np.cos(turn), np.sin(turn)], axis=1), 20)
    return solid(body * rng.uniform(0.45, 1.0, 3))


def mesh_solid(data: Path, number: int) -> Solid:
    """Mesh `number` of pybullet's random objects."""
    vertices, faces = [], []
    text = (data / "random_urdfs" / f"{number:03d}" / f"{number:03d}.obj").read_text(encoding="ascii")
    for words in map(str.split, text.splitlines()):
        if words[:1] == ["v"]:
            vertices.append([float(v) for v in words[1:4]])
        elif words[:1] == ["f"]:
            corner = [int(word.split("/")[0]) - 1 for word in words[1:]]
            faces += [[corner[0], corner[i], corner[i + 1]] for i in range(1, len(corner) - 1)]
    return solid(np.array(vertices)[np.array(faces)])


def unseen_solid(rng: Rng, data: Path, held_out: bool) -> Solid:
    """A random mesh of the videos' part or of the held-out part."""
    low, high = (_VIDEO_MESHES, MESHES) if held_out else (0, _VIDEO_MESHES)
    return mesh_solid(data, int(rng.integers(low, high)))


def seen_surface(rng: Rng) -> np.ndarray:
    """A nearly plain colour or a pattern, uint8 [128, 128, 3]."""
    if rng.random() < 0.5:
        return surface(rng, _TEXTURE, None)
    base = rng.uniform(30, 240, 3)
    grain = rng.uniform(0, 14) * smooth_noise(rng, _TEXTURE, int(rng.integers(2, 12)))[..., None]
    return np.clip(base + grain, 0, 255).astype(np.uint8)


def unseen_surface(rng: Rng, pictures: list[np.ndarray]) -> np.ndarray:
    """A pattern or a piece of a photograph, uint8 [128, 128, 3]."""
    return surface(rng, _TEXTURE, pictures[int(rng.integers(0, len(pictures)))])
