"""Local cameras, through an injected capture object where no device exists."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import SourceError
from streaming.sources import open_source


class FakeCamera:
    """Plays a script: a number is a gray frame, "broken" does not decode, "nothing" is no frame."""

    def __init__(self, script: list[int | str], opened: bool = True) -> None:
        self.script = script
        self.opened = opened
        self.released = False
        self.grabbed_at_ns: list[int] = []

    def isOpened(self) -> bool:
        return self.opened

    def grab(self) -> bool:
        if not self.script:
            return False
        self.current = self.script.pop(0)
        self.grabbed_at_ns.append(time.time_ns())
        return self.current != "nothing"

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        if isinstance(self.current, str):
            return False, None
        return True, np.full((6, 8), self.current, np.uint8)

    def get(self, prop: int) -> float:
        return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_FRAME_WIDTH: 8.0, cv2.CAP_PROP_FRAME_HEIGHT: 6.0}[prop]

    def set(self, prop: int, value: float) -> bool:
        return False

    def release(self) -> None:
        self.released = True


def test_camera_frames_carry_the_time_of_the_grab() -> None:
    camera = FakeCamera([10, 20])
    with open_source("0", capture_factory=lambda uri: camera) as source:
        assert (source.name, source.live, source.size, source.fps) == ("camera0", True, (6, 8), 30.0)
        first, second = source.read(), source.read()
    assert first is not None
    assert second is not None
    assert (first.index, second.index) == (0, 1)
    assert first.pts_ns is None
    assert first.image.shape == (6, 8, 3)
    assert camera.grabbed_at_ns[0] <= first.t_capture_ns <= camera.grabbed_at_ns[1]
    assert camera.released


def test_frames_that_do_not_decode_are_counted_and_missed_grabs_retried() -> None:
    camera = FakeCamera([10, "broken", "nothing", "nothing", 40, "broken", 60])
    with open_source("/dev/video3", capture_factory=lambda uri: camera) as source:
        indices = [frame.index for frame in (source.read(), source.read(), source.read()) if frame]
    assert indices == [0, 2, 4]
    assert source.dropped == {"corrupt": 2}


def test_an_unplugged_camera_is_an_error() -> None:
    camera = FakeCamera([10])
    with open_source("0", capture_factory=lambda uri: camera) as source:
        source.read()
        with pytest.raises(SourceError, match="after 1 frames"):
            source.read()
        assert camera.released
        assert source.read() is None


def test_a_camera_that_does_not_open_is_an_error() -> None:
    camera = FakeCamera([], opened=False)
    with pytest.raises(SourceError, match=r"camera 0 cannot be opened"):
        open_source("0", capture_factory=lambda uri: camera)
    assert camera.released


@pytest.mark.parametrize("uri", ["63", "/dev/video63", "/dev/v4l/by-id/no-such-camera"])
def test_a_camera_that_does_not_exist_is_refused(uri: str) -> None:
    if Path("/dev/video63").exists():
        pytest.skip("this machine has 64 cameras")
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    message = str(caught.value)
    assert uri in message
    assert "present:" in message
    assert "\n" not in message
