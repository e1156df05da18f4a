"""Photographs prepared once: scenes with masks and inpainted holes, backgrounds and cut-outs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from engine.errors import StoreError, UsageError
from learning.footage import clip_group, is_held_out
from learning.synthesis.goods import goods_cutout
from learning.synthesis.meshes import VIEWS_PER_PILE, mesh_scenes, pybullet_available
from learning.synthesis.shapes import Rng, shape_cutout

CANVAS = (288, 504)
"""Height, width of a prepared picture: one eighth larger than the model input, so that a camera can move in it."""

SOURCES = ("people", "coco", "animals")
"""Folders with instance masks, in the order of the source ids."""

_CUTOUT_SIDE_PX = 208
_MIN_INSTANCE_PX = 900
_SHAPES = 3000
_MESH_SCENES = 300
_HELD_OUT_EVERY = 16

_VERSION = 2
"""Of the prepared files; counted up when what is prepared, or how it is split, changes."""

_CROPS = 3
"""Backgrounds cut from one picture."""


@dataclass(frozen=True)
class Library:
    """Everything a sample is composed of.

    What comes from one source (crops and cut-outs of a photograph, views of a settled pile, recordings of one scene)
    has one group number, and a group is wholly of the training or wholly of the held-out part (`choose`).

    Attributes:
        images: uint8 [S, 288, 504, 3] BGR scenes.
        clean: uint8 [S, 288, 504, 3], the same with every instance painted over.
        instances: uint8 [S, 288, 504], instance ids, 0 = none.
        sources: uint8 [S], index into SOURCES.
        backgrounds: uint8 [B, 288, 504, 3] BGR.
        surfaces: number of leading backgrounds that are plain surfaces (textures).
        pixels, offsets, shapes: cut-outs, uint8 RGBA (BGR order) stored one after another.
        shapes_from: index of the first procedural cut-out.
        origins: uint8 [C], index into SOURCES of every cut-out, len(SOURCES) for procedural ones.
        piles: uint8 [P, 288, 504, 3] BGR rendered piles of meshes; P is 0 when they could not be rendered.
        pile_ids: uint8 [P, 288, 504], their instance ids, 0 = none.
        image_groups, background_groups, cutout_groups, pile_groups: int64 [S], [B], [C], [P].
    """

    images: np.ndarray
    clean: np.ndarray
    instances: np.ndarray
    sources: np.ndarray
    backgrounds: np.ndarray
    surfaces: int
    pixels: np.ndarray
    offsets: np.ndarray
    shapes: np.ndarray
    shapes_from: int
    origins: np.ndarray
    piles: np.ndarray
    pile_ids: np.ndarray
    image_groups: np.ndarray
    background_groups: np.ndarray
    cutout_groups: np.ndarray
    pile_groups: np.ndarray

    def cutout(self, index: int) -> np.ndarray:
        """Cut-out `index`, uint8 [h, w, 4]."""
        h, w = self.shapes[index]
        start = self.offsets[index]
        return self.pixels[start : start + h * w * 4].reshape(h, w, 4)


def choose(rng: Rng, groups: np.ndarray, held_out: bool) -> int:
    """Random index into int64 `groups` whose group belongs to the training or to the held-out part.

    Raises:
        UsageError: that part is empty.
    """
    fitting = np.flatnonzero((groups % _HELD_OUT_EVERY == 0) == held_out)
    if not len(fitting):
        part = "held-out" if held_out else "training"
        raise UsageError(f"no {part} picture among {len(groups)} prepared ones: give more pictures as --data")
    return int(fitting[rng.integers(0, len(fitting))])


def _to_canvas(image: np.ndarray, interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    return cv2.resize(image, CANVAS[::-1], interpolation=interpolation)


def _crop_to_aspect(image: np.ndarray, aspect: float, rng: Rng) -> np.ndarray:
    h, w = image.shape[:2]
    ch, cw = (h, int(h * aspect)) if w / h > aspect else (int(w / aspect), w)
    y, x = int(rng.integers(0, h - ch + 1)), int(rng.integers(0, w - cw + 1))
    return image[y : y + ch, x : x + cw]


def _paint_over(image: np.ndarray, mask: np.ndarray, rng: Rng) -> np.ndarray:
    """Fill `mask` from its surroundings at quarter resolution, with grain so that the hole is not just blur."""
    hole = cv2.dilate(mask, np.ones((9, 9), np.uint8))
    small = (image.shape[1] // 4, image.shape[0] // 4)
    small_hole = (cv2.resize(hole, small, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    filled = cv2.inpaint(cv2.resize(image, small, interpolation=cv2.INTER_AREA), small_hole, 3, cv2.INPAINT_TELEA)
    filled = cv2.resize(filled, image.shape[1::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grain = image.astype(np.float32) - cv2.GaussianBlur(image, (0, 0), 3).astype(np.float32)
    shift = (int(rng.integers(40, 120)), int(rng.integers(60, 200)))
    filled += np.roll(np.where(hole[..., None] > 0, 0, grain), shift, axis=(0, 1))
    weight = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 1.5)[..., None]
    return np.clip(image * (1 - weight) + filled * weight, 0, 255).astype(np.uint8)


def _scene(image: np.ndarray, ids: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Canvas-sized image, painted-over image and ids; portrait pictures are widened with mirrored background."""
    h, w = image.shape[:2]
    aspect = float(rng.uniform(1.35, 2.0))
    if w / h < 1.2:
        rows = np.flatnonzero(ids.any(axis=1))
        height = int(h * rng.uniform(0.6, 1.0))
        top = int(np.clip((rows[0] if len(rows) else 0) - rng.integers(0, 30), 0, h - height))
        image, ids = image[top : top + height], ids[top : top + height]
    clean = _paint_over(image, (ids > 0).astype(np.uint8), rng)
    h, w = image.shape[:2]
    pad = min(int(h * aspect) - w, 2 * (w - 2))
    if pad > 0:
        left = int(rng.uniform(0.2, 0.8) * pad)
        left = min(max(left, pad - (w - 2)), w - 2)
        wide = cv2.copyMakeBorder(clean, 0, 0, left, pad - left, cv2.BORDER_REFLECT_101)
        image_wide = wide.copy()
        image_wide[:, left : left + w] = image
        ids = cv2.copyMakeBorder(ids, 0, 0, left, pad - left, cv2.BORDER_CONSTANT, value=0)
        image, clean = image_wide, wide
    else:
        width = int(h * aspect)
        x = int(rng.integers(0, w - width + 1))
        image, clean, ids = (a[:, x : x + width] for a in (image, clean, ids))
    return _to_canvas(image), _to_canvas(clean), _to_canvas(ids, cv2.INTER_NEAREST)


def _cutouts(image: np.ndarray, ids: np.ndarray) -> Iterable[np.ndarray]:
    h, w = ids.shape
    for value in np.unique(ids)[1:]:
        mask = (ids == value).astype(np.uint8)
        if mask.sum() < _MIN_INSTANCE_PX:
            continue
        x, y, bw, bh = cv2.boundingRect(mask)
        touching = (x <= 1) + (y <= 1) + (x + bw >= w - 1) + (y + bh >= h - 1)
        if touching > 2:
            continue
        mask = cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=1)
        alpha = cv2.GaussianBlur(mask * 255, (3, 3), 0)
        rgba = np.dstack([image, alpha])[y : y + bh, x : x + bw]
        rgba = cv2.copyMakeBorder(rgba, 2, 2, 2, 2, cv2.BORDER_REPLICATE)
        rgba[[0, 1, -2, -1], :, 3] = 0
        rgba[:, [0, 1, -2, -1], 3] = 0
        scale = min(1.0, _CUTOUT_SIDE_PX / max(rgba.shape[:2]))
        size = (max(8, int(rgba.shape[1] * scale)), max(8, int(rgba.shape[0] * scale)))
        yield cv2.resize(rgba, size, interpolation=cv2.INTER_AREA)


def _clip_frames(path: Path, count: int, rng: Rng) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    wanted = set(rng.integers(0, 45, count).tolist())
    frames = []
    for index in range(max(wanted) + 1):
        if not capture.grab():
            break
        if index in wanted:
            ok, frame = capture.retrieve()
            if ok:
                frames.append(frame)
    capture.release()
    return frames


def _save_piles(out: Path, rng: Rng, pictures: list[np.ndarray], count: int) -> None:
    scenes = []
    if pybullet_available():
        scenes = mesh_scenes(rng, pictures, count, CANVAS)
    else:
        print("pybullet is not installed: the library gets no rendered piles (pip install -e '.[sim]')")
    np.save(out / "piles.npy", np.array([s.image for s in scenes], np.uint8).reshape(-1, *CANVAS, 3))
    np.save(out / "pile_ids.npy", np.array([s.ids for s in scenes], np.uint8).reshape(-1, *CANVAS))


def build_library(data: Path, out: Path, seed: int, limit: int | None = None) -> Library:
    """Prepare every picture under `data` (layout of the shared data folder) into `out`, once.

    Args:
        limit: at most this many pictures per folder (for small tests).

    Raises:
        StoreError: `out` was prepared by another version.
    """
    out.mkdir(parents=True, exist_ok=True)
    if (out / "done").exists():
        return open_library(out)
    rng = np.random.default_rng(seed)
    scenes, cutouts = list[tuple[np.ndarray, np.ndarray, np.ndarray]](), list[np.ndarray]()
    sources, image_groups, origins, cutout_groups = (list[int]() for _ in range(4))
    photo = 0
    for source, name in enumerate(SOURCES):
        paths = sorted((data / name / "images").glob("*.jpg"))[:limit]
        for path in track(paths, description=f"preparing {name}"):
            image = cv2.imread(str(path))
            ids = cv2.imread(str(data / name / "instances" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
            ids = (ids if ids.ndim == 2 else ids[..., 0]).astype(np.uint8)
            for _ in range(2 if name == "coco" else 1):
                scenes.append(_scene(image, ids, rng))
                sources.append(source)
                image_groups.append(photo)
            cutouts.extend(_cutouts(image, ids))
            origins.extend([source] * (len(cutouts) - len(origins)))
            cutout_groups.extend([photo] * (len(cutouts) - len(cutout_groups)))
            photo += 1
    backgrounds, background_groups, surfaces = _backgrounds(data, rng, limit)
    shapes_from = len(cutouts)
    for number in range(_SHAPES if limit is None else max(2 * _HELD_OUT_EVERY, limit)):
        # Held-out shapes are covered with held-out pictures.
        picture = backgrounds[choose(rng, background_groups, number % _HELD_OUT_EVERY == 0)]
        cutouts.append((goods_cutout if rng.random() < 0.5 else shape_cutout)(rng, picture))
        origins.append(len(SOURCES))
        cutout_groups.append(number)
    _save_piles(out, rng, backgrounds[:surfaces], _MESH_SCENES if limit is None else 6)
    np.save(out / "images.npy", np.stack([s[0] for s in scenes]))
    np.save(out / "clean.npy", np.stack([s[1] for s in scenes]))
    np.save(out / "instances.npy", np.stack([s[2] for s in scenes]))
    np.save(out / "sources.npy", np.array(sources, np.uint8))
    np.save(out / "image_groups.npy", np.array(image_groups, np.int64))
    np.save(out / "origins.npy", np.array(origins, np.uint8))
    np.save(out / "cutout_groups.npy", np.array(cutout_groups, np.int64))
    np.save(out / "backgrounds.npy", np.stack(backgrounds))
    np.save(out / "background_groups.npy", background_groups)
    np.save(out / "pixels.npy", np.concatenate([c.reshape(-1) for c in cutouts]))
    np.save(out / "offsets.npy", np.cumsum([0, *(c.size for c in cutouts)])[:-1])
    np.save(out / "shapes.npy", np.array([c.shape[:2] for c in cutouts]))
    np.save(out / "counts.npy", np.array([surfaces, shapes_from]))
    (out / "done").write_text(f"{_VERSION}\n", encoding="ascii")
    return open_library(out)


def _backgrounds(data: Path, rng: Rng, limit: int | None) -> tuple[list[np.ndarray], np.ndarray, int]:
    """Backgrounds, plain surfaces first, their groups int64, and the number of surfaces."""
    backgrounds: list[np.ndarray] = []
    groups: list[int] = []
    textures = sorted((data / "textures").iterdir())[:limit]
    pictures = [*textures, *sorted((data / "photos").iterdir())[:limit]]
    for group, path in enumerate(pictures):
        image = cv2.imread(str(path))
        for _ in range(_CROPS):
            side = rng.uniform(0.6, 1.0)
            part = _crop_to_aspect(image, rng.uniform(1.4, 2.0), rng)
            h, w = int(part.shape[0] * side), int(part.shape[1] * side)
            y, x = int(rng.integers(0, part.shape[0] - h + 1)), int(rng.integers(0, part.shape[1] - w + 1))
            backgrounds.append(_to_canvas(part[y : y + h, x : x + w]))
            groups.append(group)
    # Clips kept apart measure networks trained on these pictures.
    clips = [path for path in sorted((data / "clips").glob("*/*.mp4")) if not is_held_out(path)][:limit]
    recorded = _numbered([clip_group(path.stem) for path in clips], len(pictures))
    for path, group in zip(track(clips, description="preparing clips"), recorded, strict=True):
        frames = [_to_canvas(frame) for frame in _clip_frames(path, 2, rng)]
        backgrounds += frames
        groups += [group] * len(frames)
    return backgrounds, np.array(groups, np.int64), _CROPS * len(textures)


def _numbered(names: Sequence[str], first: int) -> list[int]:
    """A number per name, the same for the same name, counted from `first` in order of appearance."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(name, first + len(numbers)) for name in names]


def open_library(out: Path) -> Library:
    """Memory-map a library written by `build_library`.

    Raises:
        StoreError: prepared by another version, or not to the end.
    """
    try:
        found = (out / "done").read_text(encoding="ascii").strip() or "1"
    except OSError:
        raise StoreError(f"{out}: no prepared pictures: make them with python -m learning.synthesis") from None
    if found != str(_VERSION):
        raise StoreError(f"{out}: pictures prepared by version {found}, this is {_VERSION}: give an empty --out folder")
    big = {
        n: np.load(out / f"{n}.npy", mmap_mode="r") for n in ("images", "clean", "instances", "backgrounds", "pixels")
    }
    names = ("sources", "offsets", "shapes", "origins", "piles", "pile_ids")
    groups = ("image_groups", "background_groups", "cutout_groups")
    small = {n: np.load(out / f"{n}.npy") for n in (*names, *groups)}
    surfaces, shapes_from = (int(v) for v in np.load(out / "counts.npy"))
    pile_groups = np.arange(len(small["piles"])) // VIEWS_PER_PILE
    return Library(**big, **small, surfaces=surfaces, shapes_from=shapes_from, pile_groups=pile_groups)
