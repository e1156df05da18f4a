"""Recordings of ROS images as a source: `run.mcap?topic=/cam/image`, or a rosbag2 folder of such files."""

import glob
import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from engine.errors import SourceError, UsageError
from engine.frame import Frame
from streaming.ros.packages import require_mcap
from streaming.sources.base import Source

if TYPE_CHECKING:
    from streaming.sources.mcap_images import Picture

_SUFFIX = ".mcap"
_SHOWN_TOPICS = 8


def is_mcap(uri: str) -> bool:
    """Whether `uri` names an MCAP file or a folder that holds some."""
    path = mcap_path(uri)
    return path.lower().endswith(_SUFFIX) or (os.path.isdir(path) and bool(_parts(path)))


def mcap_path(uri: str) -> str:
    """Path of the recording, without the topic."""
    return uri.partition("?")[0] if not os.path.exists(uri) else uri


class McapSource(Source):
    """The images of one topic of a recording, in the order of their log times.

    `t_capture_ns` is the stamp of the image (the log time where it has none), `pts_ns` the log time since the first
    image. Images that cannot be decoded are counted as "corrupt" and leave a gap in the index. A recording that was
    cut off is played as far as it goes.

    Args:
        uri: path of a file or of a rosbag2 folder, and `?topic=/NAME` where there are images of several topics.
        name: name of the source.
        loop: start again at the end; index, stamps and presentation time go on rising.

    Raises:
        UsageError: unknown parameter, or the MCAP libraries are not installed.
        SourceError: nothing there, not MCAP, no images, or images of several topics and none chosen.
    """

    timed = True

    def __init__(self, uri: str, *, name: str, loop: bool = False) -> None:
        super().__init__(uri, name)
        require_mcap()
        from streaming.sources.mcap_images import Recording

        path, topic = _split(uri)
        parts = _parts(path) if os.path.isdir(path) else [Path(path)]
        self._recording = Recording(parts, uri)
        self._topic = self._choose(topic)
        promised = self._recording.count(self._topic)
        first_ns, last_ns = self._recording.span_ns(self._topic)
        self._loop = loop
        self._first_ns = first_ns
        self.fps = (promised - 1) * 1e9 / (last_ns - first_ns) if promised > 1 and last_ns > first_ns else None
        self._round_ns = last_ns - first_ns + round(1e9 / (self.fps or 30.0))
        self.frame_count = None if loop else promised
        self._index = 0
        self._rounds = 0
        self._messages: Generator[Picture, None, None] | None = self._recording.images(self._topic)

    def read(self) -> Frame | None:
        while self._messages is not None:
            found = next(self._messages, None)
            if found is None:
                if self._loop and self._index > self.dropped.get("corrupt", 0):
                    self._rounds += 1
                    self._messages = self._recording.images(self._topic)
                    continue
                self.close()
                break
            log_ns, stamp_ns, image = found
            self._index += 1
            if image is None:
                self.count_drop("corrupt")
                continue
            self.size = image.shape[:2]
            shift_ns = self._rounds * self._round_ns
            return Frame(
                image, self._index - 1, stamp_ns + shift_ns, self.name, pts_ns=log_ns - self._first_ns + shift_ns
            )
        return None

    def close(self) -> None:
        if self._messages is not None:
            self._messages.close()
            self._messages = None

    def _choose(self, wanted: str | None) -> str:
        """The topic to play: the one that was named, or the only one whose images can be read."""
        topics = self._recording.topics
        if wanted is not None:
            if wanted not in topics:
                raise SourceError(f"'{self.uri}' has no images under topic {wanted!r}; there are: {_listed(topics)}")
            problem = self._recording.problem(wanted)
            if problem:
                raise SourceError(f"'{self.uri}': {problem}")
            return wanted
        problems = {topic: self._recording.problem(topic) for topic in topics}
        readable = [topic for topic, problem in problems.items() if not problem]
        if len(readable) > 1:
            raise SourceError(
                f"'{self.uri}' has images of {len(readable)} topics, one is needed: add ?topic= and one of "
                f"{_listed(readable)}"
            )
        if not readable:
            others = [f"{topic} ({kind})" for topic, kind in sorted(self._recording.others.items())]
            nothing = f"sensor_msgs/Image or CompressedImage is needed, there are: {_listed(others)}"
            why = next(iter(problems.values()), nothing)
            raise SourceError(f"'{self.uri}' has no images that can be played: {why}")
        return readable[0]


def _split(uri: str) -> tuple[str, str | None]:
    """Path and topic.

    Raises:
        UsageError: an unknown parameter.
    """
    path, question, query = uri.partition("?")
    if not question or os.path.exists(uri) or not (path.lower().endswith(_SUFFIX) or os.path.isdir(path)):
        return uri, None
    parameters = parse_qs(query, keep_blank_values=True)
    if set(parameters) - {"topic"} or len(parameters.get("topic", [])) != 1:
        raise UsageError(f"source '{uri}': one parameter is known, topic: {path}?topic=/camera/image_raw")
    return path, "/" + parameters["topic"][0].lstrip("/")


def _parts(folder: str) -> list[Path]:
    """Files of a rosbag2 folder; what splits a recording is numbered `_0`, `_1`, … `_10`."""
    found = [Path(path) for path in glob.glob(os.path.join(glob.escape(folder), f"*{_SUFFIX}"))]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _listed(topics: list[str]) -> str:
    shown = " ".join(topics[:_SHOWN_TOPICS]) or "none"
    return shown + (f" … ({len(topics)} in all)" if len(topics) > _SHOWN_TOPICS else "")
