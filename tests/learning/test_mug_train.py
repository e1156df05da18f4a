"""A run lowers its loss, begins its rounds, survives an interruption, and its parts can be switched off."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402

from engine.errors import ModelError  # noqa: E402
from learning import pretrain  # noqa: E402
from learning.mug.batches import VideoBatches  # noqa: E402
from learning.mug.bursts import SIZE  # noqa: E402
from learning.mug.losses import WEIGHTS, bootstrapped_target  # noqa: E402
from learning.mug.model import load_model  # noqa: E402
from learning.mug.plan import GRANULARITIES, Plan  # noqa: E402
from learning.mug.stills import Stills  # noqa: E402
from learning.mug.tracking import cut, make_rare, response  # noqa: E402
from learning.mug.train import run  # noqa: E402
from learning.mug.trainer import READ_OUT, Trainer, losses, total  # noqa: E402
from learning.networks.mug import Mug, unrecorded_statistics  # noqa: E402
from tests.learning.mug_parts import TINY, drawn_bursts  # noqa: E402


def _trainer(out: Path, **plan: object) -> Trainer:
    settings = {"steps": 20, "batch": 2, "rate": 5e-3, **plan}
    return Trainer(drawn_bursts(), out, Plan(**settings), seed=0, config=TINY)  # type: ignore[arg-type]


def test_steps_lower_the_loss(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, steps=40, rounds=1)
    batch = trainer.batches.draw()
    totals = [trainer.train_step(batch)["total"] for _ in range(30)]
    assert sum(totals[-3:]) < 0.9 * sum(totals[:3])


def test_a_run_ends_with_its_rounds_and_resumes_where_it_stopped(tmp_path: Path) -> None:
    first = _trainer(tmp_path, steps=4)
    run(first, Console(quiet=True), save_every_s=1e9)
    assert {p.name for p in tmp_path.iterdir()} >= {
        "last.pt", "model.pt", "round1.pt", "round2.pt", "history.json", "report.html",
    }  # fmt: skip
    history = json.loads((tmp_path / "history.json").read_text())
    assert [row["round"] for row in history] == [1, 2]
    assert all(f"held {name}" in history[0] for name in (*GRANULARITIES, READ_OUT, "foreground", "learned"))
    # Every round's model is the average at its end: the teacher of the next.
    teacher = load_model(tmp_path / "round1.pt")
    assert first.teacher is not None
    for a, b in zip(teacher.parameters(), first.teacher.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)
    second = _trainer(tmp_path, steps=6)
    assert (second.step, second.round, second.elapsed) == (4, 1, first.elapsed)
    assert second.history == first.history
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert second.teacher is not None
    run(second, Console(quiet=True), save_every_s=1e9)
    assert second.step == 6
    assert second.elapsed >= first.elapsed
    (tmp_path / "last.pt").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="not a run of this network"):
        _trainer(tmp_path)


def test_the_second_round_learns_what_the_first_one_says(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path)
    tmp_path.mkdir(exist_ok=True)
    batch = trainer.batches.draw()
    images, initial = batch.images.flatten(0, 1), batch.initial.flatten(0, 1)
    assert torch.equal(trainer.targets(images, initial), initial)
    trainer.enter_round(1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = trainer.average(images.contiguous(memory_format=torch.channels_last)).float()
    expected = bootstrapped_target(initial, torch.sigmoid(logits))
    assert torch.equal(trainer.targets(images, initial), expected)
    assert trainer.rate_now() > 0


def test_without_the_frame_granularity_maps_teach_the_features_nothing() -> None:
    torch.manual_seed(0)
    network, batch = Mug(TINY), VideoBatches(drawn_bursts(), 2, seed=0).draw()
    corner = torch.tensor([[2, 3], [4, 5]])
    terms = losses(network, batch, batch.initial, corner, ())
    assert set(terms) == {"frame", READ_OUT}
    total(terms).backward()
    assert all(p.grad is None for p in network.backbone.parameters())
    assert network.rho.weight.grad is not None
    assert network.upsilon.weight.grad is not None
    terms = losses(network, batch, batch.initial, corner, GRANULARITIES)
    expected = sum(WEIGHTS.get(name, 1.0) * value.item() for name, value in terms.items())
    assert total(terms).item() == pytest.approx(expected, rel=1e-5)
    for name in GRANULARITIES[1:]:
        network.zero_grad()
        one = losses(network, batch, batch.initial, corner, (name,))
        assert set(one) == {"frame", READ_OUT, name}
        one[name].backward()
        assert any(p.grad is not None and bool(p.grad.any()) for p in network.backbone.parameters())


def test_every_round_begins_with_single_frames_and_goes_on_with_videos(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, steps=8, frames_first=0.5)
    alone = []
    train_step, frames_step = trainer.train_step, trainer.frames_step
    trainer.train_step = lambda batch: (alone.append(False), train_step(batch))[1]  # type: ignore[method-assign]
    trainer.frames_step = lambda: (alone.append(True), frames_step())[1]  # type: ignore[method-assign]
    run(trainer, Console(quiet=True), save_every_s=1e9)
    assert alone == [True, True, False, False] * 2
    plan = {"steps": 8, "frames_first": 0.5, "granularities": GRANULARITIES[1:]}
    assert not _trainer(tmp_path / "other", **plan).frames_alone


def test_photographs_teach_the_frame_granularity(tmp_path: Path) -> None:
    """Clips of squares over dark ground, photographs whose map is the bright half: it is found in photographs."""
    images, maps = np.zeros((6, *SIZE, 3), np.uint8), np.zeros((6, SIZE[0] // 4, SIZE[1] // 4), np.uint8)
    images[:, :, : SIZE[1] // 2] = np.linspace(120, 250, 6)[:, None, None, None].astype(np.uint8)
    maps[:, :, : SIZE[1] // 8] = 255
    plan = Plan(steps=60, batch=2, rate=1e-2, rounds=1, frames_first=0.9)
    trainer = Trainer(drawn_bursts(), tmp_path, plan, seed=0, config=TINY, stills=Stills(images, maps))
    first = [trainer.frames_step()["frame"] for _ in range(3)]
    last = [trainer.frames_step()["frame"] for _ in range(40)][-3:]
    assert sum(last) < 0.7 * sum(first)
    assert set(trainer.train_step(trainer.batches.draw())) == {"total", *GRANULARITIES, READ_OUT}
    drawn, initial = trainer.beside.draw(stills_only=True)  # type: ignore[union-attr]
    bright = torch.nn.functional.avg_pool2d(drawn.mean(dim=1, keepdim=True), 4) > -1
    assert torch.equal(bright.float(), initial)


def test_responses_of_features_that_are_alike_everywhere_are_made_rare() -> None:
    torch.manual_seed(0)
    network = Mug(TINY).train()
    frame, corner = torch.randn(3, 3, 96, 160), torch.tensor([[0, 0], [4, 7], [16, 32]])
    with torch.no_grad(), unrecorded_statistics(network):
        network.backbone.last.bias.fill_(50.0)
        before = response(network, cut(network.backbone(frame), corner), network.backbone(frame))
        make_rare(network, frame, corner)
        after = response(network, cut(network.backbone(frame), corner), network.backbone(frame))
    assert float(before.mean()) > 0.5
    assert float(after.flatten(1).sum(dim=1).mean()) == pytest.approx(1.0, abs=0.5)


def test_patches_leave_running_statistics_alone() -> None:
    network = Mug(TINY).train()
    before = copy.deepcopy(network.state_dict())
    with unrecorded_statistics(network):
        network(torch.randn(2, 3, 32, 32))
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)
    network(torch.randn(2, 3, 32, 32))
    assert not all(torch.equal(before[name], after[name]) for name in before if "running" in name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--without", "colour"], "--without colour: unknown; choose of frame, short, long, video"),
        (["--minutes", "0"], "--minutes 0.0: must be above 0"),
        (["--frames-first", "1"], "--frames-first 1: must be at least 0 and below 1"),
        (["--rounds", "0"], "--rounds 0: must be at least 1"),
        (["--steps", "1"], "--steps 1: must be at least the number of rounds, 2"),
        (["--batch", "1"], "--batch 1: must be at least 2"),
        (["--seed", "-1"], "--seed -1: must be 0 or more"),
        (["--save-every", "0"], "--save-every 0: must be above 0"),
        (["--clips", "nowhere"], "--clips nowhere is not a folder"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_two(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--objective", "mug", "--clips", str(tmp_path), "--out", str(tmp_path / "run")]
    assert pretrain.main([*base, *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_the_command_trains_on_clips(picture_folder: Path, tmp_path: Path) -> None:
    # Two batches of two need two clips to train on.
    clips = tmp_path / "clips"
    for source in ("a", "b"):
        (clips / source).mkdir(parents=True)
        film = (picture_folder / "clips" / "general" / "pan.mp4").read_bytes()
        (clips / source / "pan.mp4").write_bytes(film)
    arguments = ["--objective", "mug", "--clips", str(clips), "--out", str(tmp_path / "run"), "--batch", "2"]
    assert pretrain.main([*arguments, "--steps", "1", "--rounds", "1", "--without", "long"]) == 0
    network = load_model(tmp_path / "run" / "model.pt")
    assert sum(p.numel() for p in network.backbone.parameters()) <= 2_000_000
