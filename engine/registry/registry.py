"""The registry folder: placing, choosing and withdrawing versions, each step atomic.

    CURRENT                            name of the version engines run, replaced by a rename
    withdrawn.json                     versions that were rolled back, with the reason; outlives their files
    models/000007-d0f6a1c29e41/        one version: model.onnx, manifest.json; never changed once it has this name
    lock                               held while one of the above is changed

Readers take no lock. Writers copy beside (`models/.incoming-…`), verify, and rename.
"""

import datetime
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from engine.errors import ModelError, StoreError, UsageError
from engine.perceive.contract import CONTRACT_VERSION
from engine.registry.check import check_model
from engine.registry.files import copy_synced, locked, replace_text, sync_folder, write_synced
from engine.registry.version import (
    HASH_LENGTH,
    MANIFEST_FILE,
    MODEL_FILE,
    Version,
    manifest_text,
    parse_name,
    read_version,
    verify_content,
    version_name,
)

_LOCK_TIMEOUT_S = 30.0
_INCOMING = ".incoming-"
_LEAVING = ".leaving-"
_ABANDONED_S = 3600.0
"""A copy this old belongs to a process that was killed."""


class Registry:
    """Versions of the model in a folder; safe to use from several processes at once.

    Args:
        folder: created by the first `place`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.pointer = self.folder / "CURRENT"
        self._models = self.folder / "models"
        self._withdrawn = self.folder / "withdrawn.json"

    def place(
        self, onnx_file: Path, manifest: Mapping[str, Any], *, check: Callable[[Path], None] = check_model
    ) -> Version:
        """Add a model and make it current; a model that is current already is left as it is.

        Args:
            onnx_file: copied, so it may be changed or deleted afterwards.
            manifest: kept beside it: training summary, metrics, "parent" if it is not the current version.
                A "hash" or "size" given must be that of the file.
            check: raises `ModelError` for a file that must not be placed.

        Raises:
            ModelError: the file is missing, is not what the manifest says, cannot run, or was rolled back before.
            UsageError: the manifest cannot be kept as JSON.
            StoreError: the folder cannot be written.
        """
        manifest_text(manifest)
        if not onnx_file.is_file():
            raise ModelError(f"model {onnx_file}: no such file")
        with self._written():
            self._models.mkdir(parents=True, exist_ok=True)
            incoming = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self._models))
            try:
                digest = copy_synced(onnx_file, incoming / MODEL_FILE)
                size = (incoming / MODEL_FILE).stat().st_size
                _compare(onnx_file, digest, size, manifest)
                check(incoming / MODEL_FILE)
                with self._lock():
                    return self._admit(incoming, digest, size, manifest)
            finally:
                shutil.rmtree(incoming, ignore_errors=True)

    def current(self) -> Version | None:
        """The version engines should run; None while nothing is placed or everything is rolled back.

        Raises:
            ModelError: what it points to is not there, or not completely.
        """
        name = self._current_name()
        if name is None:
            return None
        withdrawn = self.withdrawn()
        if name in withdrawn:  # whoever rolled it back was killed before the pointer was moved
            return self._newest_good(withdrawn, below=_number(name))
        return read_version(self._models / name)

    def versions(self) -> list[Version]:
        """Every version with a readable manifest, withdrawn ones included, oldest first."""
        found = []
        for name in self._names():
            try:
                found.append(read_version(self._models / name))
            except ModelError:
                continue  # half copied by something else than `place`: not a version (yet)
        return found

    def withdrawn(self) -> dict[str, str]:
        """Names of versions that were rolled back, and why.

        Raises:
            ModelError: the list cannot be read.
        """
        try:
            content = json.loads(self._withdrawn.read_text(encoding="utf-8"))
            return {str(name): str(reason) for name, reason in content.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"registry {self._withdrawn}: not readable ({error}); repair or delete it") from None

    def verify(self, version: Version) -> None:
        """Compare a version's file with its manifest.

        Raises:
            ModelError: it is missing, truncated or altered.
        """
        verify_content(version)

    def rollback(self, version: Version | None = None, *, reason: str = "rolled back") -> Version | None:
        """Withdraw a version for good; if it is the current one, go back to the newest good one before it.

        Args:
            version: the bad one, by default the current one. Naming it makes two callers who saw the same
                fault go back once.
            reason: remembered in `withdrawn.json`.

        Returns:
            The current version afterwards; None when no earlier one is left: engines then run the model they
            would start with without a registry.

        Raises:
            ModelError: there is no current version.
            StoreError: the folder cannot be written.
        """
        with self._written(), self._lock():
            name = self._current_name()
            bad = name if version is None else version.name
            if bad is None:
                raise ModelError(f"registry {self.folder}: no current version, nothing to roll back")
            withdrawn = {**self.withdrawn(), bad: reason}
            before = self._newest_good(withdrawn, below=_number(bad)) if bad == name else None
            # In this order: killed in between, the pointer names a withdrawn version, which `current` passes over.
            replace_text(self._withdrawn, json.dumps(withdrawn, indent=2) + "\n")
            if bad != name:
                return self.current()
            self._point_to(before)
            return before

    def gc(self, keep: int) -> list[str]:
        """Delete old versions, and what killed processes left.

        Args:
            keep: newest good versions to keep; the current one and the one `rollback` would choose stay anyway.

        Returns:
            Names of the versions deleted.

        Raises:
            UsageError: `keep` is below 1.
            StoreError: the folder cannot be written.
        """
        if keep < 1:
            raise UsageError(f"gc keep={keep}: must be at least 1")
        with self._written(), self._lock():
            withdrawn, name = self.withdrawn(), self._current_name()
            good = [version.name for version in self.versions() if version.name not in withdrawn]
            kept = {*good[-keep:], name}
            if name is not None and (before := self._newest_good(withdrawn, below=_number(name))) is not None:
                kept.add(before.name)
            leaving = [each for each in self._names() if each not in kept]
            for each in leaving:
                # The name goes first: a version is there completely or not at all.
                gone = self._models / f"{_LEAVING}{each}-{time.monotonic_ns()}"
                (self._models / each).rename(gone)
            for folder in self._leftovers():
                shutil.rmtree(folder, ignore_errors=True)
            return leaving

    def _admit(self, incoming: Path, digest: str, size: int, manifest: Mapping[str, Any]) -> Version:
        """Number, name and publish a verified copy; the lock is held."""
        withdrawn = self.withdrawn()
        for name, reason in withdrawn.items():
            if name.endswith(digest[:HASH_LENGTH]):
                raise ModelError(
                    f"model with hash {digest[:HASH_LENGTH]} was withdrawn as {name} ({reason}); not placed"
                )
        now = self._current_name()
        if now is not None and now.endswith(digest[:HASH_LENGTH]):
            try:
                version = read_version(self._models / now)
                verify_content(version)
                return version
            except ModelError:
                pass  # the same model, damaged since: it gets a new version
        number = 1 + max((_number(name) for name in (*self._names(), *withdrawn)), default=0)
        own = {
            "number": number,
            "hash": digest,
            "size": size,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "contract": CONTRACT_VERSION,
        }
        write_synced(incoming / MANIFEST_FILE, manifest_text({"parent": now, **manifest, **own}))
        incoming.chmod(0o755)  # mkdtemp's 0700 would keep engines of other users out
        sync_folder(incoming)
        folder = self._models / version_name(number, digest)
        incoming.rename(folder)
        sync_folder(self._models)
        version = read_version(folder)
        self._point_to(version)
        return version

    def _point_to(self, version: Version | None) -> None:
        if version is not None:
            replace_text(self.pointer, version.name + "\n")
        else:
            self.pointer.unlink(missing_ok=True)
            sync_folder(self.folder)

    def _current_name(self) -> str | None:
        """What CURRENT says.

        Raises:
            ModelError: it is not a version's name.
        """
        try:
            name = self.pointer.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ModelError(f"registry {self.pointer}: {error}") from None
        if parse_name(name) is None:
            raise ModelError(
                f"registry {self.pointer}: holds '{name[:60]}', expected a version such as 000007-d0f6a1c29e41"
            )
        return name

    def _newest_good(self, withdrawn: Mapping[str, str], below: int) -> Version | None:
        for version in reversed(self.versions()):
            if version.number >= below or version.name in withdrawn:
                continue
            try:
                verify_content(version)
            except ModelError:
                continue
            return version
        return None

    def _names(self) -> list[str]:
        """Version folders, by number."""
        try:
            names = os.listdir(self._models)
        except FileNotFoundError:
            return []
        return sorted((name for name in names if parse_name(name) is not None), key=_number)

    def _leftovers(self) -> Iterator[Path]:
        for folder in self._models.glob(".*"):
            age_s = time.time() - folder.stat().st_mtime
            if folder.name.startswith(_LEAVING) or (folder.name.startswith(_INCOMING) and age_s > _ABANDONED_S):
                yield folder

    def _lock(self) -> AbstractContextManager[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return locked(self.folder / "lock", _LOCK_TIMEOUT_S)

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Whatever the disk refuses as one line."""
        try:
            yield
        except OSError as error:
            where = error.filename or self.folder
            raise StoreError(f"registry {where}: {error.strerror or error}; check space and permissions") from None


def _number(name: str) -> int:
    parsed = parse_name(name)
    return parsed[0] if parsed is not None else 0


def _compare(onnx_file: Path, digest: str, size: int, manifest: Mapping[str, Any]) -> None:
    """Raise `ModelError` where a hash (whole or its first 12 digits) or size was given that is not the file's."""
    for name, value in (("hash", digest), ("size", size)):
        given = manifest.get(name, value)
        if given not in (value, digest[:HASH_LENGTH]):
            raise ModelError(f"model {onnx_file}: {name} is {value}, the manifest given says {str(given)[:70]}")
