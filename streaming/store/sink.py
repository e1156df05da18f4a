"""`--record`: the recorder on a thread of its own; the engine never waits for the disk."""

import logging
import queue
import threading
from pathlib import Path

from engine.config import RecordConfig
from engine.frame import Frame
from engine.record.recorder import Recorder
from engine.scene import Scene
from streaming.store.writer import StoreWriter

_log = logging.getLogger("unseen.store")

_CLOSE_TIMEOUT_S = 30.0
"""A disk that hangs must not keep the engine from ending."""


class StoreSink:
    """Runs a recorder behind a bounded queue.

    Frames it has no room for are counted as `queue_full`; they were published all the same. Whatever
    happens to the store after it was opened, `step` and `close` raise nothing: recording is not worth a stop.

    Args:
        recorder: does the work.
        size: frames the queue holds, 0.8 s at 30 Hz; a full-HD frame takes 6 MB.

    Attributes:
        dropped: always 0, for those who count frames that were not published.
    """

    dropped = 0

    def __init__(self, recorder: Recorder, *, size: int = 24) -> None:
        self._recorder = recorder
        self._queue: queue.Queue[tuple[Frame | None, list[Scene], bool] | None] = queue.Queue(size)
        self._gaps: set[str] = set()
        self._queue_full = 0
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def step(self, frame: Frame | None, scenes: list[Scene]) -> None:
        """Hand over one frame and its finals, or count them; returns at once."""
        finals = [scene for scene in scenes if scene.kind == "final"]
        source = frame.source if frame is not None else ""
        item = (frame, finals, source in self._gaps)
        try:
            self._queue.put_nowait(item)
            self._gaps.discard(source)
        except queue.Full:
            self._queue_full += len(finals)
            self._gaps.add(source)

    def close(self) -> None:
        """Work off the queue and close the store; closing twice is allowed."""
        if not self._thread.is_alive():
            return
        try:
            self._queue.put(None, timeout=_CLOSE_TIMEOUT_S)
        except queue.Full:
            pass
        else:
            self._thread.join(_CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            _log.warning("the store did not answer for %.0f s: what was waiting is lost", _CLOSE_TIMEOUT_S)

    def summary(self) -> dict[str, object]:
        """What was kept and what was not; complete after `close`."""
        content = self._recorder.summary()
        if self._queue_full:
            content["not_kept"] = {**content["not_kept"], "queue_full": self._queue_full}  # type: ignore[dict-item]
        return content

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            self._attempt(item)
        try:
            self._recorder.close()
        except Exception as error:
            _log.warning("the store could not be closed well: %s", error)

    def _attempt(self, item: tuple[Frame | None, list[Scene], bool]) -> None:
        frame, scenes, gap = item
        try:
            self._recorder.step(frame, scenes, gap=gap)
        except Exception as error:
            self._recorder.causes["write_error"] += 1
            if not self._failed:
                _log.warning("recording failed (%s: %s); the engine goes on", type(error).__name__, error)
            self._failed = True


def open_record(path: Path, config: RecordConfig) -> StoreSink:
    """The sink of `--record`, its store created or appended to.

    Raises:
        StoreError: the file is locked, damaged, of a newer version, or somebody else's.
    """
    return StoreSink(Recorder(StoreWriter(path, quota_mb=config.quota_mb), config))
