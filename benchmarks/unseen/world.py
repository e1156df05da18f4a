"""Rendered stills and videos over photographs, each part of them made once and kept in one file."""

import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType

import cv2
import numpy as np
from rich.progress import track

from benchmarks.unseen.families import seen_solid, seen_surface, unseen_solid, unseen_surface
from benchmarks.unseen.plan import SIZE, Plan
from engine.errors import SourceError
from learning.synthesis.shapes import Rng

_SUPERSAMPLED = 2
_TEXTURES = 80
_EYE = 3.0
_FIELD_DEG = 30.0
_MIN_VISIBLE_PX = 60
_MOST_OBJECTS = 5

_PAN_PX, _DRIFT_PX, _SPIN_DEG = 1.6, (4.0, 3.0, 1.2), 4.0
"""Deviations of the camera's, and of the objects' own, motion per frame: of videos of six to ten frames a second."""

_PARTS = ("train", "check", "seen", "unseen", "video")


@dataclass(frozen=True)
class Pictures:
    """Frames or stills with their truth.

    Attributes:
        layers: uint8 [n, h, w, 4] BGR and alpha of the objects, without background; of a video n is 0.
        images: uint8 [n, h, w, 3] BGR, the same over photographs.
        ids: uint8 [n, h, w] visible instances, 0 = background.
    """

    layers: np.ndarray
    images: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def read_backgrounds(data: Path, seed: int) -> dict[str, list[np.ndarray]]:
    """Photographs and surfaces, uint8 [h, w, 3] BGR, divided between base training, videos and held-out stills.

    Raises:
        SourceError: fewer than three pictures.
    """
    paths = sorted([*(data / "photos").glob("*"), *(data / "textures").glob("*")])
    read = (cv2.imread(str(path)) for path in paths)
    pictures = [picture for picture in read if picture is not None and min(picture.shape[:2]) >= 120]
    if len(pictures) < 3:
        raise SourceError(f"--data {data}: {len(pictures)} pictures in photos/ and textures/, at least 3 are needed")
    order = np.random.default_rng([seed, 77]).permutation(len(pictures))
    cuts = {"train": order[::2], "video": order[1::4], "held": order[3::4]}
    return {name: [pictures[i] for i in chosen] for name, chosen in cuts.items()}


class Background:
    """A photograph that a camera pans over."""

    def __init__(self, rng: Rng, picture: np.ndarray) -> None:
        h, w = picture.shape[:2]
        # The smallest zoom that leaves room for the whole pan.
        self._scale = max(SIZE[0] / h, SIZE[1] / w) * rng.uniform(1.25, 2.2)
        self._picture = picture
        self._at = rng.uniform(0.25, 0.75, 2) * (w, h)
        self._pan = rng.normal(0, _PAN_PX, 2)
        self._turn, self._zoom = rng.normal(0, 0.003), rng.normal(0, 0.003)

    @property
    def pan(self) -> np.ndarray:
        """Pixels per frame that the picture moves by on the screen, (x, y)."""
        return self._pan

    def frame(self, t: float) -> np.ndarray:
        """uint8 [h, w, 3] as seen at frame `t`."""
        c, s = np.cos(self._turn * t), np.sin(self._turn * t)
        scale = self._scale * (1 + self._zoom * t)
        linear = scale * np.array([[c, -s], [s, c]])
        shift = np.array([SIZE[1], SIZE[0]]) / 2 + self._pan * t - linear @ self._at
        matrix = np.hstack([linear, shift[:, None]])
        flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return cv2.warpAffine(self._picture, matrix, SIZE[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def over(layer: np.ndarray, background: np.ndarray) -> np.ndarray:
    """A layer uint8 [h, w, 4] over a picture uint8 [h, w, 3]."""
    alpha = layer[..., 3:].astype(np.float32) / 255
    return np.rint(layer[..., :3] * alpha + background * (1 - alpha)).astype(np.uint8)


class Renderer:
    """pybullet's software rasteriser with the textures of both families loaded; a context manager.

    Raises:
        SourceError: pybullet is not installed.
    """

    def __init__(self, rng: Rng, pictures: list[np.ndarray]) -> None:
        try:
            self._bullet: ModuleType = importlib.import_module("pybullet")
            self._data = Path(importlib.import_module("pybullet_data").getDataPath())
        except ImportError:
            raise SourceError("pybullet is not installed: pip install -e '.[sim]'") from None
        self._client = self._bullet.connect(self._bullet.DIRECT)
        self._textures: dict[bool, list[int]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for seen in (True, False):
                self._textures[seen] = []
                for number in range(_TEXTURES):
                    path = Path(folder) / f"{int(seen)}_{number}.png"
                    cv2.imwrite(str(path), seen_surface(rng) if seen else unseen_surface(rng, pictures))
                    self._textures[seen].append(self._bullet.loadTexture(str(path)))

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bullet.disconnect(self._client)

    def scene(self, rng: Rng, seen: bool, held_out: bool, background: Background, count: int) -> "Scene":
        """A few objects of one family before a background."""
        bodies = []
        for _ in range(count):
            shape = seen_solid(rng) if seen else unseen_solid(rng, self._data, held_out)
            size = float(rng.uniform(0.24, 0.42) if seen else rng.uniform(0.3, 0.5))
            look = self._bullet.createVisualShape(
                self._bullet.GEOM_MESH,
                vertices=(shape.vertices * size).tolist(),
                indices=list(range(len(shape.vertices))),
                normals=shape.normals.tolist(),
                uvs=shape.uvs.tolist(),
            )
            body = self._bullet.createMultiBody(0, -1, look)
            texture = self._textures[seen][int(rng.integers(0, _TEXTURES))]
            self._bullet.changeVisualShape(body, -1, rgbaColor=[1, 1, 1, 1], textureUniqueId=texture)
            bodies.append(body)
        return Scene(self._bullet, rng, bodies, background)


class Scene:
    """Objects that drift and turn, each its own way, while the camera pans; a context manager."""

    def __init__(self, bullet: ModuleType, rng: Rng, bodies: list[int], background: Background) -> None:
        self._bullet, self._bodies, self._background = bullet, bodies, background
        count = len(bodies)
        self._at = rng.uniform(-1, 1, (count, 3)) * (1.15, 0.6, 0.35)
        per_px = 2 * _EYE * np.tan(np.radians(_FIELD_DEG) / 2) / SIZE[0]
        speed = rng.normal(0, 1, (count, 3)) * _DRIFT_PX * (rng.random((count, 1)) < 0.85)
        pan = np.array([background.pan[0], -background.pan[1], 0.0])
        # What is near moves more than the photograph behind it.
        self._speed = per_px * (speed + pan * rng.uniform(1.0, 1.5, (count, 1)))
        self._turned = [bullet.getQuaternionFromEuler(rng.uniform(0, 2 * np.pi, 3).tolist()) for _ in bodies]
        self._axis = rng.normal(0, 1, (count, 3))
        self._spin = rng.normal(0, np.radians(_SPIN_DEG), count) * (rng.random(count) < 0.7)
        self._light = [*rng.uniform(-0.8, 0.8, 2).tolist(), 1.0]
        self._ambient, self._diffuse = float(rng.uniform(0.35, 0.6)), float(rng.uniform(0.35, 0.6))
        self._view = bullet.computeViewMatrix([0, 0, _EYE], [0, 0, 0], [0, 1, 0])
        self._lens = bullet.computeProjectionMatrixFOV(_FIELD_DEG, SIZE[1] / SIZE[0], 0.1, 10)

    def __enter__(self) -> "Scene":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for body in self._bodies:
            self._bullet.removeBody(body)

    def _place(self, t: float) -> None:
        for i, body in enumerate(self._bodies):
            # Turned back at the walls of a box about the view, so that objects stay in sight.
            at = self._at[i] + self._speed[i] * t
            for axis, wall in enumerate((1.3, 0.72, 0.5)):
                at[axis] = wall - abs((at[axis] + wall) % (4 * wall) - 2 * wall)
            turn = self._bullet.getQuaternionFromAxisAngle(self._axis[i].tolist(), float(self._spin[i] * t))
            _, turned = self._bullet.multiplyTransforms([0, 0, 0], turn, [0, 0, 0], self._turned[i])
            self._bullet.resetBasePositionAndOrientation(body, at.tolist(), turned)

    def picture(self, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Layer uint8 [h, w, 4], image uint8 [h, w, 3] and ids uint8 [h, w] at frame `t`."""
        self._place(t)
        h, w = SIZE[0] * _SUPERSAMPLED, SIZE[1] * _SUPERSAMPLED
        _, _, rgba, _, found = self._bullet.getCameraImage(
            w,
            h,
            self._view,
            self._lens,
            lightDirection=self._light,
            lightAmbientCoeff=self._ambient,
            lightDiffuseCoeff=self._diffuse,
            lightSpecularCoeff=0.1,
            shadow=0,
            renderer=self._bullet.ER_TINY_RENDERER,
        )
        bodies = np.reshape(found, (h, w))
        covered = np.isin(bodies, self._bodies).astype(np.float32)
        colour = np.reshape(rgba, (h, w, 4))[..., 2::-1].astype(np.float32) * covered[..., None]
        share = cv2.resize(covered, SIZE[::-1], interpolation=cv2.INTER_AREA)
        mean = cv2.resize(colour, SIZE[::-1], interpolation=cv2.INTER_AREA) / np.maximum(share, 1e-3)[..., None]
        layer = np.dstack([np.clip(mean, 0, 255), share * 255]).astype(np.uint8)
        fine = np.zeros((h, w), np.uint8)
        for number, body in enumerate(self._bodies, 1):
            fine[bodies == body] = number
        ids = fine[::_SUPERSAMPLED, ::_SUPERSAMPLED] * (share >= 0.5)
        for number in range(1, len(self._bodies) + 1):
            # What can hardly be seen is asked of nobody.
            if (ids == number).sum() < _MIN_VISIBLE_PX:
                ids[ids == number] = 0
        return layer, over(layer, self._background.frame(t)), ids


class World:
    """All pictures of one seed, below one folder; what is missing there is rendered.

    Args:
        data: folder with photos/ and textures/.
    """

    def __init__(self, folder: Path, data: Path, plan: Plan, seed: int) -> None:
        self._folder, self._data, self._plan, self._seed = folder, data, plan, seed
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, part: str, number: int = 0) -> Path:
        return self._folder / f"{part}_{number:03d}.npz"

    def _items(self) -> list[tuple[str, int]]:
        stills = [(part, 0) for part in ("train", "check", "seen", "unseen")]
        return stills + [("video", number) for number in range(self._plan.videos)]

    def render(self) -> None:
        """Make every part that is not there yet; each is a function of the seed alone.

        Raises:
            SourceError: pybullet or the photographs are missing.
        """
        missing = [item for item in self._items() if not self._path(*item).exists()]
        if not missing:
            return
        backgrounds = read_backgrounds(self._data, self._seed)
        with Renderer(np.random.default_rng([self._seed, 5]), backgrounds["train"]) as renderer:
            for part, number in track(missing, description="rendering"):
                rng = np.random.default_rng([self._seed, _PARTS.index(part), number])
                if part == "video":
                    pictures = self._video(renderer, rng, backgrounds["video"])
                else:
                    held = part in ("seen", "unseen")
                    count = getattr(self._plan, f"{part}_stills")
                    source = backgrounds["held" if held else "train"]
                    pictures = self._stills(renderer, rng, source, count, part != "unseen", held)
                path = self._path(part, number)
                partial = path.with_suffix(".part")
                with partial.open("wb") as file:
                    np.savez(file, layers=pictures.layers, images=pictures.images, ids=pictures.ids)
                partial.rename(path)

    def _stills(
        self, renderer: Renderer, rng: Rng, backgrounds: list[np.ndarray], count: int, seen: bool, held_out: bool
    ) -> Pictures:
        made = []
        for _ in range(count):
            background = Background(rng, backgrounds[int(rng.integers(0, len(backgrounds)))])
            number = int(rng.integers(1, _MOST_OBJECTS + 1))
            with renderer.scene(rng, seen, held_out, background, number) as scene:
                made.append(scene.picture(0.0))
        return Pictures(*(np.stack(values) for values in zip(*made, strict=True)))

    def _video(self, renderer: Renderer, rng: Rng, backgrounds: list[np.ndarray]) -> Pictures:
        background = Background(rng, backgrounds[int(rng.integers(0, len(backgrounds)))])
        number = int(rng.integers(2, _MOST_OBJECTS + 1))
        with renderer.scene(rng, False, False, background, number) as scene:
            made = [scene.picture(float(t)) for t in range(self._plan.frames)]
        _, images, ids = (np.stack(values) for values in zip(*made, strict=True))
        return Pictures(np.empty((0, *SIZE, 4), np.uint8), images, ids)

    def pictures(self, part: str, number: int = 0) -> Pictures:
        """A part that has been rendered: train, check, seen, unseen, or video with its number."""
        with np.load(self._path(part, number)) as stored:
            return Pictures(stored["layers"], stored["images"], stored["ids"])
