"""Which recordings there are to mine: files, folders of pictures and bags, here or behind any fsspec URL."""

import hashlib
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from engine.errors import SourceError
from learning.footage import SUFFIXES as VIDEOS

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
BAGS = (".mcap", ".db3", ".bag")
BAG_METADATA = "metadata.yaml"

_FEWEST_PICTURES = 2
"""A folder with one picture is no recording of anything that moves."""

_STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")


@dataclass(frozen=True, slots=True)
class Recording:
    """One thing to mine.

    Attributes:
        uri: path, or URL of an fsspec file system.
        kind: "video", "pictures" or "bag".
        size: bytes of all its files.
        stamp: changes when its files do, as far as the file system tells.
        local: whether it lies on this machine's file system.
    """

    uri: str
    kind: str
    size: int
    stamp: str
    local: bool

    @property
    def name(self) -> str:
        """Last part of the path without its suffix."""
        last = posixpath.basename(self.uri.rstrip("/"))
        return last if self.kind == "pictures" else posixpath.splitext(last)[0]

    @property
    def origin(self) -> str:
        """Where it is and how it was when it was found: what is known by this needs no second look."""
        return f"{self.uri} {self.size} {self.stamp}"


def find_recordings(uris: Sequence[str]) -> list[Recording]:
    """Everything that can be mined at or below `uris`, sorted, copies left out.

    A folder with metadata.yaml is one recording (rosbag2), a folder that holds two pictures or more is one, every
    video, .mcap, .db3 and .bag file elsewhere is one.

    Raises:
        SourceError: nothing there, nothing of that kind, or a file system that does not answer.
    """
    found: dict[str, Recording] = {}
    for uri in uris:
        try:
            fs, path = fsspec.core.url_to_fs(uri)
            listing = _listing(fs, path)
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
            raise SourceError(f"recording '{uri}': {reason}; check the path") from None
        here = list(_classify(fs, listing))
        if not here:
            raise SourceError(
                f"recording '{uri}': nothing to mine among {len(listing)} files; "
                f"videos ({' '.join(VIDEOS)}), bags ({' '.join(BAGS)}) and folders of pictures are read"
            )
        found |= {recording.uri: recording for recording in here}
    return _without_copies(sorted(found.values(), key=lambda recording: recording.uri))


def _listing(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """Every file at or below `path` and what the file system says about it."""
    if not fs.exists(path):
        raise FileNotFoundError(2, "does not exist")
    if fs.isfile(path):
        return {path: fs.info(path)}
    return dict(fs.find(path, detail=True))


def _classify(fs: Any, listing: dict[str, dict[str, Any]]) -> Iterable[Recording]:
    bags = {posixpath.dirname(path) for path in listing if posixpath.basename(path) == BAG_METADATA}
    pictures: dict[str, list[str]] = {}
    members: dict[str, list[str]] = {}
    for path in sorted(listing):
        folder, suffix = posixpath.dirname(path), posixpath.splitext(path)[1].lower()
        if folder in bags:
            members.setdefault(folder, []).append(path)
        elif suffix in PICTURES:
            pictures.setdefault(folder, []).append(path)
        elif suffix in VIDEOS or suffix in BAGS:
            yield _recording(fs, path, "video" if suffix in VIDEOS else "bag", [listing[path]])
    for folder, paths in members.items():
        yield _recording(fs, folder, "bag", [listing[path] for path in paths])
    for folder, paths in pictures.items():
        if len(paths) >= _FEWEST_PICTURES:
            yield _recording(fs, folder, "pictures", [listing[path] for path in paths])


def _recording(fs: Any, path: str, kind: str, files: list[dict[str, Any]]) -> Recording:
    stamps = [f"{item.get('size')} {next((item[key] for key in _STAMPS if key in item), '')}" for item in files]
    stamp = hashlib.sha256("\n".join(stamps).encode()).hexdigest()[:16]
    local = isinstance(fs, LocalFileSystem)
    uri = path if local else fs.unstrip_protocol(path)
    return Recording(uri, kind, sum(int(item.get("size") or 0) for item in files), stamp, local)


def _without_copies(recordings: list[Recording]) -> list[Recording]:
    """The first of several local ones with the same content: only those of equal size need to be read for that.

    Workers would find out as well, but which name the selections carry would then be a matter of speed.
    """
    by_size: dict[tuple[str, int], list[Recording]] = {}
    for recording in recordings:
        by_size.setdefault((recording.kind, recording.size), []).append(recording)
    copies = set()
    for alike in by_size.values():
        seen = set()
        for recording in alike if len(alike) > 1 else []:
            if not recording.local:
                continue
            try:
                digest = identity(recording.uri)
            except OSError:
                continue  # the worker says what is wrong with it
            if digest in seen:
                copies.add(recording.uri)
            seen.add(digest)
    return [recording for recording in recordings if recording.uri not in copies]


def identity(path: str) -> str:
    """Hex SHA-256 of the content of a local file, or of the names and contents of a local folder.

    Raises:
        OSError: it cannot be read.
    """
    fs = LocalFileSystem()
    if fs.isfile(path):
        return _digest(path)
    whole = hashlib.sha256()
    for file in sorted(fs.find(path)):
        whole.update(f"{posixpath.relpath(file, path)} {_digest(file)}\n".encode())
    return whole.hexdigest()


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
