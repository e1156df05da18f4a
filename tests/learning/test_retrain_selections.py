"""What a store holds becomes samples that claim no more than its certificates do."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from engine.errors import StoreError
from learning.labels import IGNORED_ID, LabelRules, Tally
from learning.retrain import selections
from learning.retrain.selections import read_account, sample_of, take_selections
from learning.retrain.settings import Settings
from learning.retrain.split import Moment, split_frames
from learning.store import SelectionStore
from learning.synthesis.generate import pair_features
from learning.synthesis.sample import Kind, Origin, Sample
from learning.synthesis.shards import Shards
from tests.learning import stored


def _one(
    path: Path, previous: bool = True, doubt: np.ndarray | None = None, **how: object
) -> tuple[Sample | None, Tally]:
    """The sample of a store with one frame, and the mask that is in it."""
    before, current, mask = stored.scene(np.random.default_rng(3))
    connection = stored.create(path)
    stored.add_frame(connection, 7, 0, (before if previous else None, current), [mask], doubt, **how)  # type: ignore[arg-type]
    connection.commit()
    connection.close()
    tally = Tally()
    with SelectionStore(path) as store:
        return sample_of(next(iter(store.frames())), LabelRules(), tally), tally


def test_a_certified_selection_is_an_object_and_what_nobody_doubts_is_background(tmp_path: Path) -> None:
    before, current, mask = stored.scene(np.random.default_rng(3))
    sample, _ = _one(tmp_path / "s.db")
    assert sample is not None
    assert sample.origin == Origin.STORE
    assert sample.kinds[1] == Kind.MOVING
    inside = sample.ids == 1
    assert (inside & mask).sum() / (inside | mask).sum() > 0.99
    far = cv2.dilate(mask.astype(np.uint8), np.ones((25, 25))) == 0
    assert (sample.ids[far] == 0).all()
    assert np.abs(sample.image[..., ::-1].astype(int) - current).mean() < 4
    # As the engine would have computed it from the frames themselves, up to what JPEG changes.
    assert sample.motion is not None
    assert np.abs(sample.motion - pair_features(before, current)).mean() < 0.15


def test_pixels_no_certificate_covers_are_ignored_not_background(tmp_path: Path) -> None:
    doubt = np.zeros((64, 112), np.uint8)
    doubt[:, :30] = 200
    _, _, mask = stored.scene(np.random.default_rng(3))
    sample, _ = _one(tmp_path / "s.db", doubt=doubt)
    assert sample is not None
    doubted = np.zeros(mask.shape, bool)
    doubted[:, :112] = True
    assert (sample.ids[doubted & (sample.ids != 1)] == IGNORED_ID).all()
    assert sample.kinds[IGNORED_ID] == Kind.UNSURE
    assert (sample.ids[:, 140:] == 0).any()


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ({"exact": False, "loss_bound": 0.5}, "certificate"),
        ({"previous": False}, "no motion before it"),
        ({"age": 0}, "nothing certain"),
        ({"foreground": 0.1, "score": 0.1}, "nothing certain"),
    ],
)
def test_a_frame_that_is_certain_of_nothing_is_left_out_and_counted(
    how: dict[str, object], cause: str, tmp_path: Path
) -> None:
    sample, tally = _one(tmp_path / "s.db", **how)  # type: ignore[arg-type]
    assert sample is None
    assert tally.frames == {cause: 1}


def test_what_the_engine_remembers_as_foreground_is_an_object_also_while_it_rests(tmp_path: Path) -> None:
    _, picture, mask = stored.scene(np.random.default_rng(3))
    connection = stored.create(tmp_path / "s.db")
    for number, score in enumerate((0.7, 0.3)):
        stored.add_frame(connection, number, 0, (picture, picture), [mask], score=score)
    connection.commit()
    connection.close()
    with SelectionStore(tmp_path / "s.db") as store:
        samples = [sample_of(frame, selections.RULES, Tally()) for frame in store.frames()]
    assert samples[0] is not None
    assert samples[0].kinds[1] == Kind.STATIC
    assert samples[1] is None


def test_the_split_is_that_of_the_store_and_keeps_neighbours_apart(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    connection = stored.create(path)
    picture = np.zeros((256, 448, 3), np.uint8)
    for number in range(600):
        stored.add_frame(connection, number, number * 3 * stored.SECOND_NS, (None, picture), [], usefulness=number % 7)
    connection.commit()
    connection.close()
    with SelectionStore(path) as store:
        moments = [Moment(f.id, f"{f.session}/{f.source}", f.capture_ns, f.usefulness) for f in store.frames()]
        expected = set(store.frame_ids("held_out"))
    split = split_frames(moments)
    held = {frame for frames in split.held.values() for frame in frames}
    assert held == expected
    time_ns = {m.frame: m.time_ns for m in moments}
    closest = min(abs(time_ns[a] - time_ns[b]) for a in split.train for b in held)
    assert closest > 2 * stored.SECOND_NS
    worth = {m.frame: m.usefulness for m in moments}
    assert [worth[f] for f in split.train] == sorted((worth[f] for f in split.train), reverse=True)
    # Blocks stay on their side when the store grows.
    assert set(split_frames(moments[:400]).held) <= set(split.held)


def test_a_store_of_a_moment_cannot_be_split() -> None:
    moments = [Moment(n, "a/cam", n * 10**8, 1.0) for n in range(20)]
    with pytest.raises(StoreError, match="20 frames of 1 recordings are too few"):
        split_frames(moments)


def test_samples_are_written_once_and_say_where_they_came_from(tmp_path: Path) -> None:
    path, folder = tmp_path / "s.db", tmp_path / "selections"
    stored.fill(path, 40)
    seen: list[tuple[int, int]] = []
    account = take_selections(path, folder, Settings(frames=9), lambda done, total: seen.append((done, total)))
    assert account.stored == 40
    assert account.train == len(Shards(folder)) == 9
    assert len(account.blocks) == len(Shards(folder, "held")) == account.frames["used"] - 9
    assert len(set(account.blocks)) >= 2
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert read_account(folder) == account
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["selections"]


def test_an_empty_store_and_one_without_certain_frames_say_so(tmp_path: Path) -> None:
    stored.create(tmp_path / "empty.db").close()
    with pytest.raises(StoreError, match="holds no frame"):
        take_selections(tmp_path / "empty.db", tmp_path / "out", Settings())
    connection = stored.create(tmp_path / "unsure.db")
    rng = np.random.default_rng(0)
    for number in range(30):
        before, current, mask = stored.scene(rng)
        stored.add_frame(
            connection, number, number * 4 * stored.SECOND_NS, (before, current), [mask], exact=False, loss_bound=1.0
        )
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match=r"no frame to learn from among 30 .*certificate") as caught:
        take_selections(tmp_path / "unsure.db", tmp_path / "out", Settings())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored.fill(tmp_path / "s.db", 40)
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(selections.shutil, "disk_usage", lambda folder: real._replace(free=1_000_000))
    with pytest.raises(StoreError, match="1 MB free, the samples need"):
        take_selections(tmp_path / "s.db", tmp_path / "selections", Settings())
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []
