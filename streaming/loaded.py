"""A model in memory: from the registry's version, checked, or from the file an engine starts with."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.config import PerceiveConfig
from engine.errors import EngineError, ModelError, UsageError
from engine.frame import Frame
from engine.perceive.network import Network
from engine.perceive.perceiver import Perceiver
from engine.registry import Registry, Version
from engine.registry.check import try_out
from engine.scene import Scene
from streaming.lane import SourceStatus

_log = logging.getLogger("unseen.models")

_PAUSE_S = 0.15
"""Between two frames of a trial. Each holds the running engine up by part of a frame; so long it needs to catch up."""


class Shown(Protocol):
    """What knows the newest frames: a session."""

    def sources(self) -> list[SourceStatus]:
        """How every source is doing."""

    def snapshot(self, source: str) -> tuple[Frame, Scene]:
        """The newest published frame of a source."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory.

    Attributes:
        network: ready to run.
        version: where it comes from; None for the model used when the registry has no current version.
    """

    network: Network
    version: Version | None

    @property
    def name(self) -> str | None:
        """Of the version."""
        return None if self.version is None else self.version.name


def open_registry(folder: Path) -> Registry:
    """The registry of `--models`, which may be empty but must be there: a mistyped one would never be filled.

    Raises:
        UsageError: no such folder.
    """
    if not folder.is_dir():
        raise UsageError(
            f"--models {folder}: no such folder; create it, or: python -m engine.registry place {folder} MODEL.onnx"
        )
    return Registry(folder)


def load_verified(registry: Registry, version: Version, load: Callable[[Path], Network]) -> Network:
    """The network of a version; what was loaded has the hash of its manifest.

    The size is compared before, the hash after: `Network` takes it of the very bytes it loads, so that the file
    need not be read once more for it.

    Raises:
        ModelError: what is wrong with it.
    """
    _require_size(version)
    try:
        network = load(version.path)
    except Exception as error:  # whatever a runtime raises on a strange graph
        registry.verify(version)  # a damaged file is the better reason
        if isinstance(error, EngineError):
            raise
        raise ModelError(f"model {version.name}: cannot be loaded ({' '.join(str(error).split())[:160]})") from error
    if network.hash != version.hash:
        registry.verify(version)
        raise ModelError(f"model {version.name}: changed while it was read, its hash is {network.hash} now")
    network.name = version.name
    return network


def _require_size(version: Version) -> None:
    """Refuse what was not copied completely before anything tries to read it.

    Raises:
        ModelError: missing, or another size than its manifest says.
    """
    size = version.manifest.get("size")
    try:
        found = version.path.stat().st_size
    except OSError as error:
        raise ModelError(f"model {version.name}: {version.path.name}: {error.strerror or error}") from None
    if found != size:
        raise ModelError(
            f"model {version.name}: {found} bytes, its manifest says {size}: truncated or not copied completely"
        )


def load_beside(session: Shown, load: Callable[[Path], Network], path: Path, pause_s: float = _PAUSE_S) -> Network:
    """Load a model while another one runs, and try it on moving texture and on the newest frame of every source.

    Args:
        session: knows the newest frames.
        load: opens the file, without a trial.
        path: model file.
        pause_s: before each frame of the trial.

    Raises:
        ModelError: it cannot be used, or not on one of those frames.
    """
    network = load(path)

    def pause() -> None:
        time.sleep(pause_s)

    try_out(network, pause)
    for status in session.sources():
        pause()
        try:
            frame, _ = session.snapshot(status.name)
        except UsageError:
            continue  # nothing published yet, or removed meanwhile
        Perceiver(network, PerceiveConfig()).step(frame)
    return network


def first_model(registry: Registry, load: Callable[[Path], Network], base: Path) -> tuple[Loaded, set[str]]:
    """The model to start with: the current version, else the newest good one before it, else `base`.

    A version that cannot be used costs one log line: an engine that starts with the model of yesterday is better
    than one that does not start.

    Args:
        registry: may be empty.
        load: makes a network of a file and tries it out; raises `ModelError` if it is not usable.
        base: ONNX file for a registry without a current version.

    Returns:
        The model, and the names of the versions refused.

    Raises:
        ModelError: `base` cannot be used either.
    """
    refused: set[str] = set()
    for version in _candidates(registry):
        try:
            return Loaded(load_verified(registry, version, load), version), refused
        except ModelError as error:
            refused.add(version.name)
            _log.warning("model refused: %s", error)
    return Loaded(load(base), None), refused


def _candidates(registry: Registry) -> list[Version]:
    """Versions worth trying, the current one first, then those before it."""
    withdrawn: dict[str, str] = {}
    try:
        withdrawn = registry.withdrawn()
        current = registry.current()
    except ModelError as error:
        _log.warning("model refused: %s", error)
        newest = sys.maxsize
    else:
        newest = -1 if current is None else current.number
    return [v for v in reversed(registry.versions()) if v.number <= newest and v.name not in withdrawn]
