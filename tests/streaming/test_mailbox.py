"""Frames change threads: newest wins, or none is lost; ends and errors arrive too."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SourceError
from engine.frame import Frame
from streaming.capture import CaptureThread
from streaming.mailbox import Mailbox
from streaming.sources.base import Source

PATIENCE_S = 60.0


def frame(index: int) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), index, 0, "test")


def eventually(condition: Callable[[], bool]) -> bool:
    """Poll for something that another thread does; False only when it never happens."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.001)
    return True


class ScriptedSource(Source):
    """Delivers what `script(index)` returns or raises; waits where it says."""

    def __init__(self, script: Callable[[int], Frame | None], *, live: bool = True, fps: float | None = None) -> None:
        super().__init__("scripted", "scripted")
        self.live = live
        self.fps = fps
        self._script = script
        self._next = 0
        self.closed_by: list[str] = []

    def read(self) -> Frame | None:
        self._next += 1
        return self._script(self._next - 1)

    def close(self) -> None:
        self.closed_by.append(threading.current_thread().name)


def up_to(count: int) -> Callable[[int], Frame | None]:
    return lambda index: frame(index) if index < count else None


def test_newest_keeps_the_last_frame_and_counts_the_others() -> None:
    box = Mailbox("newest")
    for index in range(5):
        assert box.put(frame(index))
    taken = box.get(0)
    assert taken is not None
    assert taken.index == 4
    assert box.dropped == {"superseded": 4}
    assert box.get(0) is None
    assert not box.finished


def test_every_from_a_live_source_drops_the_oldest_when_full() -> None:
    box = Mailbox("every", 3, live=True)
    for index in range(5):
        assert box.put(frame(index))
    box.close()
    assert [taken.index for taken in iter(lambda: box.get(0), None)] == [2, 3, 4]
    assert box.dropped == {"queue_full": 2}
    assert box.finished


def test_every_from_a_file_makes_the_producer_wait() -> None:
    box = Mailbox("every", 2)
    waiting = threading.Event()

    def produce() -> None:
        for index in range(3):
            if index == 2:
                waiting.set()
            box.put(frame(index))
        box.close()

    producer = threading.Thread(target=produce)
    producer.start()
    assert waiting.wait(PATIENCE_S)
    assert len(box) == 2
    assert [taken.index for taken in iter(lambda: box.get(PATIENCE_S), None)] == [0, 1, 2]
    producer.join(PATIENCE_S)
    assert box.dropped == {}


def test_closing_frees_a_waiting_producer() -> None:
    box = Mailbox("every", 1)
    answers: list[bool] = []
    producer = threading.Thread(target=lambda: answers.extend([box.put(frame(0)), box.put(frame(1))]))
    producer.start()
    assert eventually(lambda: len(box) == 1)
    box.close()
    producer.join(PATIENCE_S)
    assert answers == [True, False]
    assert box.put(frame(2)) is False


def test_get_gives_up_after_its_timeout_and_wakes_for_a_frame() -> None:
    box = Mailbox("newest")
    start_s = time.monotonic()
    assert box.get(0.05) is None
    assert time.monotonic() - start_s >= 0.05
    threading.Timer(0.02, box.put, [frame(7)]).start()
    taken = box.get(PATIENCE_S)
    assert taken is not None
    assert taken.index == 7


def test_an_error_arrives_after_the_frames_before_it() -> None:
    box = Mailbox("every", 4)
    box.put(frame(0))
    box.fail(SourceError("camera gone"))
    taken = box.get(0)
    assert taken is not None
    assert not box.finished  # the error still waits to be taken
    with pytest.raises(SourceError, match="camera gone"):
        box.get(0)


def test_an_error_after_the_end_is_not_reported() -> None:
    box = Mailbox("newest")
    box.close()
    box.fail(SourceError("released under the read"))
    assert box.get(0) is None


@pytest.mark.parametrize(("policy", "size"), [("latest", 1), ("every", 0)])
def test_wrong_arguments_are_refused(policy: str, size: int) -> None:
    with pytest.raises(ValueError, match=r"policy|room"):
        Mailbox(policy, size)  # type: ignore[arg-type]


@given(
    policy=st.sampled_from(["newest", "every"]),
    size=st.integers(1, 4),
    puts=st.lists(st.booleans(), max_size=40),
)
def test_no_frame_is_lost_uncounted_and_order_is_kept(policy: str, size: int, puts: list[bool]) -> None:
    box = Mailbox(policy, size, live=True)  # type: ignore[arg-type]
    sent, taken = 0, []
    for is_put in puts:
        if is_put:
            box.put(frame(sent))
            sent += 1
        elif (got := box.get(0)) is not None:
            taken.append(got.index)
    taken += [got.index for got in iter(lambda: box.get(0), None)]
    assert taken == sorted(set(taken))
    assert len(taken) + sum(box.dropped.values()) == sent
    assert not sent or taken[-1] == sent - 1


def test_a_capture_thread_delivers_everything_and_ends() -> None:
    source, box = ScriptedSource(up_to(50), live=False), Mailbox("every", 4)
    source.count_drop("corrupt", 2)
    thread = CaptureThread(source, box, threading.Event())
    assert thread.daemon
    thread.start()
    assert [taken.index for taken in iter(lambda: box.get(PATIENCE_S), None)] == list(range(50))
    assert box.finished
    assert thread.stop()
    assert thread.decoded == 50
    assert thread.dropped == {"corrupt": 2}
    assert source.closed_by == ["capture-scripted"]


def test_a_slow_consumer_of_a_live_source_gets_the_newest_frame_and_the_count() -> None:
    all_read = threading.Event()

    def script(index: int) -> Frame | None:
        if index < 30:
            return frame(index)
        all_read.set()
        return None

    box = Mailbox("newest")
    thread = CaptureThread(ScriptedSource(script), box, threading.Event())
    thread.start()
    assert all_read.wait(PATIENCE_S)
    taken = box.get(PATIENCE_S)
    assert taken is not None
    assert taken.index == 29
    assert thread.dropped == {"superseded": 29}
    assert thread.stop()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SourceError("camera 0 is gone"), "^camera 0 is gone$"),
        (RuntimeError("two\nlines"), "RuntimeError: two lines$"),
    ],
)
def test_an_error_in_the_thread_reaches_the_consumer(error: Exception, text: str) -> None:
    def script(index: int) -> Frame | None:
        if index == 2:
            raise error
        return frame(index)

    box = Mailbox("every", 8)
    thread = CaptureThread(ScriptedSource(script, live=False), box, threading.Event())
    thread.start()
    assert [getattr(box.get(PATIENCE_S), "index", None) for _ in range(2)] == [0, 1]
    with pytest.raises(SourceError, match=text):
        box.get(PATIENCE_S)
    assert thread.stop()


def test_a_read_that_blocks_does_not_block_the_stop() -> None:
    reading, unplugged = threading.Event(), threading.Event()

    def script(index: int) -> Frame | None:
        reading.set()
        unplugged.wait(PATIENCE_S)
        return None

    box, stop_event = Mailbox("newest"), threading.Event()
    source = ScriptedSource(script)
    thread = CaptureThread(source, box, stop_event)
    thread.start()
    assert reading.wait(PATIENCE_S)
    assert thread.stop(timeout_s=0.1) is False
    assert thread.is_alive()  # it is still in its read, and we are here
    assert stop_event.is_set()
    assert box.get(0) is None
    assert source.closed_by == []  # never released under a running read
    unplugged.set()
    thread.join(PATIENCE_S)
    assert source.closed_by == ["capture-scripted"]


def test_stop_frees_a_thread_that_waits_for_room() -> None:
    box = Mailbox("every", 1)
    thread = CaptureThread(ScriptedSource(up_to(10), live=False), box, threading.Event())
    thread.start()
    assert eventually(lambda: thread.decoded == 2)
    assert thread.stop() is True


@pytest.mark.parametrize(("policy", "paced"), [("every", True), ("newest", None)])
def test_a_paced_file_keeps_its_rate(policy: str, paced: bool | None) -> None:
    box = Mailbox(policy, 64)  # type: ignore[arg-type]
    thread = CaptureThread(ScriptedSource(up_to(11), live=False, fps=100.0), box, paced=paced)
    start_s = time.monotonic()
    thread.start()
    thread.join(PATIENCE_S)
    assert time.monotonic() - start_s >= 0.1


def test_a_file_with_newest_policy_can_run_as_fast_as_it_goes() -> None:
    thread = CaptureThread(ScriptedSource(up_to(11), live=False, fps=0.01), Mailbox("newest"), paced=False)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert thread.dropped == {"superseded": 10}


def test_a_second_of_unreadable_frames_is_a_gap() -> None:
    script = {0: 0, 1: 1, 2: 20, 3: 21, 4: 55, 5: 56}
    source = ScriptedSource(lambda count: frame(script[count]) if count in script else None, live=False, fps=25.0)
    thread = CaptureThread(source, Mailbox("every", 16))
    thread.start()
    thread.join(PATIENCE_S)
    assert list(thread.gaps) == [55]


def test_the_process_leaves_in_good_order_while_a_read_blocks() -> None:
    script = """
import threading
import time
from streaming.capture import CaptureThread
from streaming.mailbox import Mailbox
from streaming.sources.base import Source

reading = threading.Event()

class Slow(Source):
    def read(self):
        reading.set()
        time.sleep(2)
    def close(self):
        print("closed", flush=True)

thread = CaptureThread(Slow("slow", "slow"), Mailbox())
thread.start()
assert reading.wait(60)
assert thread.stop(timeout_s=0.05) is False
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "closed\n", "")
