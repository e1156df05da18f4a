"""Stores of a fleet become one: every frame once, the same picture once, and what is rare before what is common."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the parquet extra")

from learning.fleet import __main__ as command
from learning.fleet.alike import Known, fingerprint
from learning.fleet.balance import Candidate, choose
from learning.store import SelectionStore
from learning.store.export import Choice
from learning.store.parquet import export_parquet
from learning.store.upkeep import check
from streaming.store.writer import StoreWriter
from tests.streaming.store.scenes import SIZE, make_rows


def _jpeg(seed: int, quality: int = 90) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (SIZE[0] // 16, SIZE[1] // 16, 3), np.uint8)
    image = blocks.repeat(16, axis=0).repeat(16, axis=1)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _store(path: Path, frames: list[tuple[int, int, list[float]]], session: str, **changes) -> Path:
    """A store with (number, seed of the picture, embedding) frames of one object each."""
    writer = StoreWriter(path, session=session)
    for number, seed, embedding in frames:
        frame, (selection, _) = make_rows(number)
        doubt = cv2.imencode(".png", np.zeros((12, 20), np.uint8))[1].tobytes()
        own = {"jpeg": _jpeg(seed), "doubt": doubt, "capture_ns": number * 10**9} | changes
        item = replace(selection, novelty=0.5, embedding=np.asarray(embedding, "<f4").tobytes())
        writer.append(replace(frame, **own), [item])
    writer.close()
    return path


def _merged(out: Path, *stores: object, frames: int | None = None) -> list[tuple[str, int]]:
    more = [] if frames is None else ["--frames", str(frames)]
    assert command.main(["merge", *map(str, stores), "--out", str(out), *more]) == 0
    assert check(out) == []
    with SelectionStore(out) as store:
        found = sorted(store.frames(), key=lambda frame: -frame.usefulness)
    return [(frame.session, frame.number) for frame in found]


def test_a_frame_counts_once_whatever_it_comes_in_and_in_whatever_order(tmp_path: Path) -> None:
    one = _store(tmp_path / "one.db", [(0, 0, [0, 0]), (5, 1, [9, 0])], "aa")
    other = _store(tmp_path / "other.db", [(0, 2, [0, 9])], "bb")
    with SelectionStore(one) as store:
        (tmp_path / "mined" / "shards").mkdir(parents=True)
        export_parquet(store, tmp_path / "mined" / "shards" / "x.parquet", Choice())
    first = _merged(tmp_path / "first.db", one, other, tmp_path / "mined")
    second = _merged(tmp_path / "second.db", (tmp_path / "mined").as_uri(), other, one, one)
    assert sorted(first) == [("aa", 0), ("aa", 5), ("bb", 0)]
    assert first == second
    with SelectionStore(tmp_path / "second.db") as merged, SelectionStore(one) as store:
        kept = {(f.session, f.number): f for f in merged.frames()}
        for frame in store.frames():
            copy = kept[frame.session, frame.number]
            assert replace(copy, id=0, usefulness=0, selections=()) == replace(frame, id=0, usefulness=0, selections=())
            for a, b in zip(copy.selections, frame.selections, strict=True):
                assert replace(a, embedding=None) == replace(b, embedding=None)
                assert np.array_equal(a.embedding, b.embedding)
                assert np.array_equal(a.mask(), b.mask())


def test_of_two_answers_for_a_frame_the_exact_one_is_taken(tmp_path: Path) -> None:
    forced = _store(tmp_path / "a.db", [(0, 0, [0, 0])], "aa", exact=False, loss_bound=0.01)
    exact = _store(tmp_path / "b.db", [(0, 0, [0, 0])], "aa")
    for number, stores in enumerate([(forced, exact), (exact, forced)]):
        _merged(tmp_path / f"{number}.db", *stores)
        with SelectionStore(tmp_path / f"{number}.db") as store:
            assert [frame.exact for frame in store.frames()] == [True]


def test_the_same_recording_encoded_again_counts_once_and_a_moved_object_does_not(tmp_path: Path) -> None:
    one = _store(tmp_path / "one.db", [(0, 0, [0, 0])], "aa")
    again = _store(tmp_path / "again.db", [(0, 0, [0, 0])], "bb", jpeg=_jpeg(0, 60))
    counts = tmp_path / "counts.json"
    arguments = ["merge", str(one), str(again), "--out", str(tmp_path / "out.db"), "--json", str(counts)]
    assert command.main(arguments) == 0
    found = json.loads(counts.read_text())
    assert found == {"read": 2, "same": 0, "alike": 1, "damaged": 0, "left_out": 0, "kept": 1}
    with SelectionStore(one) as store:
        (frame,) = store.frames()
    known = Known()
    assert known.add(fingerprint(frame))
    assert not known.add(fingerprint(frame))
    assert known.add(fingerprint(replace(frame, selections=())))


def test_what_a_thousand_robots_saw_counts_once(tmp_path: Path) -> None:
    common = [_store(tmp_path / f"{i}.db", [(0, i, [0.01 * i, 0])], f"a{i}") for i in range(4)]
    rare = _store(tmp_path / "rare.db", [(0, 90, [5, 5])], "ff")
    chosen = _merged(tmp_path / "out.db", *common, rare, frames=2)
    assert ("ff", 0) in chosen
    assert len(chosen) == 2


def test_the_lazy_choice_is_the_greedy_one() -> None:
    rng = np.random.default_rng(1)
    candidates = []
    for number in range(60):
        count = int(rng.integers(0, 4))
        embeddings = rng.normal(size=(count, 3)).astype(np.float32)
        embeddings[rng.random(count) < 0.2] = np.nan
        candidates.append(Candidate(rng.random(count), f"m{rng.integers(2)}", embeddings, ("s", "c", number)))

    def gain(index: int, chosen: list[int]) -> float:
        own, total = candidates[index], 0.0
        for novelty, vector in zip(own.novelty, own.embeddings, strict=True):
            others = [o for i in chosen if candidates[i].space == own.space for o in candidates[i].embeddings]
            distances = [((vector - other) ** 2).sum() for other in others if np.isfinite(other).all()]
            known = np.isfinite(vector).all() and bool(distances)
            total += novelty * (1 - (2 / (1 + np.exp(min(distances))) if known else 0))
        return total

    expected: list[int] = []
    left = list(range(len(candidates)))
    for _ in range(25):
        best = max(left, key=lambda index: (gain(index, expected), -index))
        expected.append(best)
        left.remove(best)
    found = choose(candidates, 25)
    assert [index for index, _ in found] == expected
    for position, (index, value) in enumerate(found):
        assert value == pytest.approx(gain(index, expected[:position]), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["absent.db", "--out", "out.db"], 5, "does not exist"),
        (["text", "--out", "out.db"], 5, "no selection store"),
        (["folder", "--out", "out.db"], 5, "no mined store"),
        (["store.db", "--out", "store.db"], 2, "exists already"),
        (["store.db", "--out", "out.db", "--frames", "0"], 2, "--frames 0"),
        (["store.db"], 2, "--out"),
    ],
)
def test_what_cannot_work_is_one_line(
    arguments: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("neither")
    Path("folder").mkdir()
    _store(Path("store.db"), [(0, 0, [0, 0])], "aa")
    assert command.main(["merge", *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not Path("out.db").exists()
