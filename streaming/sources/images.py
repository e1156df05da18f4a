"""Folders and globs of images as a stream."""

import glob
import os
import re

import cv2
import numpy as np

from engine.errors import SourceError
from engine.frame import Frame
from streaming.clock import CLOCK
from streaming.sources.base import Source
from streaming.sources.decoder import to_bgr8

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def natural_key(path: str) -> list[tuple[int, int, str]]:
    """Sort key that puts `f2.png` before `f10.png`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", path) if part]


def is_image_path(uri: str) -> bool:
    """Whether `uri` names a folder, a glob pattern or an image file."""
    return os.path.isdir(uri) or (glob.has_magic(uri) and not os.path.exists(uri)) or uri.lower().endswith(SUFFIXES)


class ImageSource(Source):
    """Images of a folder, a glob pattern or one file, in natural order.

    The index is the position in the sorted list, so an unreadable image (counted as "corrupt") leaves a gap.
    An image of another size is delivered as it is.

    Args:
        uri: folder, glob pattern (`**` descends) or image file.
        name: name of the source.
        loop: start again at the end; the index goes on rising.

    Raises:
        SourceError: nothing there, no image among it, or none that can be read.
    """

    def __init__(self, uri: str, *, name: str, loop: bool = False) -> None:
        super().__init__(uri, name)
        self._loop = loop
        self._paths = self._list()
        self._cursor = 0
        self.frame_count = None if loop else len(self._paths)
        self._closed = False
        self._ready = self._decode_next(len(self._paths))
        if self._ready is None:
            raise SourceError(f"none of the {len(self._paths)} images of '{uri}' can be read; check the files")
        self.size = self._ready.shape[:2]

    def read(self) -> Frame | None:
        if self._closed:
            return None
        if self._ready is None:
            left = len(self._paths) if self._loop else len(self._paths) - self._cursor
            self._ready = self._decode_next(left)
        if self._ready is None:
            self.close()
            return None
        frame = Frame(self._ready, self._cursor - 1, CLOCK.now_ns(), self.name)
        self._ready = None
        return frame

    def close(self) -> None:
        self._closed = True
        self._ready = None

    def _list(self) -> list[str]:
        accepted = " ".join(SUFFIXES)
        if os.path.isdir(self.uri):
            found = [entry.path for entry in os.scandir(self.uri) if entry.is_file()]
            images = [path for path in found if path.lower().endswith(SUFFIXES)]
            if not images:
                raise SourceError(f"no image in folder '{self.uri}' ({len(found)} files); accepted: {accepted}")
        elif os.path.exists(self.uri):
            images = [self.uri]
        elif glob.has_magic(self.uri):
            found = [path for path in glob.glob(self.uri, recursive=True) if os.path.isfile(path)]
            images = [path for path in found if path.lower().endswith(SUFFIXES)]
            if not images:
                raise SourceError(f"no image matches '{self.uri}' ({len(found)} other files); accepted: {accepted}")
        else:
            raise SourceError(f"image '{self.uri}' does not exist (working directory {os.getcwd()}); check the path")
        return sorted(images, key=natural_key)

    def _decode_next(self, attempts: int) -> np.ndarray | None:
        for _ in range(attempts):
            path = self._paths[self._cursor % len(self._paths)]
            self._cursor += 1
            image = _load(path)
            if image is not None:
                return image
            self.count_drop("corrupt")
        return None


def _load(path: str) -> np.ndarray | None:
    try:
        # Three channels at any depth, turned upright by the camera's orientation tag.
        image = cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # larger than OpenCV's pixel limit
        return None
    return None if image is None else to_bgr8(image)
