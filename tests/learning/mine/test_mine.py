"""Mining: the whole-video optimum of every recording, each exactly once, whoever dies in between."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the parquet extra")

from engine.config import EngineConfig
from engine.errors import StoreError
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.record.recorder import Recorder
from engine.select.path import offline_path
from learning.mine import __main__ as command
from learning.mine.offline import Tally, mine_view, offline_config
from learning.mine.recordings import find_recordings
from learning.mine.shards import MinedStore, ShardWriter
from learning.mine.views import open_views
from tests.learning.mine import clips

_PATIENCE_S = 900


def test_every_recording_is_decided_as_a_whole(recordings: Path, motion_model: Path, tmp_path: Path) -> None:
    clip = recordings / "clip1.mp4"
    config, network = offline_config(EngineConfig(), 150), Network(motion_model, threads=1)
    trace = []
    pipeline = Pipeline(config, network)
    pipeline.selection.trace = lambda index, unary, pairwise: trace.append((unary, pairwise))
    (view,) = open_views(find_recordings([str(clip)])[0], clip)
    steps = [pipeline.step(frame) for frame in view.frames()] + [pipeline.flush()]
    commits = [scene.commit for scenes in steps for scene in scenes if scene.kind == "final"]
    nodes, _ = offline_path(*zip(*trace, strict=True))
    assert len(nodes) == len(commits) == 30
    assert all(commit is not None and commit.exact for commit in commits)
    writer, tally = ShardWriter(tmp_path, "0" * 64), Tally()
    (view,) = open_views(find_recordings([str(clip)])[0], clip)
    recorder = Recorder(writer, config.record, held_frames=151)
    mine_view(view, config, network, recorder, tally)
    recorder.close()
    writer.discard()
    assert (tally.frames, tally.exact, tally.forced, tally.loss_bound) == (30, 30, 0, 0.0)
    assert 0 < writer.frames <= 6
    assert sum(recorder.causes.values()) + writer.frames == 30


def test_a_decision_that_may_not_wait_is_certified_as_any_other(
    recordings: Path, motion_model: Path, tmp_path: Path
) -> None:
    clip = recordings / "clip1.mp4"
    config = offline_config(EngineConfig(), 1)
    (view,) = open_views(find_recordings([str(clip)])[0], clip)
    writer, tally = ShardWriter(tmp_path, "0" * 64), Tally()
    mine_view(view, config, Network(motion_model, threads=1), Recorder(writer, config.record), tally)
    writer.discard()
    assert tally.exact + tally.forced == 30
    assert tally.lag_max <= 1


def test_the_report_counts_what_was_done_and_what_could_not_be(mined: Path, recordings: Path) -> None:
    report = json.loads((mined / "report.json").read_text())
    assert (report["recordings"], report["frames"], report["exact_share"]) == (3, 90, 1.0)
    assert report["frames_kept"] == len(clips.rows(mined)) > 0
    assert report["selections"] == sum(len(row["selections"]) for row in clips.rows(mined))
    assert 50 < report["worker_peak_mb"] < 2000
    (failed,) = report["latest_run"]["failed"]
    assert failed["uri"] == str(recordings / "torn.mp4")
    assert "cannot be opened" in failed["problem"]
    assert sorted(path.name for path in mined.iterdir()) == ["report.json", "settings.json", "shards"]


def test_done_is_done_and_new_recordings_are_added(
    mined: Path, recordings: Path, motion_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (mined / "shards").iterdir()}
    expected = clips.rows(mined)
    copy = tmp_path / "copy.mp4"
    copy.write_bytes((recordings / "clip2.mp4").read_bytes())
    arguments = ["--out", str(mined), "--model", str(motion_model)]
    assert command.main([str(recordings), str(copy), *arguments]) == 0
    report = json.loads((mined / "report.json").read_text())
    assert (report["latest_run"]["mined"], report["latest_run"]["already_there"]) == (0, 3)
    assert {path: path.stat().st_mtime_ns for path in (mined / "shards").iterdir()} == before
    assert clips.rows(mined) == expected
    assert command.main([str(recordings), *arguments, "--max-lag", "7"]) == 5
    assert "select.lag 150 -> 7" in capsys.readouterr().err
    assert clips.rows(mined) == expected


def test_a_store_behind_a_url_holds_the_same_rows(
    mined: Path, recordings: Path, motion_model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "elsewhere"
    clip = recordings / "clip0.mp4"
    arguments = [clip.as_uri(), "--out", store.as_uri(), "--model", str(motion_model)]
    assert command.main(arguments) == 0
    session = clips.rows(store)[0]["session"]
    assert clips.rows(store) == [row for row in clips.rows(mined) if row["session"] == session]


def test_a_command_killed_without_warning_goes_on_and_loses_nothing(
    mined: Path, recordings: Path, motion_model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    arguments = (recordings, "--out", store, "--model", motion_model)
    child = clips.command(*arguments)
    give_up_s = time.monotonic() + _PATIENCE_S
    while child.poll() is None and not list(store.glob(".parts/*/*.parquet")):
        assert time.monotonic() < give_up_s
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    # One that goes on and one that is in its way: each recording once all the same.
    other = clips.command(*arguments)
    assert command.main([str(value) for value in arguments]) == 0
    assert other.wait(_PATIENCE_S) == 0
    other.communicate()
    assert clips.rows(store) == clips.rows(mined)


def test_a_full_disk_ends_the_run_and_the_shards_before_it_stay(
    recordings: Path, motion_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, finish = tmp_path / "store", ShardWriter.finish

    def full(writer: ShardWriter, account: dict[str, object]) -> None:
        if list((store / "shards").iterdir()):
            raise StoreError("no space left")
        finish(writer, account)

    monkeypatch.setattr(ShardWriter, "finish", full)
    arguments = [str(recordings), "--out", str(store), "--model", str(motion_model)]
    assert command.main(arguments) == 5
    monkeypatch.undo()
    (shard,) = (store / "shards").iterdir()
    assert [path.name for path in store.iterdir() if path.name.startswith(".")] == []
    before = shard.stat().st_mtime_ns
    assert command.main(arguments) == 0
    assert shard.stat().st_mtime_ns == before
    assert len(list(MinedStore(str(store)).accounts())) == 3


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (["--workers", "0"], 2, "--workers 0"),
        (["--workers", "many"], 2, "--workers many"),
        (["--max-lag", "0"], 2, "--max-lag 0"),
        (["--retries", "-1"], 2, "--retries -1"),
        (["--set", "select.lagg=1"], 2, "did you mean"),
        (["--model", "absent.onnx"], 4, "absent.onnx"),
        (["--nonsense"], 2, "--nonsense"),
    ],
)
def test_what_cannot_work_is_one_line_and_the_right_exit_code(
    change: list[str], code: int, said: str, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(recordings), "--out", str(tmp_path / "store"), *change]) == code
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text]
    assert said in line


def test_only_damaged_recordings_are_an_error_and_ray_is_asked_for_by_name(
    recordings: Path,
    motion_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["--out", str(tmp_path / "store"), "--model", str(motion_model)]
    assert command.main([str(recordings / "torn.mp4"), *arguments]) == 3
    assert "none of 1 recordings" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert command.main([str(recordings / "clip0.mp4"), *arguments, "--workers", "2"]) == 2
    assert "pip install 'unseen-engine[ray]'" in capsys.readouterr().err
