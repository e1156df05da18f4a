"""What is kept for learning, what is not and why, and what is written of it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.config import RecordConfig
from engine.record.recorder import Recorder
from engine.record.usefulness import Diversity, usefulness
from engine.scene import CommitInfo, Scene
from learning.store import FrameRecord, SelectionStore
from streaming.store.writer import StoreWriter
from tests.streaming.store.scenes import SIZE, make_final, make_frame


def record(path: Path, scenes: list[Scene], lag: int = 2, **settings) -> tuple[Recorder, list[FrameRecord]]:
    """Feed frames and, `lag` frames later, their finals; return the recorder and what is in the store."""
    recorder = Recorder(StoreWriter(path), RecordConfig(**settings))
    for position, scene in enumerate(scenes):
        ready = [scenes[position - lag]] if position >= lag else []
        size = scene.labels.shape
        recorder.step(make_frame(scene.frame_index, scene.source, size), ready)
    recorder.step(None, scenes[len(scenes) - min(lag, len(scenes)) :])
    recorder.close()
    with SelectionStore(path) as store:
        return recorder, list(store.frames())


def test_one_frame_in_five_is_kept_and_it_is_the_most_useful(tmp_path: Path) -> None:
    novelty = np.random.default_rng(1).uniform(0.1, 0.9, 23)
    scenes = [make_final(i, novelty=float(value)) for i, value in enumerate(novelty)]
    recorder, frames = record(tmp_path / "a.store", scenes)
    best = [start + int(novelty[start : start + 5].argmax()) for start in range(0, 23, 5)]
    assert [frame.number for frame in frames] == best
    assert recorder.kept == 5
    assert recorder.causes == {"interval": 18}


def test_only_certified_finals_with_objects_are_kept_and_every_final_is_accounted_for(tmp_path: Path) -> None:
    scenes = [
        make_final(0),
        make_final(1, commit=CommitInfo(False, 5, 0.021)),
        make_final(2, commit=CommitInfo(False, 5, 0.019)),
        make_final(3, objects=()),
        make_final(4, commit=None),
        make_final(5, evidence=None),
        make_final(6),
    ]
    recorder, frames = record(tmp_path / "a.store", scenes, interval=1)
    assert [frame.number for frame in frames] == [0, 2, 6]
    assert [frame.exact for frame in frames] == [True, False, True]
    assert recorder.causes == {"not_certified": 3, "empty": 1}
    assert recorder.kept + sum(recorder.causes.values()) == len(scenes)


def test_provisional_scenes_are_never_kept(tmp_path: Path) -> None:
    scenes = [make_final(i, kind="provisional") for i in range(6)]
    recorder, frames = record(tmp_path / "a.store", scenes, interval=1)
    assert frames == []
    assert not recorder.causes


def test_what_is_written_is_what_was_seen(tmp_path: Path) -> None:
    scenes = [make_final(i) for i in range(2)]
    _, (first, second) = record(tmp_path / "a.store", scenes, interval=1)
    scene, image = scenes[1], make_frame(1).image
    assert (second.source, second.number, second.size) == ("cam", 1, SIZE)
    assert (second.capture_ns, second.previous_capture_ns) == (2_000_000_000, 1_000_000_000)
    assert (second.model_name, second.model_hash, second.generation) == ("tiny", "c0ffee", 2)
    assert (second.exact, second.lag, second.loss_bound, second.margin) == (True, 2, 0.0, 0.25)
    # One grid cell is four pixels: a flow of (0.75, 1) cells is (3, 4) pixels long.
    assert second.flow_px == pytest.approx(5.0)
    assert np.abs(second.image().astype(int) - image).mean() < 5
    previous = second.previous_image()
    assert previous is not None
    assert np.abs(previous.astype(int) - make_frame(0).image).mean() < 5
    assert first.previous_image() is None
    (item,) = second.selections
    np.testing.assert_array_equal(item.mask(), scene.labels == 3)
    assert item.object_id == 7
    assert item.box == scene.objects[0].box
    assert (item.area, item.score, item.age) == (scene.objects[0].area, 0.4, 12)
    assert (item.novelty, item.uncertainty, item.foreground) == (0.5, 0.3, 0.8)
    assert item.motion_px == pytest.approx(10.0)
    np.testing.assert_array_equal(item.embedding, [1.0, 0.0])


def test_the_cover_says_what_is_certain(tmp_path: Path) -> None:
    _, (frame,) = record(tmp_path / "a.store", [make_final(0)], interval=1)
    cover = frame.cover()
    np.testing.assert_array_equal(cover == 2, frame.selections[0].mask())
    assert cover[-20, 2] == 1, "background"
    assert cover[2, 4] == 0, "a candidate with score 0.6 that was not selected"
    assert cover[-1, -1] == 0, "foreground probability 0.7"
    assert frame.cover(limit=0.8)[2, 4] == 1


def test_the_frame_before_a_cut_or_before_lost_frames_is_not_kept_with_the_one_after(tmp_path: Path) -> None:
    cut = make_final(1)
    evidence = cut.evidence
    recorder = Recorder(StoreWriter(tmp_path / "a.store"), RecordConfig(interval=1))
    without_flow = make_final(
        1,
        evidence=type(evidence)(
            **{n: getattr(evidence, n) for n in evidence.__slots__} | {"flow": None, "residual": None}
        ),
    )
    recorder.step(make_frame(0), [make_final(0)])
    recorder.step(make_frame(1), [without_flow])
    recorder.step(make_frame(2), [make_final(2)])
    recorder.step(make_frame(4), [make_final(4)], gap=True)
    recorder.close()
    with SelectionStore(tmp_path / "a.store") as store:
        assert [f.number for f in store.frames() if f.previous_jpeg is not None] == [2]
        assert [f.flow_px is None for f in store.frames()] == [False, True, False, False]


def test_a_scene_that_stands_still_is_kept_once(tmp_path: Path) -> None:
    recorder = Recorder(StoreWriter(tmp_path / "a.store"), RecordConfig(interval=1))
    still = make_frame(0)
    for index in range(6):
        recorder.step(type(still)(still.image, index, index, "cam"), [make_final(index)])
    moved = make_final(6)
    moved = make_final(6, labels=np.roll(moved.labels, 20, axis=1))
    recorder.step(type(still)(still.image, 6, 6, "cam"), [moved])
    recorder.step(make_frame(7), [make_final(7)])
    recorder.close()
    with SelectionStore(tmp_path / "a.store") as store:
        assert [frame.number for frame in store.frames()] == [0, 6, 7]
    assert recorder.causes == {"too_similar": 5}


def test_sources_do_not_mix(tmp_path: Path) -> None:
    recorder = Recorder(StoreWriter(tmp_path / "a.store"), RecordConfig(interval=3))
    for index in range(6):
        for source in ("left", "right"):
            place = [10.0 * index, 100.0 * (source == "right")]
            scene = make_final(index, source, novelty=0.1 * index + 0.1, embedding=place)
            recorder.step(make_frame(index, source), [scene])
    recorder.close()
    with SelectionStore(tmp_path / "a.store") as store:
        assert [(f.source, f.number) for f in store.frames()] == [("left", 2), ("right", 2), ("left", 5), ("right", 5)]


def test_a_final_whose_picture_was_lost_is_counted(tmp_path: Path) -> None:
    recorder = Recorder(StoreWriter(tmp_path / "a.store"), RecordConfig(interval=1))
    recorder.step(make_frame(1), [make_final(0), make_final(1)])
    recorder.close()
    assert (recorder.kept, recorder.causes) == (1, {"no_image": 1})


def test_large_pictures_are_scaled_down_with_their_masks(tmp_path: Path) -> None:
    scene = make_final(0, size=(480, 800))
    _, (frame,) = record(tmp_path / "a.store", [scene], interval=1, image_px=400)
    assert frame.size == (240, 400) == frame.image().shape[:2]
    (item,) = frame.selections
    small = cv2.resize(scene.labels, (400, 240), interpolation=cv2.INTER_NEAREST) == 3
    np.testing.assert_array_equal(item.mask(), small)
    assert item.box == (40, 40, 360, 200)
    assert item.area == small.sum()


def test_an_object_seen_before_is_worth_less_than_a_new_one() -> None:
    diversity = Diversity()
    old, new = np.array([1.0, 0.0], np.float32), np.array([0.0, 3.0], np.float32)
    item = make_final(0, novelty=0.6).objects
    assert usefulness(item, [old], diversity) == pytest.approx(0.6)
    diversity.keep(1, [old])
    assert usefulness(item, [old], diversity) == pytest.approx(0.0)
    # 1 - 2 / (1 + exp(10)), the squared distance being 10.
    assert usefulness(item, [new], diversity) == pytest.approx(0.6 * (1 - 2 / (1 + np.exp(10))), rel=1e-4)
    assert usefulness(item, [None], diversity) == pytest.approx(0.6)
    assert usefulness(item * 2, [old, new], diversity) == usefulness(item, [new], diversity)


def test_the_oldest_memories_are_forgotten_and_another_model_starts_anew() -> None:
    first = np.zeros(2, np.float32)
    diversity = Diversity([(1, first)])
    diversity.keep(2, np.array([[50.0 + i, 0.0] for i in range(2047)], np.float32))
    assert diversity.of([first]) == [0.0]
    diversity.keep(3, [np.array([60.0, 0.0], np.float32)])
    assert diversity.of([first])[0] > 0.9
    longer = np.ones(3, np.float32)
    assert diversity.of([longer]) == [1.0]
    diversity.keep(4, [longer])
    assert diversity.of([longer, first]) == [0.0, 1.0]


def test_what_left_the_store_is_new_again() -> None:
    one, other = np.zeros(2, np.float32), np.full(2, 9.0, np.float32)
    diversity = Diversity([(5, one), (6, other)])
    diversity.forget([5, 77])
    assert diversity.of([one, other]) == [pytest.approx(1.0), 0.0]


def test_redundant_frames_leave_a_full_store_first(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    recorder = Recorder(StoreWriter(path, quota_mb=0.1), RecordConfig(interval=1))
    for index in range(60):
        place = [0.0, 0.0] if index % 8 else [20.0 + 5 * index, 3.0 * index]
        recorder.step(make_frame(index), [make_final(index, embedding=place)])
    recorder.close()
    assert recorder.causes["evicted"] + recorder.causes["quota"] > 20
    with SelectionStore(path) as store:
        numbers = {frame.number for frame in store.frames()}
    assert len(numbers) == recorder.kept - recorder.causes["evicted"]
    assert numbers >= set(range(0, 60, 8)), "the only picture of something left before the thirtieth of another"
    assert 1 in numbers, "the first picture of what is seen again and again stays as well"


def test_a_store_that_is_continued_knows_what_it_has(tmp_path: Path) -> None:
    scenes = [make_final(i, embedding=[0.0, 0.0]) for i in range(1)]
    _, (first,) = record(tmp_path / "a.store", scenes, interval=1)
    _, (_, again) = record(tmp_path / "a.store", scenes, interval=1)
    assert first.usefulness == pytest.approx(0.5)
    assert again.usefulness == pytest.approx(0.0)
    assert first.session != again.session
