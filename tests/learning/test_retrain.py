"""Retraining learns what it is told to, goes on after a kill as it would have, and replaces nothing without proof."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from engine.errors import StoreError, UsageError  # noqa: E402
from engine.perceive.network import Network  # noqa: E402
from engine.registry import Registry  # noqa: E402
from engine.registry.files import locked  # noqa: E402
from export.checkpoint import load_checkpoint  # noqa: E402
from learning.batches import Batches  # noqa: E402
from learning.networks.compact import Maps  # noqa: E402
from learning.pretrain import mixed_precision_maps  # noqa: E402
from learning.retrain import __main__ as command  # noqa: E402
from learning.retrain.distil import distillation  # noqa: E402
from learning.retrain.finetune import CHECKPOINT, FineTune, save_or_say  # noqa: E402
from learning.retrain.parts import part_of  # noqa: E402
from learning.retrain.settings import HEADS, PARTS, Settings, resolve_parts  # noqa: E402
from learning.synthesis.shards import Shards, write_shard  # noqa: E402
from tests.conftest import REPOSITORY  # noqa: E402
from tests.learning import stored  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "model.pt"
    stored.tiny_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.db"
    stored.fill(path, 48)
    return path


def _tuning(base: Path, folder: Path, shards: Path, replay: bool, settings: Settings) -> FineTune:
    old = Shards(shards) if replay else None
    return FineTune(load_checkpoint(base).network, folder, Shards(shards, "held"), old, settings, CPU)


def _run(tuning: FineTune, save_every_s: float = 1e9) -> None:
    tuning.run(save_every_s, lambda step, losses: None, lambda network: {"x": 0.0}, 1)


@pytest.mark.parametrize(("parts", "replay"), [(("embedding",), False), (HEADS, False), (PARTS, True)])
def test_only_the_chosen_parts_learn_and_statistics_stay(
    parts: tuple[str, ...], replay: bool, base: Path, shard_folder: Path, tmp_path: Path
) -> None:
    tuning = _tuning(base, tmp_path, shard_folder, replay, Settings(parts=parts, steps=2, batch=2, rate=1e-2))
    before = {name: value.clone() for name, value in tuning.network.state_dict().items()}
    _run(tuning)
    parameters = dict(tuning.network.named_parameters())
    changed = {part_of(n) for n, v in parameters.items() if not torch.equal(v, before[n])}
    assert changed == set(parts)
    for name, value in tuning.network.state_dict().items():
        if name not in parameters:
            assert torch.equal(value, before[name]), name


def test_parts_follow_from_replay_unless_named() -> None:
    assert resolve_parts(None, replay=True) == PARTS
    assert resolve_parts(None, replay=False) == HEADS
    assert resolve_parts(["background", "trunk"], replay=False) == ("trunk", "background")
    assert resolve_parts(["heads", "trunk"], replay=False) == resolve_parts(["all"], replay=False) == PARTS
    with pytest.raises(UsageError, match="legs is unknown"):
        Settings(parts=resolve_parts(["legs"], replay=True))


def test_the_base_teaches_only_where_labels_are_silent(base: Path, shard_folder: Path) -> None:
    batch = Batches(Shards(shard_folder), 4, (192, 320), 0).draw(0)
    network = load_checkpoint(base).network
    with torch.no_grad():
        taught = mixed_precision_maps(network, batch)
    assert all(abs(float(v)) < 1e-3 for v in distillation(taught, taught, batch).values())
    moved = Maps(*(m.float().clone().add_(0.7).requires_grad_() for m in taught))
    terms = distillation(moved, taught, batch)
    assert all(float(v.detach()) > 1e-3 for v in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    assert moved.foreground.grad is not None
    assert moved.heat.grad is not None
    assert moved.embedding.grad is not None
    assert (moved.foreground.grad[batch.binary_weight >= 0.5] == 0).all()
    assert (moved.foreground.grad[batch.binary_weight < 0.5] != 0).all()
    assert (moved.heat.grad[batch.heat_weight >= 0.5] == 0).all()
    labelled = (batch.masks.amax(dim=1) >= 0.5)[:, None].expand_as(moved.embedding)
    assert (moved.embedding.grad[labelled] == 0).all()


def test_a_batch_is_known_by_its_number(shard_folder: Path) -> None:
    shards = Shards(shard_folder)
    first, other = (Batches(shards, 3, (192, 320), 5, [shards], 0.5) for _ in range(2))
    for number in (0, 1):
        first.draw(number)
    for name, value in vars(first.draw(2)).items():
        assert torch.equal(value, getattr(other.draw(2), name)), name
    assert not torch.equal(other.draw(2).image, other.draw(3).image)


_CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from export.checkpoint import load_checkpoint
from learning.retrain.finetune import FineTune
from learning.retrain.settings import Settings
from learning.synthesis.shards import Shards
base, folder, shards = (Path(a) for a in sys.argv[1:])
tuning = FineTune(load_checkpoint(base).network, folder, Shards(shards, "held"), Shards(shards),
                  Settings(steps=12, batch=2, rate=1e-3), torch.device("cpu"))
tuning.run(1e-9, lambda step, losses: print(step, flush=True), lambda network: {"x": 0.0}, 1)
"""


def test_a_run_killed_without_warning_ends_with_the_weights_of_one_left_alone(
    base: Path, shard_folder: Path, tmp_path: Path
) -> None:
    settings = Settings(steps=12, batch=2, rate=1e-3)
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    killed.mkdir()
    expected = _tuning(base, alone, shard_folder, True, settings)
    _run(expected)
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(base), str(killed), str(shard_folder)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout is not None
    with child.stdout:
        for line in child.stdout:
            if int(line) == 5:
                break
        child.send_signal(signal.SIGKILL)
    assert child.wait(timeout=60) == -signal.SIGKILL
    resumed = _tuning(base, killed, shard_folder, True, settings)
    assert 4 <= resumed.step < 12
    _run(resumed)
    assert resumed.step == 12
    for name, value in expected.average.state_dict().items():
        torch.testing.assert_close(resumed.average.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert [row["step"] for row in resumed.history] == list(range(1, 13))
    assert resumed.history[-1]["total"] == pytest.approx(expected.history[-1]["total"], rel=1e-4)


def test_what_is_written_lies_between_the_base_and_what_was_learned(
    base: Path, shard_folder: Path, tmp_path: Path
) -> None:
    tuning = _tuning(base, tmp_path, shard_folder, True, Settings(steps=2, batch=2, rate=1e-2, move=0.25))
    _run(tuning)
    tuning.write_model(tmp_path / "model.pt", {})
    start, written = load_checkpoint(base).network.state_dict(), load_checkpoint(tmp_path / "model.pt").network
    changed = 0
    for name, value in written.state_dict().items():
        learned = tuning.average.state_dict()[name]
        if value.is_floating_point():
            torch.testing.assert_close(value, start[name].lerp(learned, 0.25), rtol=2e-3, atol=1e-4, msg=name)
            changed += int((learned - start[name]).abs().max() > 1e-3)
    assert changed > 10


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_the_former_one_stays(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    save_or_say({"x": torch.ones(3)}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot be written .*MB free") as caught:
            save_or_say({"x": torch.ones(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.load(path, weights_only=True)["x"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]


def _arguments(store: Path, base: Path, folder: Path, *more: object) -> list[str]:
    named = ["--store", store, "--base", base, "--registry", folder / "registry", "--out", folder / "runs", *more]
    return [str(value) for value in named]


def test_a_network_that_is_no_better_is_kept_and_the_registry_stays_as_it_was(
    store: Path, base: Path, shard_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments(store, base, tmp_path, "--replay", shard_folder, "--steps", 1, "--batch", 1)
    assert command.main([*arguments, "--rate", "1e-12"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1].startswith("kept: gain ")
    assert not (tmp_path / "registry").exists()
    run = tmp_path / "runs" / "run-0001"
    assert sorted(p.name for p in run.iterdir()) == ["model.pt", "report.html", "request.json", "result.json"]
    result = json.loads((run / "result.json").read_text())
    assert (result["verdict"]["promoted"], result["placed"]) == (False, None)
    page = (run / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 1
    assert page.count("<svg") == 5
    assert not re.search(r"(?:src|href)=.?(?:http|//|file)", page)


def test_a_better_network_is_exported_and_becomes_the_current_one(
    store: Path, base: Path, shard_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments(store, base, tmp_path, "--replay", shard_folder, "--margin", 0.9)
    more = ["--steps", "60", "--batch", "3", "--rate", "1e-2", "--move", "1", "--held-frames", "40", "--share", "0.9"]
    more += ["--to", "onnx"]
    assert command.main([*arguments, *more]) == 0
    captured = capsys.readouterr()
    out = captured.out.splitlines()
    assert out[-1].startswith("promoted: gain +"), out
    version = Registry(tmp_path / "registry").current()
    assert version is not None
    assert version.name in out[-2]
    assert Network(version.path).hash == version.hash
    verdict = version.manifest["metrics"]["verdict"]
    assert verdict["gain"] > verdict["error"] > 0
    assert version.name in (tmp_path / "runs" / "run-0001" / "report.html").read_text()
    # The next round starts from what this one made; the checkpoint it came from is another one.
    assert command.main([*arguments, "--steps", "1", "--rate", "1e-12"]) == 0
    assert "is not the checkpoint of" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "runs" / "run-0002" / "result.json").exists()
    assert Registry(tmp_path / "registry").current() == version


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"--store": "absent.db"}, 5, "absent.db"),
        ({"--store": "text"}, 5, "text"),
        ({"--base": "absent.pt"}, 4, "no such checkpoint"),
        ({"--base": "text"}, 4, "not a checkpoint"),
        ({"--replay": "absent"}, 5, "make them with python -m learning.synthesis"),
        ({"--registry": "text"}, 5, "not a folder that can be written"),
        ({"--out": "text"}, 5, "--out"),
        ({"--parts": "legs"}, 2, "legs is unknown"),
        ({"--steps": "0"}, 2, "--steps 0"),
        ({"--held-frames": "1"}, 2, "--held-frames 1"),
        ({"--share": "0"}, 2, "--share 0"),
        ({"--rate": "nan"}, 2, "--rate nan"),
        ({"--save-every": "0"}, 2, "--save-every 0"),
    ],
)
def test_what_cannot_work_is_one_line_and_the_right_exit_code(
    change: dict[str, str],
    code: int,
    said: str,
    store: Path,
    base: Path,
    shard_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text").write_text("neither a store nor a model")
    paths = ("--store", "--base", "--replay", "--registry", "--out")
    change = {name: str(tmp_path / value) if name in paths else value for name, value in change.items()}
    arguments = _arguments(store, base, tmp_path, "--replay", shard_folder)
    assert command.main([*arguments, *(part for item in change.items() for part in item)]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "registry").exists()


def test_an_interrupted_command_goes_on_with_its_run_and_another_one_does_not(
    store: Path, base: Path, shard_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _arguments(store, base, tmp_path, "--replay", shard_folder, "--steps", 2, "--batch", 1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FineTune, "run", interrupt)
        assert command.main(arguments) == 130
        assert command.main([*arguments, "--seed", "1"]) == 130
    runs = tmp_path / "runs"
    assert sorted(p.name for p in runs.iterdir()) == ["run-0001", "run-0002"]
    written = (runs / "run-0002" / "selections" / "account.json").stat().st_mtime_ns
    with monkeypatch.context() as patched:
        patched.setattr(FineTune, "run", interrupt)
        assert command.main([*arguments, "--seed", "1"]) == 130
    assert sorted(p.name for p in runs.iterdir()) == ["run-0001", "run-0002"]
    assert (runs / "run-0002" / "selections" / "account.json").stat().st_mtime_ns == written
    # While one command works in it, a second one does not.
    with locked(runs / "run-0002" / "lock", timeout_s=1):
        assert command.main([*arguments, "--seed", "1"]) == 5


def test_a_shard_the_disk_has_no_room_for_is_an_error_not_a_dead_process(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs to mount a small disk")
    try:
        with pytest.raises(OSError, match="No space left"):
            write_shard(disk / "train_0000.shard", 20, iter(()))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_drawn_scenes_are_labelled_and_always_the_same() -> None:
    from learning.synthesis.drawn import drawn_sample

    first, again = (drawn_sample(np.random.default_rng(4), number) for number in (4, 4))
    assert np.array_equal(first.image, again.image)
    assert first.motion is None
    labelled = drawn_sample(np.random.default_rng(4), 5)
    assert labelled.motion is not None
    residual = np.hypot(*labelled.motion[:2])
    inside = labelled.ids[::2, ::2] > 0
    assert residual[inside].mean() > residual[~inside].mean()
