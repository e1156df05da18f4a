"""Files that are there completely or not at all, also after a power cut."""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from engine.errors import StoreError

_BLOCK_BYTES = 1 << 20
_RETRY_S = 0.02


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def copy_synced(source: Path, target: Path) -> str:
    """Copy a file, wait until it is on the disk, and return the hex SHA-256 of what was read.

    Raises:
        OSError: it cannot be read or written.
    """
    digest = hashlib.sha256()
    with source.open("rb") as before, target.open("xb") as after:
        while block := before.read(_BLOCK_BYTES):
            digest.update(block)
            after.write(block)
        after.flush()
        os.fsync(after.fileno())
    return digest.hexdigest()


def write_synced(path: Path, text: str) -> None:
    """Write a file and wait until it is on the disk.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a rename is not, before this."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Give a file a new content; readers see the old one or the new one, never a part.

    Raises:
        OSError: it cannot be written; the old content stays.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}-{time.monotonic_ns()}")
    try:
        write_synced(beside, text)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock file `path` against other processes and threads; the system lets go of it if we die.

    Raises:
        StoreError: somebody else holds it longer than `timeout_s`.
        OSError: it cannot be created.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        give_up_s = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up_s:
                    raise StoreError(
                        f"{path}: held by another process for {timeout_s:g} s; wait for it or end it"
                    ) from None
                time.sleep(_RETRY_S)
        yield
    finally:
        os.close(descriptor)
