"""The model's way back: a registry's current version to an fsspec URL, and from there into the registry of a robot.

At the URL lies what lies in a registry folder, so a mounted copy of it can be watched by an engine as it is. The
pointer `CURRENT` is written last, and a robot compares what it fetched with the hash in the version's name before
`Registry.place` checks the model itself and renames it into place: a broken transfer changes nothing.
"""

import json
import logging
import posixpath
import tempfile
import uuid
from pathlib import Path
from typing import Any

import fsspec

from engine.errors import EngineError, ModelError, StoreError, UsageError
from engine.registry import Registry, Version
from engine.registry.files import sha256_of
from engine.registry.version import MANIFEST_FILE, MODEL_FILE, parse_name

_log = logging.getLogger("unseen.fleet")

_OWN = ("number", "created", "parent", "contract")
"""What the robot's registry says for itself."""


def publish(registry: Registry, url: str) -> Version:
    """Make the registry's current version the current one at `url`, and pass on what was withdrawn.

    Raises:
        ModelError: nothing is placed, or the model is not what its manifest says.
        StoreError: the URL cannot be written.
    """
    version = registry.current()
    if version is None:
        raise ModelError(f"registry {registry.folder}: no current version, nothing to publish")
    registry.verify(version)
    fs, root = _file_system(url)
    folder = posixpath.join(root, "models", version.name)
    try:
        fs.makedirs(folder, exist_ok=True)
        for name in (MODEL_FILE, MANIFEST_FILE):
            _put(fs, version.path.with_name(name).read_bytes(), posixpath.join(folder, name))
        _put(fs, json.dumps(registry.withdrawn(), indent=2).encode(), posixpath.join(root, "withdrawn.json"))
        _put(fs, f"{version.name}\n".encode(), posixpath.join(root, "CURRENT"))
    except Exception as error:  # each file system has errors of its own
        raise StoreError(f"{url}: cannot be written ({_line(error)})") from None
    return version


def pull(url: str, registry: Registry) -> tuple[str, Version | None]:
    """Take the version that is current at `url`, and leave the one that was withdrawn there.

    Returns:
        What was done ("placed", "rolled back", "unchanged", "refused here") and the current version afterwards.

    Raises:
        ModelError: what lies there is not complete, not what its name says, or cannot run; nothing is changed.
        StoreError: the URL does not answer, or the registry cannot be written.
    """
    fs, root = _file_system(url)
    fs.invalidate_cache()
    current = registry.current()
    withdrawn = json.loads(_get(fs, url, posixpath.join(root, "withdrawn.json"), b"{}"))
    done = "unchanged"
    if current is not None and (reason := _reason(withdrawn, current.hash)) is not None:
        current = registry.rollback(current, reason=f"withdrawn by the fleet: {reason}")
        done = "rolled back"
    name = _get(fs, url, posixpath.join(root, "CURRENT"), b"").decode(errors="replace").strip()
    if not name:
        return done, current
    parsed = parse_name(name)
    if parsed is None:
        raise ModelError(f"{url}: CURRENT holds '{name[:60]}', expected a version such as 000007-d0f6a1c29e41")
    if current is not None and current.hash == parsed[1]:
        return done, current
    if _reason(registry.withdrawn(), parsed[1]) is not None:
        return "refused here" if done == "unchanged" else done, current
    return "placed", _fetch(fs, url, posixpath.join(root, "models", name), parsed[1], registry)


def _fetch(fs: Any, url: str, folder: str, digest: str, registry: Registry) -> Version:
    try:
        manifest = json.loads(_get(fs, url, posixpath.join(folder, MANIFEST_FILE), b""))
        whole, size = str(manifest["hash"]), int(manifest["size"])
    except (ValueError, LookupError, TypeError):
        raise ModelError(f"{url}: {MANIFEST_FILE} of {posixpath.basename(folder)} is missing or damaged") from None
    with tempfile.TemporaryDirectory(prefix="unseen-pull-") as scratch:
        file = Path(scratch) / MODEL_FILE
        try:
            fs.get_file(posixpath.join(folder, MODEL_FILE), str(file))
        except Exception as error:  # each file system has errors of its own
            raise StoreError(f"{url}: the model cannot be fetched ({_line(error)})") from None
        found = sha256_of(file)
        if found != whole or not whole.startswith(digest):
            raise ModelError(
                f"{url}: {posixpath.basename(folder)} arrived with hash {found[:12]} and {file.stat().st_size} bytes, "
                f"expected {whole[:12]} and {size}; not placed"
            )
        kept = {key: value for key, value in manifest.items() if key not in _OWN}
        kept["published"] = {"url": url, "version": posixpath.basename(folder)}
        return registry.place(file, kept)


def _reason(withdrawn: dict[str, str], digest: str) -> str | None:
    return next((reason for name, reason in withdrawn.items() if name.endswith(digest)), None)


def _file_system(url: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url}: {_line(error)}") from None
    except OSError as error:
        raise StoreError(f"{url}: {_line(error)}") from None


def _put(fs: Any, content: bytes, path: str) -> None:
    """Write a file that is there completely or not at all."""
    beside = posixpath.join(posixpath.dirname(path), f".{posixpath.basename(path)}-{uuid.uuid4().hex}")
    fs.pipe_file(beside, content)
    fs.mv(beside, path)


def _get(fs: Any, url: str, path: str, otherwise: bytes) -> bytes:
    try:
        return fs.cat_file(path) if fs.exists(path) else otherwise
    except Exception as error:  # each file system has errors of its own
        raise StoreError(f"{url}: does not answer ({_line(error)})") from None


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def pull_once(url: str, registry: Registry) -> bool:
    """`pull` for a robot that must go on whatever happens: one log line, True when something changed."""
    try:
        done, version = pull(url, registry)
    except EngineError as error:
        _log.warning("%s; the model stays", error)
        return False
    if done in ("placed", "rolled back"):
        _log.warning("%s: %s is current", done, version.name if version else "no version")
    return done in ("placed", "rolled back")
