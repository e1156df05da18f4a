"""Means of networks: the numbers, and what is refused."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from learning.average import main
from learning.networks.compact import Compact, CompactConfig

SMALL = CompactConfig(stem=8, motion=8, widths=(8, 8, 8, 8), depths=(0, 0, 0), decoder=(8, 8, 8), proposals=4)


def checkpoint(path: Path, seed: int, config: CompactConfig = SMALL) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    state = Compact(config).state_dict()
    half = {n: v.half() if v.is_floating_point() else v for n, v in state.items()}
    torch.save({"objective": "proposals", "config": asdict(config), "state": half, "training": {"seed": seed}}, path)
    return half


def test_every_weight_lies_between_the_two(tmp_path: Path) -> None:
    first, second = checkpoint(tmp_path / "a.pt", 1), checkpoint(tmp_path / "b.pt", 2)
    out = tmp_path / "new" / "mean.pt"
    assert main([str(tmp_path / "a.pt"), str(tmp_path / "b.pt"), "--share", "0.25", "--out", str(out)]) == 0
    mean = torch.load(out, weights_only=True)
    for name, value in mean["state"].items():
        if value.is_floating_point():
            expected = 0.75 * first[name].double() + 0.25 * second[name].double()
            torch.testing.assert_close(value.double(), expected, rtol=1e-3, atol=1e-6)
    assert [run["seed"] for run in mean["training"]["of"]] == [1, 2]
    Compact(CompactConfig(**mean["config"])).load_state_dict(mean["state"])


@pytest.mark.parametrize("share", ["0", "1", "-2"])
def test_a_share_outside_is_a_usage_error(share: str, tmp_path: Path) -> None:
    checkpoint(tmp_path / "a.pt", 1)
    assert main([str(tmp_path / "a.pt"), str(tmp_path / "a.pt"), "--share", share, "--out", str(tmp_path / "o")]) == 2


def test_other_networks_and_other_files_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path / "a.pt", 1)
    checkpoint(tmp_path / "wide.pt", 1, CompactConfig())
    (tmp_path / "no.pt").write_bytes(b"no model")
    for other in ("wide.pt", "no.pt", "missing.pt"):
        assert main([str(tmp_path / "a.pt"), str(tmp_path / other), "--out", str(tmp_path / "o.pt")]) == 4
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "o.pt").exists()
