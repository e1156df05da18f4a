"""What viewers get, that nothing is encoded without them, and that the engine never waits for them."""

import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from streaming.label_codec import decode_labels
from streaming.overlay import object_colour
from streaming.preview import live_view, viewers
from streaming.preview.live_view import LiveView
from streaming.preview.message import unpack
from streaming.preview.viewers import ABSENT_AFTER_S, MOST_VIEWERS, Viewers
from tests.streaming.preview.stage import frame_done
from tests.streaming.scenes import eventually

PATIENCE_S = 60.0
STATES = [{"name": "cam", "state": "live"}]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Indices of the frames that were encoded."""
    indices: list[int] = []
    real = live_view.encode_view

    def counting(frame, scene):
        indices.append(frame.index)
        return real(frame, scene)

    monkeypatch.setattr(live_view, "encode_view", counting)
    return indices


@pytest.fixture
def view(encoded: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveView]:
    monkeypatch.setattr(viewers, "ABSENT_AFTER_S", 600.0)  # a busy machine may not ask for seconds
    made = LiveView(lambda: STATES)
    yield made
    made.close()


@pytest.fixture
def asking(view: LiveView) -> Iterator[None]:
    """A viewer of "cam" that takes a message as soon as it has the one before."""
    view.viewers.admit("a", "cam")
    over = threading.Event()

    def ask() -> None:
        number = 0
        while not over.is_set():
            number = unpack(view.next("cam", number, 0.2))[0].get("number", number)

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    over.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_message_holds_the_frame_at_half_size_with_its_masks_and_objects(view: LiveView) -> None:
    assert view.viewers.admit("a", "cam")
    done = frame_done(5, followed=(3, 8))
    view.observe(done)
    state, labels, jpeg = unpack(view.next("cam", 0, PATIENCE_S))
    assert state["view"] == [60, 80]
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    small = cv2.resize(done.frame.image, (80, 60), interpolation=cv2.INTER_AREA)
    assert picture.shape == (60, 80, 3)
    assert np.abs(picture.astype(int) - small).mean() < 12
    assert np.array_equal(decode_labels(labels, "rle+zlib", (60, 80)), done.scenes[0].labels[::2, ::2])
    assert state["frame"]["index"] == 5
    assert state["frame"]["size"] == [120, 160]
    first, second = state["frame"]["objects"]
    assert (first["id"], first["label"], first["box"], first["age"]) == (3, 1, [30, 20, 80, 60], 40)
    assert (first["followed"], second["followed"]) == (True, False)
    blue, green, red = object_colour(70000)
    assert second["colour"] == f"#{red:02x}{green:02x}{blue:02x}"
    assert [item["id"] for item in state["frame"]["followed"]] == [3, 8]  # 8 is out of sight
    assert state["samples"]["stages"] == ["flow", "network"]
    assert [(row[0], *row[2:]) for row in state["samples"]["rows"]] == [(5, 20.0, 5.0, 7.5)]
    assert state["sources"] == STATES


def test_large_frames_are_shown_smaller_than_half(view: LiveView) -> None:
    view.viewers.admit("a", "cam")
    view.observe(frame_done(size=(2160, 3840)))
    state, _, _ = unpack(view.next("cam", 0, PATIENCE_S))
    assert state["view"] == [540, 960]


def test_nothing_is_encoded_while_nobody_watches(view: LiveView, encoded: list[int]) -> None:
    for index in range(50):
        view.observe(frame_done(index))
    view.viewers.admit("a", "other")  # somebody watches, but another source
    view.observe(frame_done(50))
    view.observe(frame_done(0, "other"))
    view.next("other", 0, PATIENCE_S)
    assert encoded == [0]
    view.viewers.admit("a", "cam")
    assert unpack(view.next("cam", 0, PATIENCE_S))[0]["frame"]["index"] == 50
    assert encoded == [0, 50]


def test_who_comes_back_never_sees_the_past_first(view: LiveView) -> None:
    view.viewers.admit("a", "cam")
    view.observe(frame_done(1))
    assert unpack(view.next("cam", 0, PATIENCE_S))[0]["frame"]["index"] == 1
    view.viewers.admit("a", "elsewhere")
    view.observe(frame_done(2))
    view.viewers.admit("a", "cam")
    assert unpack(view.next("cam", 0, PATIENCE_S))[0]["frame"]["index"] == 2


def test_a_still_source_is_shown_once_and_its_state_from_time_to_time(view: LiveView, encoded: list[int]) -> None:
    view.observe(frame_done(1))  # e.g. paused before anybody watched
    view.viewers.admit("a", "cam")
    number = unpack(view.next("cam", 0, PATIENCE_S))[0]["number"]
    state, labels, jpeg = unpack(view.next("cam", number, 0.05))
    assert (state["sources"], labels, jpeg) == (STATES, b"", b"")
    assert "frame" not in state
    assert encoded == [1]


def test_a_page_that_knows_no_source_yet_learns_them_at_once(view: LiveView) -> None:
    start = time.monotonic()
    assert unpack(view.next("", 0, PATIENCE_S))[0]["sources"] == STATES
    assert time.monotonic() - start < PATIENCE_S / 2


def test_what_a_slow_viewer_does_not_ask_for_is_not_encoded(view: LiveView, encoded: list[int]) -> None:
    view.viewers.admit("a", "cam")
    view.observe(frame_done(0))
    number = unpack(view.next("cam", 0, PATIENCE_S))[0]["number"]
    for index in range(1, 6):
        view.observe(frame_done(index))
        time.sleep(1 / live_view.HIGHEST_RATE_HZ)  # time enough to encode each of them
    assert unpack(view.next("cam", number, PATIENCE_S))[0]["frame"]["index"] == 5
    assert encoded == [0, 5]


def test_who_asks_late_gets_no_old_picture_another_one_was_sent(view: LiveView) -> None:
    for viewer in ("a", "b"):
        view.viewers.admit(viewer, "cam")
    view.observe(frame_done(1))
    assert unpack(view.next("cam", 0, PATIENCE_S))[0]["frame"]["index"] == 1
    view.observe(frame_done(2))
    assert eventually(lambda: time.monotonic() > max(view._shown["cam"].due_s, view._not_before_s))
    assert unpack(view.next("cam", 0, PATIENCE_S))[0]["frame"]["index"] == 2


@pytest.mark.usefixtures("asking")
def test_at_most_ten_frames_per_second_are_encoded(view: LiveView, encoded: list[int]) -> None:
    start = time.monotonic()

    def five_were() -> bool:
        view.observe(frame_done(len(encoded), size=(48, 64)))
        return len(encoded) >= 5

    assert eventually(five_were)
    assert len(encoded) <= 1 + live_view.HIGHEST_RATE_HZ * (time.monotonic() - start)


@pytest.mark.usefixtures("asking")
def test_slow_encoding_pauses_longer(view: LiveView, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[float] = []

    def expensive(frame, scene):
        begun.append(time.monotonic())
        until = time.thread_time() + 0.03
        while time.thread_time() < until:
            pass
        return (1, 1), b"", b""

    monkeypatch.setattr(live_view, "encode_view", expensive)

    def three_were() -> bool:
        view.observe(frame_done())
        return len(begun) == 3

    assert eventually(three_were)
    assert np.diff(begun).min() >= 0.03 / live_view.SHARE_OF_A_CORE


def test_every_frame_reaches_the_charts_though_few_are_shown(view: LiveView) -> None:
    view.viewers.admit("a", "cam")
    seen: list[int] = []
    number = 0
    for index in range(60):
        view.observe(frame_done(index, size=(48, 64)))
        if index % 20 == 19:
            state = unpack(view.next("cam", number, PATIENCE_S))[0]
            seen += [row[0] for row in state["samples"]["rows"]]
            number = state["number"]
    deadline = time.monotonic() + PATIENCE_S
    while seen[-1] < 59 and time.monotonic() < deadline:
        state = unpack(view.next("cam", number))[0]
        seen += [row[0] for row in state.get("samples", {"rows": []})["rows"]]
        number = state.get("number", number)
    assert seen == list(range(60))


def test_the_engine_does_not_wait_for_viewers_or_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, encoded = threading.Event(), []

    def stuck(frame, scene):
        go_on.wait(PATIENCE_S)
        encoded.append(frame.index)
        raise ValueError("no picture")

    monkeypatch.setattr(live_view, "encode_view", stuck)
    view = LiveView(lambda: STATES)
    view.viewers.admit("a", "cam")
    waiting = [threading.Thread(target=view.next, args=("cam", 0, PATIENCE_S)) for _ in range(MOST_VIEWERS)]
    for thread in waiting:
        thread.start()
    for index in range(20):
        view.observe(frame_done(index))
    assert encoded == []  # all of that while the encoder was stuck with the first one
    go_on.set()
    view.close()
    for thread in waiting:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in waiting)


@pytest.mark.usefixtures("asking")
def test_a_frame_that_cannot_be_shown_does_not_end_the_page(view: LiveView, monkeypatch: pytest.MonkeyPatch) -> None:
    real = live_view.encode_view

    def fails_once(frame, scene):
        if frame.index == 0:
            raise ValueError("odd frame")
        return real(frame, scene)

    monkeypatch.setattr(live_view, "encode_view", fails_once)
    view.observe(frame_done(0))
    assert eventually(lambda: not view._shown["cam"].fresh)
    view.observe(frame_done(1))
    assert unpack(view.next("cam", 0, PATIENCE_S))[0]["frame"]["index"] == 1


def test_numbers_go_on_over_a_restart() -> None:
    """A page that has number n of the process before must not take a new message for the one it has."""
    first = LiveView(lambda: STATES)
    first.viewers.admit("a", "cam")
    first.observe(frame_done())
    before = unpack(first.next("cam", 0, PATIENCE_S))[0]["number"]
    first.close()
    time.sleep(0.01)
    second = LiveView(lambda: STATES)
    second.viewers.admit("a", "cam")
    second.observe(frame_done())
    assert unpack(second.next("cam", before, PATIENCE_S))[0]["number"] != before
    second.close()


def test_viewers_are_few_and_leave_by_silence() -> None:
    now = [100.0]
    viewers = Viewers(lambda: now[0])
    assert all(viewers.admit(f"v{i}", "cam") for i in range(MOST_VIEWERS))
    assert not viewers.admit("late", "cam")
    now[0] += ABSENT_AFTER_S * 0.9
    assert viewers.admit("v0", "arm")
    now[0] += ABSENT_AFTER_S * 0.2
    assert viewers.watched() == {"arm"}
    assert viewers.count() == 1
    assert viewers.admit("late", "cam")
    assert viewers.watched() == {"arm", "cam"}
    now[0] += 2 * ABSENT_AFTER_S
    assert viewers.watched() == frozenset()


@pytest.mark.parametrize(
    ("total_ms", "rate_hz"), [(0.0, live_view.HIGHEST_RATE_HZ), (1e4, live_view.SATURATED_RATE_HZ)]
)
def test_an_engine_without_time_to_spare_encodes_fewer(view: LiveView, total_ms: float, rate_hz: float) -> None:
    for index in range(20):
        view.observe(frame_done(index, total_ms=total_ms))
    assert view._rate_hz == rate_hz
