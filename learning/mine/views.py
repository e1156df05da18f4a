"""What a recording shows: one view per camera, frames in order, with times that depend on its content only."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from engine.frame import Frame
from learning.mine.bags import bag_views
from learning.mine.footage import PictureView, VideoView
from learning.mine.recordings import Recording


class View(Protocol):
    """One camera of a recording.

    Attributes:
        name: what its frames carry as their source.
        lost: frames that were not delivered, by cause, complete once the frames have been read.
        timed: whether a silence between frames is one of the world, across which nothing is followed.
    """

    name: str
    lost: Counter[str]
    timed: bool

    def frames(self) -> Iterator[Frame]:
        """Every frame that can be decoded, index and time ascending."""


def open_views(recording: Recording, path: Path) -> list[View]:
    """The views of a recording whose local copy is `path`.

    Raises:
        SourceError: it cannot be read, or shows nothing.
    """
    if recording.kind == "bag":
        return list(bag_views(path))
    if recording.kind == "pictures":
        return [PictureView(path, recording.name)]
    return [VideoView(path, recording.name)]
