"""One version of the model in a registry: its name, its file and what is known about it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import ModelError, UsageError
from engine.registry.files import sha256_of

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
HASH_LENGTH = 12
"""Hex digits of the SHA-256 in a version's name, as on the wire; the manifest has all 64."""

_NAME = re.compile(rf"(\d{{6,}})-([0-9a-f]{{{HASH_LENGTH}}})")


@dataclass(frozen=True)
class Version:
    """A model file and its manifest.

    Attributes:
        number: counts up with every version placed, from 1.
        hash: first 12 hex digits of the SHA-256 of the file, as `Network.hash` and the wire have it.
        path: the ONNX file.
        manifest: "number", "hash" (64 digits), "size" in bytes, "created" (ISO 8601, UTC), "parent" (a version's
            name or None), "contract", and whatever was given when it was placed.
    """

    number: int
    hash: str
    path: Path
    manifest: Mapping[str, Any] = field(compare=False)

    @property
    def name(self) -> str:
        """Number and hash, as its folder is called."""
        return version_name(self.number, self.hash)


def version_name(number: int, digest: str) -> str:
    """Name of version `number` with SHA-256 `digest`, e.g. 000007-d0f6a1c29e41."""
    return f"{number:06d}-{digest[:HASH_LENGTH]}"


def parse_name(name: str) -> tuple[int, str] | None:
    """Number and hash of a version's name; None if it is no such name."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def read_version(folder: Path) -> Version:
    """The version in `folder`, without looking into the model file.

    Raises:
        ModelError: it is not there, half there, or its manifest cannot be read or is another version's.
    """
    parsed = parse_name(folder.name)
    if parsed is None:
        raise ModelError(f"model version '{folder.name[:60]}': not a version's name, such as 000007-d0f6a1c29e41")
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"model {folder.name}: {MANIFEST_FILE}: {error.strerror or error}") from None
    except ValueError:
        raise ModelError(f"model {folder.name}: {MANIFEST_FILE} is not JSON, perhaps not copied completely") from None
    number, digest = parsed
    known = isinstance(manifest, dict) and isinstance(manifest.get("size"), int)
    if not known or not str(manifest.get("hash")).startswith(digest):
        raise ModelError(f"model {folder.name}: {MANIFEST_FILE} describes another file; place the model again")
    return Version(number, digest, folder / MODEL_FILE, manifest)


def verify_content(version: Version) -> None:
    """Compare the model file with its manifest.

    Raises:
        ModelError: it is missing, truncated or altered.
    """
    size, digest = version.manifest.get("size"), version.manifest.get("hash")
    try:
        found = version.path.stat().st_size
        if found != size:
            raise ModelError(
                f"model {version.name}: {found} bytes, its manifest says {size}: truncated or not copied completely"
            )
        actual = sha256_of(version.path)
    except OSError as error:
        raise ModelError(f"model {version.name}: {version.path.name}: {error.strerror or error}") from None
    if actual != digest:
        raise ModelError(
            f"model {version.name}: SHA-256 {actual[:HASH_LENGTH]}…, its manifest says {str(digest)[:HASH_LENGTH]}…: "
            "altered or not copied completely"
        )


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """A manifest as JSON.

    Raises:
        UsageError: it holds what JSON does not have.
    """
    try:
        return json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise UsageError(f"manifest: {error}; only finite numbers, texts, lists and dictionaries can be kept") from None
