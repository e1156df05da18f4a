"""Follows a registry of background networks while the engine runs: a new version takes over between two frames.

Only the map changes, not masks or embedding: no window has to be decided first, and an assignment is all the
engine's threads see of it.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from engine.errors import EngineError, ModelError
from engine.perceive.background import CUES, BackgroundCue, BackgroundNetwork, UniformBackground, open_background
from engine.perceive.motion import Motion
from engine.registry import Registry, Version

_log = logging.getLogger("unseen.models")

_POLL_S = 0.5


def open_cue(name: str, *, device: str = "auto", threads: int = 2) -> BackgroundCue | None:
    """The cue of `--background NAME`: as `open_background`, or a folder, which is a registry to follow.

    Raises:
        UsageError, ModelError: what is wrong with it.
    """
    if name in CUES or not Path(name).is_dir():
        return open_background(name, device=device, threads=threads)
    registry = Registry(Path(name))
    if registry.current() is None:
        how = f"python -m engine.registry place {name} FILE.onnx"
        raise ModelError(f"--background {name}: the registry is empty; {how}")
    open_network = partial(BackgroundNetwork, device=device, threads=threads)
    return WatchedBackground(registry, UniformBackground(), open_network)


class WatchedBackground:
    """The current network of a registry as a background cue; what cannot be used is refused with one log line.

    Args:
        registry: watched, never written to.
        open_network: makes the cue of a file.
        base: until something is placed.

    Attributes:
        version: the version in use, None for `base`.
    """

    def __init__(
        self,
        registry: Registry,
        base: BackgroundCue,
        open_network: Callable[[Path], BackgroundNetwork] = BackgroundNetwork,
        poll_s: float = _POLL_S,
    ) -> None:
        self.version: Version | None = None
        self._registry, self._open, self._base, self._cue = registry, open_network, base, base
        self._poll_s = poll_s
        self._refused: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="background-watch", daemon=True)
        self.look()

    def map(self, image: np.ndarray, motion: Motion | None, grid: tuple[int, int]) -> np.ndarray:
        """As the network in use says."""
        return self._cue.map(image, motion, grid)

    def look(self) -> None:
        """Take over the registry's current version, if it is another one and can be used."""
        try:
            version = self._registry.current()
        except EngineError as error:
            self._refuse(str(error), error)
            return
        if version is None:
            self._cue, self.version = self._base, None
            return
        if (self.version is not None and version.name == self.version.name) or version.name in self._refused:
            return
        try:
            cue = self._open(version.path)
            # A first answer takes longer, and a network that cannot answer is found out here.
            cue.map(np.full((*cue.size, 3), 127, np.uint8), None, cue.size)
        except EngineError as error:
            self._refuse(version.name, error)
            return
        self._cue, self.version = cue, version
        _log.info("background: %s", version.name)

    def _refuse(self, what: str, error: EngineError) -> None:
        if what not in self._refused:
            self._refused.add(what)
            _log.warning("background stays as it is: %s", " ".join(str(error).split()))

    def __enter__(self) -> "WatchedBackground":
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(self._poll_s + 5.0)

    def _run(self) -> None:
        while not self._end.wait(self._poll_s):
            self.look()
