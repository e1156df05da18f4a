"""Follows a model registry while the engine runs: a new version is tried aside, then swapped in between two frames.

What cannot be used is refused with one log line per version, and the running model stays. The model before the
running one stays in memory, so that a rollback takes no longer than a frame.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Protocol

from engine.errors import EngineError, ModelError
from engine.perceive.network import Network
from engine.registry import Registry, Version
from streaming.loaded import Loaded, load_verified

_log = logging.getLogger("unseen.models")

_POLL_S = 0.25
"""Between two looks at the pointer, a few `stat` calls each; what two looks show alike is taken for complete."""

_LAST_LOAD_S = 5.0


class SwapTarget(Protocol):
    """What runs the model: a session."""

    def swap_model(self, network: Network) -> int:
        """Publish what the old model left undecided, go on with `network`, return the new generation."""

    def fall_back(self, choose: Callable[[Network, ModelError], Network | None] | None) -> None:
        """Have `choose` name another network, or None, when one fails on a frame; called in the engine thread."""


class ModelWatch:
    """A thread that keeps a session on the current version of a registry.

    Args:
        registry: watched; nothing but `rollback` writes to it.
        load: makes a network of a file and tries it out; raises `ModelError` if it is not usable.
        session: gets the network.
        running: what the session runs now.
        base: ONNX file to go back to when the registry has no current version any more.
        refused: names of versions that a log line was spent on already.
        poll_s: between two looks at the registry.

    Attributes:
        running: the model in use.
    """

    def __init__(
        self,
        registry: Registry,
        load: Callable[[Path], Network],
        session: SwapTarget,
        *,
        running: Loaded,
        base: Path,
        refused: Iterable[str] = (),
        poll_s: float = _POLL_S,
    ) -> None:
        self.registry = registry
        self.running = running
        self._load = load
        self._session = session
        self._base = base
        self._poll_s = poll_s
        self._previous: Loaded | None = None
        self._coming: Loaded | None = None
        self._lock = threading.Lock()
        """Held while models change places, not while one is loaded: a rollback must not wait for that."""
        self._state = threading.Lock()
        """Held for moments only, so that the engine thread may take it."""
        self._changes = 0
        self._bad: set[str] = set()
        self._refused = set(refused)
        self._seen: object = None
        self._handled: object = None
        self._requests: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="model-watch", daemon=True)

    def __enter__(self) -> "ModelWatch":
        """Begin to watch."""
        self._session.fall_back(self._failed)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching; a model being loaded is waited for, within reason, and not used."""
        self._session.fall_back(None)
        self._requests.put(None)
        if self._thread.is_alive():
            self._thread.join(_LAST_LOAD_S)

    @property
    def generation(self) -> int:
        """Counts the swaps, as published with every scene."""
        return self.running.network.generation

    def reload(self, timeout_s: float = 60.0) -> int:
        """Look at the registry now, swap if another version is current, and return the generation in effect.

        Raises:
            ModelError: the current version cannot be used, or was not ready in time; the running model stays.
        """
        answer: Future[int] = Future()

        def look() -> None:
            try:
                answer.set_result(self._follow())
            except Exception as error:
                answer.set_exception(error)

        self._requests.put(look)
        try:
            return answer.result(timeout_s)
        except FutureTimeoutError:
            raise ModelError(f"model reload: not ready after {timeout_s:g} s; it goes on in the background") from None

    def rollback(self, reason: str = "rolled back while running") -> int:
        """Go back to the model before the running one and withdraw the running version for good.

        Returns:
            The new generation.

        Raises:
            ModelError: there is nothing to go back to.
        """
        with self._lock:
            with self._state:
                bad, back = self.running.version, self._previous
            if back is None and bad is None:
                raise ModelError("model rollback: the model the engine started with is running, nothing is before it")
            if bad is not None:
                self._bad.add(bad.name)
            if back is not None:
                generation = self._swap(back, None)
        if bad is not None:
            self._withdraw(bad, reason)
        return generation if back is not None else self.reload()

    def _failed(self, network: Network, error: ModelError) -> Network | None:
        """The model before the running one, when this one fails on a frame; in the engine thread."""
        with self._state:
            coming = self._coming is not None and self._coming.network is network
            bad, back = (self._coming, self.running) if coming else (self.running, self._previous)
            if bad is None or bad.version is None or bad.network is not network:
                return None
            if back is None or back.name in self._bad:
                return None
            self._bad.add(bad.version.name)
            self._exchange(back, None)
        version, reason = bad.version, " ".join(str(error).split())
        _log.warning("model %s failed, %s runs again: %s", version.name, back.network.name, reason)
        self._requests.put(lambda: self._withdraw(version, reason))
        return back.network

    def _withdraw(self, bad: Version, reason: str) -> None:
        try:
            self.registry.rollback(bad, reason=reason)
        except EngineError as error:
            _log.warning("model %s is rolled back here only: %s", bad.name, error)

    def _swap(self, loaded: Loaded, way_back: Loaded | None) -> int:
        with self._state:
            self._coming = loaded
        try:
            generation = self._session.swap_model(loaded.network)
            with self._state:
                if self._coming is loaded:  # else it has failed already, on its first frame
                    self._exchange(loaded, way_back)
        finally:
            self._coming = None
        return generation

    def _exchange(self, loaded: Loaded, way_back: Loaded | None) -> None:
        self.running, self._previous, self._coming = loaded, way_back, None
        self._changes += 1

    # Everything below runs in the watching thread.

    def _run(self) -> None:
        while True:
            try:
                request = self._requests.get(timeout=self._poll_s)
            except queue.Empty:
                self._look()
                continue
            if request is None:
                break
            request()

    def _look(self) -> None:
        """Follow the registry when it has changed and has stopped changing."""
        signature = self._signature()
        if signature == self._handled or signature != self._seen:
            self._seen = signature
            return
        self._handled = signature
        try:
            self._follow()
        except Exception as error:
            self._refuse(error)
            if isinstance(error, EngineError) and not isinstance(error, ModelError):
                self._handled = None  # not the model's fault: the engine was too busy to swap, try again

    def _signature(self) -> object:
        """Changes whenever the pointer or the files it points to do."""
        try:
            name = self.registry.pointer.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        folder = self.registry.folder / "models" / Path(name).name
        return name, *(_stamp(folder / each) for each in ("model.onnx", "manifest.json"))

    def _refuse(self, error: Exception) -> None:
        """One line per version and per fault of the pointer itself, however often it is looked at."""
        what = " ".join(str(error).split())
        key = str(self._seen[0]) if isinstance(self._seen, tuple) else what
        if key not in self._refused:
            self._refused.add(key)
            _log.warning("model refused, %s keeps running: %s", self.running.network.name, what)

    def _follow(self) -> int:
        """Run the registry's current version; returns the generation in effect.

        Raises:
            ModelError: it cannot be used.
        """
        start_s = time.monotonic()
        changes = self._changes
        wanted, withdrawn = self.registry.current(), self.registry.withdrawn()
        name = None if wanted is None else wanted.name
        if name == self.running.name:
            return self.generation
        if name in self._bad:
            raise ModelError(f"model {name}: was rolled back here; place a new version")
        back = self._previous
        candidate = back if back is not None and back.name == name else self._loaded(wanted)
        with self._lock:
            if changes != self._changes:
                self._handled = None  # rolled back meanwhile: look again
                return self.generation
            before = self.running
            # What was withdrawn is no way back.
            generation = self._swap(candidate, None if before.name in {*withdrawn, *self._bad} else before)
        _log.info(
            "model %s replaces %s: generation %d, ready after %.1f s",
            candidate.network.name,
            before.network.name,
            generation,
            time.monotonic() - start_s,
        )
        return generation

    def _loaded(self, version: Version | None) -> Loaded:
        # At normal priority: a thread of low priority would keep the interpreter from the engine whenever other
        # programs keep it from a core, and the runtime's threads, made here, would inherit it for good.
        if version is None:
            return Loaded(self._load(self._base), None)
        return Loaded(load_verified(self.registry, version, self._load), version)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
