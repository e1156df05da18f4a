"""Training lowers the loss, resumes, and says which segment is the object; adaptation fits a video."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402

from engine.errors import ModelError, UsageError  # noqa: E402
from learning import pretrain  # noqa: E402
from learning.amd.adapt import Adaptation, adapt, object_masks, segments, video_pairs  # noqa: E402
from learning.amd.channel import SegmentMotion, segment_motion  # noqa: E402
from learning.amd.checkpoint import load_amd  # noqa: E402
from learning.amd.clips import Clips  # noqa: E402
from learning.amd.objective import held_out_distances  # noqa: E402
from learning.amd.pretrain import AmdTrainer, run  # noqa: E402
from learning.amd.semantic import IGNORE, fine_tune, mean_iou  # noqa: E402
from learning.networks.amd import Amd, AmdConfig, Segmented  # noqa: E402
from learning.networks.amd_backbones import Appearance, ResNet50  # noqa: E402
from tests.learning.amd.scenes import channels_first, moving_square, write_cache  # noqa: E402

SMALL = AmdConfig(segments=3, head=8, pyramid=(8, 8, 8), motion=8, readout=16)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def _trainer(tmp_path: Path, steps: int, config: AmdConfig = SMALL) -> AmdTrainer:
    cache = tmp_path / "cache"
    clips = Clips(cache if cache.exists() else write_cache(cache))
    return AmdTrainer(clips, tmp_path / "run", config, steps=steps, batch=2, rate=1e-3)


def test_a_run_leaves_its_files_and_resumes_where_it_stopped(tmp_path: Path) -> None:
    first = _trainer(tmp_path, 3)
    run(first, Console(quiet=True), save_every_s=1e9)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"last.pt", "model.pt", "history.json", "curve.html"}
    second = _trainer(tmp_path, 5)
    assert second.step == 3
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    run(second, Console(quiet=True), save_every_s=1e9)
    assert second.step == 5
    network, channel, training = load_amd(tmp_path / "run" / "model.pt")
    assert training["step"] == 5
    assert [row["step"] for row in training["history"]] == [3, 5]
    assert channel == SegmentMotion(
        **{name: np.array(values) for name, values in training["segment_motion"].items()}
    ).channel("flow")
    assert network.config == SMALL
    with pytest.raises(ModelError, match="give another --out"):
        _trainer(tmp_path, 5, AmdConfig(segments=4))


def test_a_run_begins_with_the_segments_and_stops_at_what_is_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cache(tmp_path / "cache")
    trainer = AmdTrainer(Clips(tmp_path / "cache"), tmp_path, SMALL, steps=4, batch=2, segments_first=0.5)
    pathways = [
        [p.detach().clone() for p in m.parameters()] for m in (trainer.network.motion, trainer.network.appearance)
    ]
    trainer.train_step()
    trainer.train_step()
    still, moved = (
        all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))
        for module, before in zip((trainer.network.motion, trainer.network.appearance), pathways, strict=True)
    )
    assert still
    assert not moved
    trainer.train_step()
    assert not all(torch.equal(p, old) for p, old in zip(trainer.network.motion.parameters(), pathways[0], strict=True))
    monkeypatch.setattr("learning.amd.pretrain.reconstruction", lambda *_, **__: torch.tensor(float("nan")))
    with pytest.raises(ModelError, match="step 3: the loss is not a number"):
        trainer.train_step()
    with pytest.raises(UsageError, match="--segments-first 1"):
        AmdTrainer(Clips(tmp_path / "cache"), tmp_path, SMALL, segments_first=1.0)


def test_adaptation_rebuilds_unseen_pairs_of_its_video_better() -> None:
    frames = channels_first(moving_square(12))
    torch.manual_seed(0)
    network = Amd(SMALL).eval()
    held = np.stack([frames[:-2], frames[2:]], axis=1)
    before, unmoved = held_out_distances(network, held)
    adapted = adapt(network, frames, Adaptation(iterations=30, rate=2e-3, batch=2))
    after, _ = held_out_distances(adapted, held)
    assert after.mean() < 0.97 * before.mean()
    assert (unmoved > 0).all()
    # The network that was given is as it was.
    assert held_out_distances(network, held)[0] == pytest.approx(before)


def test_pairs_of_a_video_are_neighbours() -> None:
    frames = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 4), np.uint8)
    pairs = video_pairs(frames, 3, 200, np.random.default_rng(0))
    gaps = pairs[:, 1, 0, 0, 0].astype(int) - pairs[:, 0, 0, 0, 0]
    assert set(gaps) == {1, 2, 3}
    with pytest.raises(UsageError, match="at least 2"):
        video_pairs(frames[:1], 3, 1, np.random.default_rng(0))


class _Known(torch.nn.Module):
    """Says of every pair: a left half at rest, a right half that goes five pixels right."""

    def __init__(self, flows: list[list[float]]) -> None:
        super().__init__()
        self.flows = torch.nn.Parameter(torch.tensor([flows]))

    def forward(self, first: "torch.Tensor", second: "torch.Tensor") -> tuple[Segmented, Segmented]:
        masks = torch.zeros(len(first), 2, 4, 8)
        masks[:, 0, :, :6], masks[:, 1, :, 6:] = 1, 1
        side = Segmented(masks, self.flows.expand(len(first), -1, -1), torch.zeros(len(first), 2, 8, 16))
        return side, side


def test_the_object_is_what_moves_most_or_most_unlike_the_whole() -> None:
    pairs = np.zeros((3, 2, 3, 16, 32), np.uint8)
    moving = segment_motion(_Known([[0.0, 0.0], [3.0, 4.0]]), [pairs])  # type: ignore[arg-type]
    np.testing.assert_allclose(moving.flow, [0, 5])
    np.testing.assert_allclose(moving.area, [0.75, 0.25])
    # The whole goes (0.75, 1): the left half lags behind by 1.25, the right one leads by 3.75.
    np.testing.assert_allclose(moving.relative, [1.25, 3.75])
    assert (moving.channel("flow"), moving.channel("relative")) == (1, 1)
    followed = segment_motion(_Known([[3.0, 4.0], [0.0, 0.0]]), [pairs])  # type: ignore[arg-type]
    assert (followed.channel("flow"), followed.channel("relative")) == (0, 1)
    with pytest.raises(UsageError, match="flow, relative"):
        moving.channel("size")


def test_a_segment_that_hardly_is_cannot_be_the_object() -> None:
    motion = SegmentMotion(np.array([9.0, 1.0, 2.0]), np.array([9.0, 1.0, 2.0]), np.array([0.001, 0.7, 0.299]))
    assert motion.channel("flow") == 2


def test_masks_of_a_video_come_at_the_size_asked_for() -> None:
    network = Amd(SMALL)
    soft = segments(network, channels_first(moving_square(3)))
    assert soft.shape == (3, 3, 16, 32)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(3, 16, 32))
    masks = np.stack([object_masks(soft, channel, (48, 80)) for channel in range(3)])
    assert (masks.sum(axis=0) == 1).all()


def test_the_backbone_of_the_paper_has_its_size_and_segments_pictures() -> None:
    parameters = sum(p.numel() for p in ResNet50().parameters())
    assert parameters == 25_557_032 - (2048 * 1000 + 1000)  # ResNet-50 less its classifier
    pathway = Appearance(5, "resnet50", 8).eval()
    with torch.no_grad():
        assert pathway(torch.zeros(1, 3, 32, 64)).shape == (1, 5, 4, 8)
    with pytest.raises(UsageError, match="compact, resnet50"):
        AmdConfig(backbone="vgg")


def test_fine_tuning_learns_classes_and_leaves_the_network_alone() -> None:
    """Two kinds of squares, one class each; a border of unknown pixels counts nowhere."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 60, (8, 3, 32, 64)).astype(np.uint8), np.zeros((8, 32, 64), np.uint8)
    for row in range(8):
        kind, left = 1 + row % 2, int(rng.integers(4, 40))
        images[row, kind - 1, 8:24, left : left + 16] = 230
        labels[row, 8:24, left : left + 16] = kind
        labels[row, 7, left : left + 16] = IGNORE
    torch.manual_seed(0)
    network = Amd(SMALL)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    model, losses = fine_tune(network, images, labels, 3, steps=40, rate=0.1)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    assert model(torch.zeros(1, 3, 32, 64)).shape == (1, 3, 32, 64)
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])
    with pytest.raises(UsageError, match="label 2"):
        fine_tune(network, images, labels, 2, steps=1)


class _Blue(torch.nn.Module):
    """Class 1 where blue is bright, else class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = torch.nn.Conv2d(1, 3, 1)

    def forward(self, image: "torch.Tensor") -> "torch.Tensor":
        blue = image[:, 2]
        return torch.stack([1 - blue, blue, torch.full_like(blue, -1)], dim=1)


def test_mean_overlap_counts_classes_that_occur_and_no_unknown_pixels() -> None:
    image, label = np.zeros((3, 2, 4), np.uint8), np.zeros((2, 4), np.uint8)
    image[2, :, :2] = 255  # found: left half is class 1
    label[:, 1:3], label[0, 0] = 1, IGNORE
    # Class 1: found at 3 known pixels, 2 right, true at 4: 2 / 5. Class 0: found at 4, 2 right, true at 3: 2 / 5.
    assert mean_iou(_Blue(), [(image, label)]) == pytest.approx(0.4)  # type: ignore[arg-type]


def test_the_command_says_in_one_line_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = ["--objective", "amd", "--clips", str(tmp_path), "--out", str(tmp_path / "run")]
    wrong = [
        (["--channel", "size"], 2),
        (["--backbone", "vgg"], 2),
        (["--segments", "1"], 2),
        (["--save-every", "0"], 2),
        ([], 2),  # no clip there
    ]
    for options, code in wrong:
        assert pretrain.main([*clips, *options]) == code
        assert capsys.readouterr().err.count("\n") == 1


def test_what_is_no_model_of_amd_is_one_line(tmp_path: Path) -> None:
    torch.save({"objective": "proposals", "config": {}, "state": {}}, tmp_path / "other.pt")
    (tmp_path / "empty.pt").touch()
    for name in ("other", "empty", "missing"):
        with pytest.raises(ModelError, match="not a model") as caught:
            load_amd(tmp_path / f"{name}.pt")
        assert "\n" not in str(caught.value)
