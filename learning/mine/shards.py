"""The mined store: a folder of Parquet shards, one per recording, each there complete with its account or not at all.

    STORE/settings.json             model and configuration; a store never mixes two
    STORE/shards/<content>.parquet  rows as of `learning.store export parquet`, the account in the file's metadata
    STORE/report.json               sums over all shards, what could not be mined in the latest run
    STORE/.parts/                   unfinished shards, deleted at the end of the run

A shard is called by the SHA-256 of the recording's content, so whoever mines a recording again, at the same time or
later, makes the same file, and the last rename changes nothing.
"""

import contextlib
import json
import os
import posixpath
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from engine.errors import StoreError, UsageError
from engine.record.rows import FrameRow, SelectionRow
from learning.store.parquet import SELECTION_FIELDS, parquet_schema

ACCOUNT_KEY = b"unseen.account"
_GROUP_ROWS = 64
"""Rows written at a time: bounds the memory, not the shard."""

_ABANDONED_S = 86400.0


class MinedStore:
    """A folder of shards, local or behind an fsspec URL.

    Raises:
        UsageError: pyarrow is not installed, or no such file system.
    """

    def __init__(self, uri: str) -> None:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise UsageError("mining needs pyarrow: pip install 'unseen-engine[parquet]'") from None
        try:
            self._fs, self._root = fsspec.core.url_to_fs(uri)
        except (ImportError, ValueError) as error:
            raise UsageError(f"--out {uri}: {' '.join(str(error).split())[:200]}") from None
        self.uri = uri
        self._local = isinstance(self._fs, LocalFileSystem)

    def open(self, settings: dict[str, Any]) -> None:
        """Make the folder, or go on with what is there.

        Raises:
            StoreError: made with another model or configuration, or it cannot be written.
        """
        text = json.dumps(settings, indent=1, sort_keys=True)
        with self._written():
            self._fs.makedirs(self._path("shards"), exist_ok=True)
            if not self._fs.exists(self._path("settings.json")):
                self.write_text("settings.json", text)
            there = json.loads(self._fs.cat_file(self._path("settings.json")))
        if there != json.loads(text):
            raise StoreError(f"--out {self.uri}: {_difference(there, settings)}; give an empty folder")
        if self._local:
            self._forget_abandoned()

    def has(self, identity: str) -> bool:
        """Whether the recording with this content is mined."""
        return bool(self._fs.exists(self._shard(identity)))

    def accounts(self) -> Iterator[dict[str, Any]]:
        """Account of every shard, by name.

        Raises:
            StoreError: a shard that cannot be read.
        """
        import pyarrow.parquet

        for path in self.shards():
            try:
                with self._fs.open(path, "rb") as file:
                    metadata = pyarrow.parquet.read_metadata(file).metadata or {}
                yield json.loads(metadata[ACCOUNT_KEY])
            except (OSError, ValueError, LookupError) as error:
                reason = " ".join(str(error).split())[:100]
                raise StoreError(f"{path}: not a complete shard ({reason}); delete it, it is mined again") from None

    def shards(self) -> list[str]:
        """Paths of all shards within the file system, sorted."""
        self._fs.invalidate_cache()
        return sorted(self._fs.glob(self._path("shards", "*.parquet")))

    def commit(self, part: Path, identity: str) -> None:
        """Give a complete shard its name; on the disk when this returns.

        Raises:
            StoreError: it cannot be written.
        """
        with self._written():
            if self._local:
                descriptor = os.open(part, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
                os.replace(part, self._shard(identity))
            else:
                beside = self._path("shards", f".{identity}-{uuid.uuid4().hex}.part")
                self._fs.put_file(str(part), beside)
                self._fs.mv(beside, self._shard(identity))
                part.unlink()

    def part_folder(self, run: str) -> Path:
        """Where a worker of a run writes what is not complete; on the store's disk, so that a rename completes it.

        Raises:
            StoreError: it cannot be made.
        """
        folder = Path(self._path(".parts", run)) if self._local else Path(tempfile.gettempdir(), f"unseen-parts-{run}")
        with self._written():
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def tidy(self, run: str) -> None:
        """Delete what the workers of a run left unfinished."""
        shutil.rmtree(self.part_folder(run), ignore_errors=True)
        if self._local:
            with contextlib.suppress(OSError):
                os.rmdir(self._path(".parts"))

    def write_text(self, name: str, text: str) -> None:
        """A small file in the store's folder, complete or not at all.

        Raises:
            StoreError: it cannot be written.
        """
        beside = self._path(f".{name}-{uuid.uuid4().hex}.part")
        with self._written():
            self._fs.pipe_file(beside, text.encode())
            if self._local:
                os.replace(beside, self._path(name))
            else:
                self._fs.mv(beside, self._path(name))

    def _shard(self, identity: str) -> str:
        return self._path("shards", f"{identity}.parquet")

    def _path(self, *names: str) -> str:
        return posixpath.join(self._root, *names)

    def _forget_abandoned(self) -> None:
        for folder in Path(self._root).glob(".parts/*"):
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(folder)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = " ".join(str(error.strerror or error).split())[:200]
            raise StoreError(f"--out {self.uri}: {reason}; make room or give another folder, and repeat") from None


class ShardWriter:
    """Rows of one recording into one Parquet file; a `RowWriter` for the recorder.

    Args:
        folder: where the unfinished file is written.
        identity: of the recording's content; its first half names the session, so that a recording mined twice, or
            by two models, is the same session and stays on the same side of every split.

    Raises:
        StoreError: it cannot be written.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        import pyarrow
        import pyarrow.parquet

        self.session = identity[:32]
        self.path = folder / f"{identity}-{os.getpid()}-{time.monotonic_ns()}.parquet"
        self.frames = self.selections = 0
        self._pyarrow = pyarrow
        self._schema = parquet_schema(pyarrow)
        self._rows: list[dict[str, Any]] = []
        with self._written():
            self._writer = pyarrow.parquet.ParquetWriter(self.path, self._schema)

    def append(self, frame: FrameRow, selections: Sequence[SelectionRow]) -> tuple[int, list[int]]:
        """Add one frame; nothing ever makes room.

        Raises:
            StoreError: it cannot be written.
        """
        self.frames += 1
        self.selections += len(selections)
        self._rows.append(_row(self.frames, self.session, frame, selections))
        if len(self._rows) >= _GROUP_ROWS:
            self._flush()
        return self.frames, []

    @property
    def bytes(self) -> int:
        """Size of what is written so far; complete but for the account once everything is appended."""
        self._flush()
        return self.path.stat().st_size

    def embeddings(self, count: int) -> list[tuple[int, np.ndarray]]:
        """None: what is kept of a recording must not depend on the others."""
        return []

    def close(self) -> None:
        """Nothing: `finish` follows, with an account that is known only then."""

    def finish(self, account: dict[str, Any]) -> None:
        """Write what is left and the account.

        Raises:
            StoreError: it cannot be written.
        """
        self._flush()
        with self._written():
            self._writer.add_key_value_metadata({ACCOUNT_KEY.decode(): json.dumps(account)})
            self._writer.close()

    def discard(self) -> None:
        """Delete the unfinished file."""
        with contextlib.suppress(Exception):
            self._writer.close()
        self.path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._rows:
            with self._written():
                self._writer.write_table(self._pyarrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = " ".join(str(error.strerror or error).split())[:200]
            raise StoreError(f"--out {self.path.parent}: {reason}; make room and repeat the command") from None


def _row(number: int, session: str, frame: FrameRow, selections: Sequence[SelectionRow]) -> dict[str, Any]:
    fields = asdict(frame)
    fields["doubt_png"] = fields.pop("doubt")
    items = []
    for selection in selections:
        item = asdict(selection)
        vector = None if selection.embedding is None else np.frombuffer(selection.embedding, "<f4").tolist()
        box = [selection.x, selection.y, selection.x + selection.width, selection.y + selection.height]
        items.append({name: item[name] for name in SELECTION_FIELDS} | {"box": box, "embedding": vector})
    return {"id": number, "session": session, "selections": items} | fields


def _difference(there: dict[str, Any], settings: dict[str, Any]) -> str:
    if there.get("model") != settings["model"]:
        return f"mined with model {there.get('model')}, now {settings['model']}"
    before, now = there.get("config", {}), settings["config"]
    changed = [f"{key} {before.get(key)} -> {now.get(key)}" for key in now if before.get(key) != now.get(key)]
    return f"mined with other settings ({', '.join(changed[:3]) or 'version'})"
