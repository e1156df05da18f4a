"""Compiled TensorRT engines on disk, and for which model and machine each was made.

An engine runs only where it was built. Nothing is rebuilt in silence: a first build is announced, and an engine
made for another GPU, driver or library is replaced only when that is asked for.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import ModelError
from engine.perceive.backends.nvidia import Gpu
from engine.perceive.backends.runner import Shape

_log = logging.getLogger("unseen.model")
_KEY_FILE = "key.json"
_REPORT_EVERY_S = 10.0


@dataclass(frozen=True)
class EngineKey:
    """Everything a compiled engine depends on, as text.

    The first three say what was asked for and choose the slot; the others must agree for the slot to be usable.
    """

    model: str
    precision: str
    shapes: str
    gpu: str
    driver: str
    cuda: str
    tensorrt: str

    @classmethod
    def of(cls, model: str, precision: str, shapes: Mapping[str, Shape], gpu: Gpu) -> "EngineKey":
        """The key of a model's hash and input shapes on a GPU."""
        text = " ".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
        return cls(model, precision, text, gpu.name, gpu.driver, gpu.cuda, gpu.tensorrt)

    @property
    def slot_name(self) -> str:
        """Folder of the engine: the model, and a digest of precision and shapes."""
        asked = json.dumps([self.model, self.precision, self.shapes]).encode()
        return f"{self.model}-{self.precision}-{hashlib.sha256(asked).hexdigest()[:8]}"

    def differences(self, other: "EngineKey") -> list[str]:
        """`field: mine, now theirs` for every field that differs."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{name} {mine[name]}, now {theirs[name]}" for name in mine if mine[name] != theirs[name]]


@dataclass(frozen=True)
class Slot:
    """Where an engine lies: `folder` exists; `ready` if a complete engine for this machine is in it."""

    folder: Path
    ready: bool

    def complete(self, key: EngineKey) -> None:
        """Record that the engine in the folder was built to the end, for `key`."""
        part = self.folder / f"{_KEY_FILE}.part"
        part.write_text(json.dumps(asdict(key), indent=2) + "\n", encoding="utf-8")
        part.replace(self.folder / _KEY_FILE)


class EngineCache:
    """A folder of engines, one slot per model, precision and input shapes.

    Args:
        folder: default: $UNSEEN_CACHE, else unseen/engines in the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or _default_folder()

    def slot(self, key: EngineKey, *, rebuild: bool = False) -> Slot:
        """The slot of `key`; what an interrupted build left in it is removed.

        Raises:
            ModelError: it holds an engine for another machine or library and `rebuild` is not set, or the cache
                folder cannot be used.
        """
        folder = self.folder / key.slot_name
        made_for = _read_key(folder / _KEY_FILE)
        if made_for is not None and not rebuild:
            changed = made_for.differences(key)
            if not changed:
                return Slot(folder, ready=True)
            raise ModelError(
                f"the TensorRT engine in {folder} was built for {'; '.join(changed)}: run again with "
                "--rebuild-engines to replace it (minutes)"
            )
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        except OSError as error:
            raise ModelError(
                f"engine cache {folder}: {error.strerror or error}; set UNSEEN_CACHE to a folder that can be written"
            ) from None
        return Slot(folder, ready=False)


@contextlib.contextmanager
def announced(what: str, every_s: float = _REPORT_EVERY_S) -> Iterator[None]:
    """Log that `what` is being built, a line of progress every few seconds, and how long it took."""
    done = threading.Event()
    start_s = time.monotonic()

    def report() -> None:
        while not done.wait(every_s):
            _log.info("building %s: %.0f s so far", what, time.monotonic() - start_s)

    _log.info("building %s, once per machine and model: this takes minutes", what)
    reporter = threading.Thread(target=report, name="engine-build-progress", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        done.set()
        reporter.join()
    _log.info("built %s in %.0f s", what, time.monotonic() - start_s)


def _read_key(path: Path) -> EngineKey | None:
    """The key of a complete engine; None where there is none or it cannot be read."""
    try:
        return EngineKey(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _default_folder() -> Path:
    if chosen := os.environ.get("UNSEEN_CACHE"):
        return Path(chosen) / "engines"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "unseen" / "engines"
