"""The command line as a script outside this repository sees it: exit codes, one line, files, signals."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.run import main

DEMO = "demo://?frames=20&seed=5&size=240x428"


def command(*arguments: object, prelude: str = "") -> list[str]:
    """An engine process; `prelude` runs before it in the same interpreter."""
    if not prelude:
        return [sys.executable, "-m", "engine.run", *map(str, arguments)]
    code = f"{prelude}\nimport sys\nfrom engine.run import main\nsys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, *map(str, arguments)]


def write_video(path: Path, frames: int = 12, size: tuple[int, int] = (240, 428)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, size[::-1])
    rng = np.random.default_rng(0)
    background = cv2.resize(rng.integers(0, 255, (30, 54, 3), dtype=np.uint8), size[::-1])
    for index in range(frames):
        image = background.copy()
        cv2.circle(image, (60 + 9 * index, 120), 40, (40, 200, 250), -1)
        writer.write(image)
    writer.release()
    return path


def fails(capsys: pytest.CaptureFixture[str], code: int, says: str, *arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors == lines[-1:]
    assert says in errors[0]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "0 sources"),
        (["--source", "a=demo", "--source", "a=demo"], "two sources are called 'a'"),
        (["--source", "..=demo", "--no-publish"], "letter or digit"),
        (["--source", "demo", "--read-timeout", "0"], "0.05 to 3600"),
        (["--source", "demo", "--pace", "fast"], "native"),
        (["--source", "demo", "--lagg", "3"], "--lag"),
        (["--source", "demo", "--lag", "soon"], "select.lag"),
        (["--source", "demo", "--lag", "-2"], ">= 0"),
        (["--source", "demo", "--set", "select.lagg=3"], "did you mean 'select.lag'"),
        (["--source", "demo", "--set", "select.lag"], "KEY=VALUE"),
        (["--source", "demo", "--config", "no-such.json"], "no-such.json"),
        (["--source", "demo", "--max-frames", "0"], "at least 1"),
        (["--source", "demo", "--backend", "magic"], "magic"),
        (["--source", "demo", "--every-frame", "--newest-frame"], "not allowed with"),
        (["--source", "demo://?sede=3", "--no-publish"], "seed"),
        (["--source", "demo", "--publish", "tcp://0.0.0.0:5999"], "insecure"),
        (["--source", "demo", "--publish", "carrier-pigeon"], "carrier-pigeon"),
        (["--source", "demo", "--preview", "70000"], "65535"),
        (["--source", "demo", "--preview", "--preview-host", "0.0.0.0"], "--insecure"),
    ],
)
def test_usage_errors_exit_2(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    fails(capsys, 2, says, *arguments)


def test_source_errors_exit_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(np.random.default_rng(0).bytes(5000))
    truncated = tmp_path / "truncated.mp4"
    truncated.write_bytes(write_video(tmp_path / "good.mp4").read_bytes()[:2000])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for source, says in {
        "absent.mp4": "absent.mp4",
        str(garbage): "garbage.mp4",
        str(truncated): "truncated.mp4",
        str(tmp_path / "empty.mp4"): "empty.mp4",
        str(tmp_path / "folder"): "folder",
        "gopher://host/": "gopher",
        "tcp://127.0.0.1:9": "127.0.0.1:9",
    }.items():
        fails(capsys, 3, says, "--source", source, "--no-publish")
    fails(capsys, 3, "97", "--camera", "97", "--no-publish")


def test_model_errors_exit_4(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"\x00" * 999)
    for model, says in {"absent": "absent", str(corrupt): "not a usable ONNX file"}.items():
        fails(capsys, 4, says, "--source", DEMO, "--no-publish", "--model", model)
    fails(capsys, 4, "tensorrt", "--source", DEMO, "--no-publish", "--backend", "tensorrt")


def test_store_errors_exit_5(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails(capsys, 5, "--save-masks", "--source", DEMO, "--no-publish", "--save-masks", tmp_path / "file")
    fails(capsys, 5, "stats", "--source", DEMO, "--no-publish", "--stats-json", tmp_path / "file" / "stats.json")


def test_a_video_gives_masks_statistics_overlay_and_a_summary(tmp_path: Path, motion_model: Path) -> None:
    video = write_video(tmp_path / "clip.mp4")
    out = tmp_path / "out"
    done = subprocess.run(
        command(
            *("--source", video, "--model", motion_model, "--publish", "tcp://127.0.0.1:*"),
            *(
                "--save-masks",
                out,
                "--overlay",
                out / "overlay.mp4",
                "--stats-json",
                out / "stats.json",
                "--profile",
            ),
        ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "12 frames" in done.stderr
    assert "overlay.mp4" in done.stderr
    assert len(list((out / "masks").glob("*.png"))) == 12
    assert len(list((out / "foreground").glob("*.png"))) == 12
    overlay = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert sum(1 for _ in iter(lambda: overlay.read()[0], False)) == 12
    stats = json.loads((out / "stats.json").read_text())
    assert stats["frames"] == 12
    assert stats["dropped"] == {}
    assert set(stats["latency_ms"]["total"]) == {"p50", "p95", "p99", "max"}
    assert stats["commit"]["exact"] + stats["commit"]["forced"] == 12
    assert set(stats["commit"]["lag_frames"]) == {"p50", "p99", "max"}
    assert set(stats["model"]) == {"name", "hash", "generation"}
    assert {"fps", "age_ms", "objects_per_frame", "peak_rss_mb"} <= set(stats)


def test_several_sources_give_a_folder_and_a_section_each(tmp_path: Path, motion_model: Path) -> None:
    videos = [write_video(tmp_path / name / "clip.mp4", frames) for name, frames in (("a", 7), ("b", 4))]
    out = tmp_path / "out"
    arguments = ["--source", videos[0], "--source", f"side={videos[1]}", "--model", motion_model, "--no-publish"]
    arguments += ["--save-masks", out, "--overlay", out / "o.mp4", "--stats-json", out / "stats.json"]
    assert main([str(argument) for argument in arguments]) == 0
    stats = json.loads((out / "stats.json").read_text())
    assert {name: source["captured"] for name, source in stats["sources"].items()} == {"clip": 7, "side": 4}
    assert stats["captured"] == stats["frames"] == 11
    for name, frames in (("clip", 7), ("side", 4)):
        assert len(list((out / name / "masks").glob("*.png"))) == frames
        assert len((out / name / "objects.jsonl").read_text().splitlines()) == frames
        assert cv2.VideoCapture(str(out / name / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == frames


def test_a_dead_camera_among_several_is_awaited_unless_all_are_required(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, motion_model: Path
) -> None:
    video = write_video(tmp_path / "clip.mp4", 5)
    arguments = ["--source", str(video), "--source", "gone=tcp://me:hunter2@127.0.0.1:9", "--model", str(motion_model)]
    arguments += ["--no-publish", "--max-frames", "5"]
    fails(capsys, 3, "tcp://me:***@127.0.0.1:9", *arguments, "--require-all-sources")
    assert main([*arguments, "--stats-json", str(tmp_path / "stats.json")]) == 0
    shown = capsys.readouterr().err + (tmp_path / "stats.json").read_text()
    assert "hunter2" not in shown
    assert json.loads((tmp_path / "stats.json").read_text())["sources"]["gone"]["frames"] == 0


def test_a_file_can_be_played_in_a_loop_at_its_own_rate(tmp_path: Path, motion_model: Path) -> None:
    arguments = ["--source", write_video(tmp_path / "clip.mp4", 6), "--model", motion_model, "--no-publish"]
    arguments += ["--loop", "--pace", "native", "--max-frames", 15, "--stats-json", tmp_path / "stats.json"]
    assert main([str(argument) for argument in arguments]) == 0
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["frames"] == 15
    assert set(stats["dropped"]) <= {"stopped"}
    assert stats["fps"] < 40  # the file has 30


def test_the_engine_runs_without_torch(tmp_path: Path, motion_model: Path) -> None:
    # A None entry makes every `import torch` fail, whoever tries.
    done = subprocess.run(
        command(
            *("--source", DEMO, "--no-publish", "--stats-json", tmp_path / "s.json", "--model", motion_model),
            prelude="import sys\nfor name in ('torch', 'onnx', 'learning'): sys.modules[name] = None",
        ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "s.json").read_text())["truth"]["frames"] > 0


def test_a_corrupt_frame_is_counted_and_skipped(tmp_path: Path, motion_model: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.jpg"), rng.integers(0, 255, (120, 160, 3), dtype=np.uint8))
    (folder / "3.jpg").write_bytes(b"\xff\xd8broken")
    arguments = [
        "--source",
        folder,
        "--no-publish",
        "--model",
        motion_model,
        "--stats-json",
        tmp_path / "s.json",
    ]
    assert main([str(a) for a in arguments]) == 0
    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["frames"] == 5
    assert stats["dropped"] == {"corrupt": 1}


def test_ctrl_c_flushes_and_exits_0(tmp_path: Path, motion_model: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(
            *(
                "--source",
                "demo://?live=1&frames=100000&size=240x428",
                "--model",
                motion_model,
                "--no-publish",
            ),
            *("--save-masks", out, "--stats-json", out / "stats.json"),
        ),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not list(out.glob("masks/*.png")):
        assert time.monotonic() < deadline, "no mask appeared"
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    stats = json.loads((out / "stats.json").read_text())
    assert len(list((out / "masks").glob("*.png"))) == stats["frames"]
    assert len((out / "objects.jsonl").read_text().splitlines()) == stats["frames"]


def test_print_config_and_version_answer_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-config", "--lag", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["select"]["lag"] == 2
    assert main(["--version"]) == 0
    assert "unseen-engine" in capsys.readouterr().out
