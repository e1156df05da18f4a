"""Frames of any store as records: selection stores of robots (SQLite), mined ones (Parquet), here or at a URL."""

import contextlib
import posixpath
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from engine.errors import StoreError, UsageError
from learning.store.reader import SelectionStore
from learning.store.records import FrameRecord, SelectionRecord

_BATCH_ROWS = 16
_FIELDS = {field.name for field in fields(FrameRecord)} - {"size", "selections"}
_SELECTION_FIELDS = {field.name for field in fields(SelectionRecord)} - {"size", "box", "embedding"}


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a frame was read: file and id in it. The same as long as the file is."""

    file: str
    id: int


def read_frames(uri: str) -> Iterator[tuple[Reference, FrameRecord]]:
    """Every frame of a store, in a fixed order.

    Args:
        uri: a selection store, a mined store, or one shard of it.

    Raises:
        UsageError: pyarrow is missing, or no such file system.
        StoreError: nothing there, or it cannot be read.
    """
    try:
        fs, path = fsspec.core.url_to_fs(uri)
        if fs.isdir(path):
            shards = sorted(fs.glob(posixpath.join(path, "shards", "*.parquet")))
        else:
            shards = [path] if path.endswith(".parquet") else []
        missing = not fs.exists(path)
    except (ImportError, ValueError) as error:
        raise UsageError(f"store {uri}: {' '.join(str(error).split())[:200]}") from None
    except OSError as error:
        raise StoreError(f"store {uri}: {error.strerror or error}") from None
    if missing:
        raise StoreError(f"store {uri}: does not exist")
    if fs.isdir(path) and not shards:
        raise StoreError(f"store {uri}: a folder without shards/*.parquet, so no mined store")
    for shard in shards:
        yield from _shard_frames(fs, shard)
    if not shards:
        with _local(fs, path) as file, SelectionStore(file) as store:
            for frame in store.frames():
                yield Reference(uri, frame.id), frame


def _shard_frames(fs: Any, shard: str) -> Iterator[tuple[Reference, FrameRecord]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError("mined stores need pyarrow: pip install 'unseen-engine[parquet]'") from None
    name = fs.unstrip_protocol(shard)
    try:
        with fs.open(shard, "rb") as file:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS):
                for row in batch.to_pylist():
                    yield Reference(name, row["id"]), _record(row)
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise StoreError(f"store {name}: cannot be read ({' '.join(str(error).split())[:100]})") from None


def _record(row: dict[str, Any]) -> FrameRecord:
    size = row["height"], row["width"]
    selections = tuple(
        SelectionRecord(
            size=size,
            box=tuple(item["box"]),
            embedding=None if item["embedding"] is None else np.asarray(item["embedding"], np.float32),
            **{name: item[name] for name in _SELECTION_FIELDS},
        )
        for item in row["selections"]
    )
    return FrameRecord(size=size, selections=selections, **{name: row[name] for name in _FIELDS})


@contextlib.contextmanager
def _local(fs: Any, path: str) -> Iterator[Path]:
    """SQLite reads files of this machine only: others are copied, with the log that belongs to them."""
    if isinstance(fs, LocalFileSystem):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="unseen-fleet-") as folder:
        target = Path(folder) / posixpath.basename(path)
        try:
            for suffix in ("", "-wal"):
                if not suffix or fs.exists(path + suffix):
                    fs.get_file(path + suffix, f"{target}{suffix}")
        except Exception as error:  # each file system has errors of its own
            raise StoreError(f"store {fs.unstrip_protocol(path)}: cannot be fetched ({error})") from None
        yield target
