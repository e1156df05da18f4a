"""A run lowers its loss, survives an interruption, and names what it cannot do."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402

from engine.errors import ModelError  # noqa: E402
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
        return Trainer(shard_folder, tmp_path, minutes=60, device="cpu", seed=0, batch=4)

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


def test_a_network_starts_from_what_fits_of_another(shard_folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(shard_folder, tmp_path / "a", minutes=60, device="cpu", seed=0, batch=2)
    (tmp_path / "a").mkdir()
    trainer.save()
    model = torch.load(tmp_path / "a" / "model.pt", weights_only=True)
    model["state"]["heat.weight"] = torch.zeros(2, 3)
    del model["state"]["heat.bias"]
    torch.save(model, tmp_path / "other.pt")
    fresh = pretrain.Compact(pretrain.CompactConfig())
    assert sorted(pretrain.load_matching(fresh, tmp_path / "other.pt")) == ["heat.bias", "heat.weight"]
    torch.testing.assert_close(fresh.context[0].weight, trainer.network.context[0].weight.cpu(), atol=1e-3, rtol=1e-3)
    torch.save({"state": {"x": torch.zeros(1)}}, tmp_path / "stranger.pt")
    torch.save({"state": {"heat.weight": 1.0}}, tmp_path / "number.pt")
    torch.save({"state": torch.zeros(2)}, tmp_path / "state.pt")
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    (tmp_path / "empty.pt").touch()
    names = ("stranger", "number", "state", "tensor", "empty", "missing")
    for path in (*(tmp_path / f"{name}.pt" for name in names), Path(__file__)):
        with pytest.raises(ModelError, match="--init"):
            pretrain.load_matching(fresh, path)


def test_a_run_says_where_it_came_from_and_refuses_the_run_of_another_network(
    shard_folder: Path, tmp_path: Path
) -> None:
    def trainer(out: Path, init: Path | None = None, rate: float = 1e-3) -> Trainer:
        return Trainer(shard_folder, out, minutes=60, device="cpu", seed=0, batch=2, init=init, rate=rate)

    out, start = tmp_path / "run", tmp_path / "model.pt"
    out.mkdir()
    first = trainer(tmp_path / "fresh")
    torch.save({"state": first.network.state_dict()}, start)
    trainer(out, init=start).save()
    # Resumed without --init, and at another rate.
    trainer(out, rate=5e-4).save()
    recorded = torch.load(out / "model.pt", weights_only=True)["training"]
    assert (recorded["init"], recorded["labels"], recorded["rate"]) == (str(start), [], 5e-4)

    state = torch.load(out / "last.pt", weights_only=True)
    state["network"]["heat.weight"] = torch.zeros(2, 3)
    torch.save(state, out / "last.pt")
    with pytest.raises(ModelError, match="give another --out") as caught:
        trainer(out)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["--minutes", "--batch", "--rate", "--save-every"])
def test_options_of_zero_are_exit_code_2(
    option: str, shard_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--objective", "proposals", "--data", str(shard_folder), "--out", str(tmp_path), option, "0"]
    assert pretrain.main(arguments) == 2
    error = capsys.readouterr().err
    assert f"{option} 0" in error
    assert error.count("\n") == 1


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
