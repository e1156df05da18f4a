"""A run lowers its loss, survives an interruption, and names what it cannot do."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402

from learning import pretrain  # noqa: E402
from learning.batches import Batch, Batches  # noqa: E402
from learning.pretrain import Trainer, run  # noqa: E402
from learning.validate import average_precision  # noqa: E402


@pytest.fixture
def two_threads() -> None:
    torch.set_num_threads(2)


@pytest.mark.usefixtures("two_threads")
def test_a_short_run_lowers_the_loss_and_resumes_where_it_stopped(shard_folder: Path, tmp_path: Path) -> None:
    def trainer() -> Trainer:
        return Trainer(shard_folder, tmp_path, minutes=60, device="cpu", seed=0, batch=4, self_train_from=1.0)

    class Fixed:
        """The same batch again and again: then the loss has to fall."""

        def __init__(self, batches: Batches) -> None:
            self._batch = batches.draw()

        def next(self) -> Batch:
            return Batch(**vars(self._batch))

    first = trainer()
    fixed = Fixed(first.batches)
    totals = [first.train_step(fixed)["total"] for _ in range(14)]  # type: ignore[arg-type]
    assert sum(totals[-3:]) < 0.8 * sum(totals[:3])
    first.elapsed = 33.0
    first.save()
    second = trainer()
    assert second.step == 14
    assert second.elapsed == 33.0
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    run(second, Console(quiet=True), save_every_s=1e9, steps=1)
    assert second.step == 15
    assert second.elapsed > 33.0
    assert {p.name for p in tmp_path.iterdir()} >= {"last.pt", "model.pt", "history.json"}


@pytest.mark.usefixtures("two_threads")
def test_the_teacher_labels_what_it_is_sure_of(shard_folder: Path, tmp_path: Path) -> None:
    clips = shard_folder / "clip_0000.shard"
    clips.symlink_to(shard_folder / "held_0000.shard")
    try:
        trainer = Trainer(shard_folder, tmp_path, 60, "cpu", 0, 2, self_train_from=0.5)
        with torch.no_grad():
            trainer.average.foreground.bias.fill_(0.0)
            trainer.average.foreground.weight.zero_()
        # Probability one half everywhere: sure of nothing, so nothing is kept.
        assert trainer.label_clips() == 0
    finally:
        clips.unlink()


def test_unknown_objective_is_exit_code_2_with_the_allowed_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = pretrain.main(["--objective", "telepathy", "--data", str(tmp_path), "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert code == 2
    assert "telepathy" in error
    assert "proposals" in error
    assert error.count("\n") == 1


def test_missing_shards_are_exit_code_5(tmp_path: Path) -> None:
    assert pretrain.main(["--objective", "proposals", "--data", str(tmp_path), "--out", str(tmp_path)]) == 5


def test_average_precision_by_hand() -> None:
    import numpy as np

    scores, hits = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    # Precision 1 up to recall 1/2, then 2/3 for the second half.
    assert average_precision(scores, hits, 2) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(scores, hits, 4) == pytest.approx(0.25 + 0.25 * 2 / 3)
