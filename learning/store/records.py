"""One stored frame and its selections; pictures and masks are decoded when asked for."""

import hashlib
from dataclasses import dataclass, field

import cv2
import numpy as np

from engine.errors import StoreError
from engine.rle import RleError, decode_rle

_BLOCK_NS = 20 * 10**9
"""Neighbouring frames are alike: a split takes or leaves whole blocks of 20 seconds."""

_HELD_OUT_EVERY = 5


@dataclass(frozen=True, slots=True)
class SelectionRecord:
    """One selected mask; see `docs/store.md` for the fields.

    Attributes:
        size: (H, W) of the mask, that of the frame.
        box: (x0, y0, x1, y1) half-open, stored pixels.
        embedding: float32 [E], or None.
    """

    object_id: int
    size: tuple[int, int]
    rle: str
    box: tuple[int, int, int, int]
    area: int
    score: float
    foreground: float
    age: int
    novelty: float
    uncertainty: float
    motion_px: float | None
    embedding: np.ndarray | None = field(repr=False)

    def mask(self) -> np.ndarray:
        """Mask bool [H, W].

        Raises:
            StoreError: a damaged code.
        """
        try:
            return decode_rle(self.rle, self.size)
        except RleError as error:
            raise StoreError(f"mask of object {self.object_id} is damaged: {error}") from None


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One stored frame; see `docs/store.md` for the fields.

    Attributes:
        session: uuid hex of the run that recorded it.
        size: (H, W) of image and masks.
        selections: in the order they were written, ascending label.
    """

    id: int
    session: str
    source: str
    number: int
    capture_ns: int
    pts_ns: int | None
    size: tuple[int, int]
    model_name: str
    model_hash: str
    generation: int
    exact: bool
    lag: int
    loss_bound: float
    margin: float | None
    usefulness: float
    flow_px: float | None
    previous_capture_ns: int | None
    jpeg: bytes = field(repr=False)
    previous_jpeg: bytes | None = field(repr=False)
    doubt_png: bytes = field(repr=False)
    selections: tuple[SelectionRecord, ...] = field(repr=False)

    @property
    def held_out(self) -> bool:
        """Whether the frame belongs to the slice kept apart from training.

        By blocks of 20 seconds of one source of one session, one in five, decided by a hash: a block
        stays where it is when the store grows or is merged.
        """
        time_ns = self.capture_ns if self.pts_ns is None else self.pts_ns
        block = f"{self.session}/{self.source}/{time_ns // _BLOCK_NS}"
        return int(hashlib.sha256(block.encode()).hexdigest(), 16) % _HELD_OUT_EVERY == 0

    def image(self) -> np.ndarray:
        """The picture, uint8 [H, W, 3] BGR.

        Raises:
            StoreError: it cannot be decoded or has another size.
        """
        image = self._decoded(self.jpeg, cv2.IMREAD_COLOR, "picture")
        if image.shape[:2] != self.size:
            raise StoreError(f"frame {self.id}: picture is {image.shape[:2]}, its row says {self.size}")
        return image

    def previous_image(self) -> np.ndarray | None:
        """The frame processed before, uint8 [H', W', 3] BGR of at most 448 pixels a side; None at a cut."""
        if self.previous_jpeg is None:
            return None
        return self._decoded(self.previous_jpeg, cv2.IMREAD_COLOR, "previous picture")

    def doubt(self) -> np.ndarray:
        """How much speaks for an object that was not selected: float32 [H, W] in [0, 1]."""
        grid = self._decoded(self.doubt_png, cv2.IMREAD_GRAYSCALE, "doubt map")
        enlarged = cv2.resize(grid, self.size[::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(enlarged, np.float32) / np.float32(255)

    def cover(self, limit: float = 0.25) -> np.ndarray:
        """What is claimed of each pixel: uint8 [H, W], 0 nothing, 1 background, 2 + i the i-th selection.

        Args:
            limit: doubt below which a pixel without selection is background.

        Raises:
            StoreError: damaged pictures, or more than 254 selections.
        """
        if len(self.selections) > 254:
            raise StoreError(f"frame {self.id}: {len(self.selections)} selections, a cover map holds 254")
        cover = (self.doubt() < limit).astype(np.uint8)
        for index, selection in enumerate(self.selections):
            cover[selection.mask()] = 2 + index
        return cover

    def _decoded(self, data: bytes, mode: int, what: str) -> np.ndarray:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode) if data else None
        if image is None:
            raise StoreError(f"frame {self.id}: its {what} cannot be decoded")
        return image
