"""The benchmark's own arithmetic: what decisions cost in hindsight, what a fleet needs."""

import numpy as np
import pytest

pytest.importorskip("networkx", reason="benchmarks.selection needs it")
pytest.importorskip("pyarrow", reason="needs the parquet extra")

from benchmarks.scale import cost_model, fleet, regrets
from benchmarks.selection import path_cost, replay
from engine.select.path import offline_path


def _trace(rng: np.random.Generator, frames: int) -> list[tuple[np.ndarray, np.ndarray | None]]:
    counts = rng.integers(1, 5, frames)
    out = []
    for t, count in enumerate(counts):
        coupled = t and rng.random() > 0.1
        out.append((rng.normal(size=count), rng.normal(size=(counts[t - 1], count)) if coupled else None))
    return out


@pytest.mark.parametrize("lag", [1, 2, 5])
def test_regrets_add_up_to_the_gap_and_stay_below_their_bounds(lag: int) -> None:
    rng = np.random.default_rng(lag)
    exceeded, gaps = 0.0, 0.0
    for _ in range(40):
        trace = _trace(rng, 30)
        nodes, commits, _ = replay(trace, lag)
        found = regrets(trace, nodes)
        gap = path_cost(trace, nodes) - offline_path(*zip(*trace, strict=True))[1]
        assert found.sum() == pytest.approx(gap, abs=1e-9)
        assert found.min() > -1e-9
        exceeded = max(exceeded, *(found - [commit.loss_bound for commit in commits]))
        gaps += gap
    assert exceeded < 1e-9
    assert gaps > 0.1 if lag == 1 else gaps >= 0


def _account(number: int, frames: int, pixels: float, core_s: float, size: float) -> dict[str, float]:
    return {"frames": frames, "megapixels": pixels, "kept": frames // 5, "cpu_s": core_s, "shard_bytes": size}


def test_a_model_that_holds_expects_what_is_measured() -> None:
    rng = np.random.default_rng(0)
    accounts = []
    for number in range(12):
        frames = int(rng.integers(20, 200))
        pixels = frames * float(rng.choice([0.1, 0.4, 0.9]))
        size = 1024 * (4 * frames + 20 * pixels)
        accounts.append(_account(number, frames, pixels, 0.03 * frames + 0.005 * pixels, size))
    model = cost_model(accounts)
    assert (model["ms_per_frame"], model["ms_per_megapixel"]) == (30.0, 5.0)
    assert (model["kb_per_frame"], model["kb_per_megapixel"]) == (4.0, 20.0)
    assert model["error_percent"]["core_s"]["median"] == model["error_percent"]["mb"]["median"] == 0.0
    needs = fleet(model, 10, 8, 30, 0.4)
    assert needs["frames_per_core_hour"] == round(3.6e6 / 32)
    assert needs["core_hours_per_day"] == round(10 * 8 * 3600 * 30 * 0.032 / 3600)
    assert needs["mb_per_robot_hour"] == pytest.approx(3600 * 30 * 12 / 1024, rel=1e-3)


def test_a_model_that_does_not_hold_says_how_far_off_it_is() -> None:
    rng = np.random.default_rng(1)
    accounts = []
    for number in range(40):
        # Bytes have nothing to do with length or size.
        accounts.append(_account(number, 100, float(rng.choice([10, 40])), 1.0, float(rng.lognormal(10, 1.5))))
    error = cost_model(accounts)["error_percent"]
    assert error["core_s"]["median"] < 1
    assert error["mb"]["median"] > 10
    assert error["mb"]["90%"][0] < -10 < 10 < error["mb"]["90%"][1]
    assert min(cost_model(accounts)[name] for name in ("kb_per_frame", "kb_per_megapixel")) >= 0
