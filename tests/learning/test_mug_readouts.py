"""Read-outs: a memory of eight frames, instances with lasting ids, labels handed on, a file the engine runs."""

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from engine.errors import ModelError, UsageError  # noqa: E402
from engine.perceive.background import BackgroundNetwork  # noqa: E402
from engine.percepts import Percepts  # noqa: E402
from learning.mug import export  # noqa: E402
from learning.mug.instances import InstanceReadOut, instances  # noqa: E402
from learning.mug.model import load_model, to_input  # noqa: E402
from learning.mug.one_shot import OneShot  # noqa: E402
from learning.mug.plan import Plan  # noqa: E402
from learning.mug.readout import ObjectReadOut, features, whole_video  # noqa: E402
from learning.mug.trainer import Trainer  # noqa: E402
from learning.networks.mug import Mug  # noqa: E402
from tests.learning.mug_parts import TINY, drawn_bursts  # noqa: E402

SIZE = (64, 96)


@pytest.fixture
def network() -> Mug:
    torch.manual_seed(0)
    return Mug(TINY).eval()


def _film(count: int, seed: int = 0) -> list[np.ndarray]:
    wide = np.random.default_rng(seed).integers(0, 255, (SIZE[0], SIZE[1] + 4 * count, 3)).astype(np.uint8)
    return [np.ascontiguousarray(wide[:, 4 * i : 4 * i + SIZE[1]]) for i in range(count)]


def test_the_streaming_memory_holds_one_frame_of_each_segment(network: Mug) -> None:
    film = _film(40)
    read_out = ObjectReadOut(network, window=24, size=SIZE)
    results = [read_out.step(image) for image in film]
    assert read_out.remembered == 8
    # Frames 15, 18 … 36 begin the eight segments of three frames before the last one.
    with torch.no_grad():
        x = network.backbone(to_input(film[39], SIZE))
        kept = [network.memorise(network.backbone(to_input(film[i], SIZE))) for i in range(15, 39, 3)]
        expected = torch.sigmoid(network.video_logits(network.recall(x, torch.stack(kept, dim=1))))[0, 0]
        alone = torch.sigmoid(network(to_input(film[39], SIZE)))[0, 0]
    assert results[39][0] == pytest.approx(expected.numpy(), abs=1e-5)
    assert results[39][1] == pytest.approx(alone.numpy(), abs=1e-5)
    assert all(np.isfinite(values).all() and values.shape == (16, 24) for pair in results for values in pair)
    with pytest.raises(UsageError, match="window 7: must be at least 8"):
        ObjectReadOut(network, window=7)


def test_the_whole_video_is_the_memory_but_for_the_frame_itself(network: Mug) -> None:
    film = [features(network, image, SIZE) for image in _film(20)]
    maps = whole_video(network, film)
    assert len(maps) == 20
    with torch.no_grad():
        # Middles of eight segments of two and a half frames.
        kept = [i for i in (1, 3, 6, 8, 11, 13, 16, 18) if i != 6]
        r = network.recall(film[6], torch.stack([network.memorise(film[i]) for i in kept], dim=1))
        expected = torch.sigmoid(network.video_logits(r))[0, 0].numpy()
    assert maps[6] == pytest.approx(expected, abs=1e-5)
    assert len(whole_video(network, film[:2])) == 2
    with pytest.raises(UsageError, match="at least 2"):
        whole_video(network, film[:1])


class _Pixels(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return F.pixel_unshuffle(image, 4)


def test_labels_follow_what_they_lay_on(network: Mug) -> None:
    network.backbone = _Pixels()  # type: ignore[assignment]
    film = _film(5)
    first = np.zeros(SIZE, np.int64)
    first[8:40, 32:64] = 3
    first[44:60, 48:88] = 7
    follower = OneShot(network, film[0], first, SIZE)
    for number, image in enumerate(film[1:], start=1):
        labels = follower.step(image)
        moved = np.roll(first, -4 * number, axis=1)
        for value in (3, 7):
            both, either = ((labels == value) & (moved == value)).sum(), ((labels == value) | (moved == value)).sum()
            assert both / either > 0.9
    assert set(np.unique(labels)) <= {0, 3, 7}
    with pytest.raises(UsageError, match="labels nothing"):
        OneShot(network, film[0], np.zeros(SIZE, np.int64), SIZE)


def _box(y: int, x: int, side: int = 6) -> np.ndarray:
    mask = np.zeros((20, 40), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def _percepts(masks: list[np.ndarray], scores: list[float], flow_px: float | None = -2.0) -> Percepts:
    stack = np.stack(masks)
    flow = None if flow_px is None else np.stack([np.full((20, 40), flow_px), np.zeros((20, 40))]).astype(np.float32)
    return Percepts(
        masks=stack,
        scores=np.array(scores, np.float32),
        background=np.zeros((20, 40), np.float32),
        embedding=None,
        flow=flow,
        residual=flow,
        logits=np.where(stack, 1.0, -1.0).astype(np.float32),
    )


def test_proposals_off_the_foreground_or_behind_better_ones_are_left_out() -> None:
    foreground = _box(2, 2, 16) | _box(2, 24, 6)
    better, worse, off, other = _box(4, 4), _box(4, 5), _box(12, 30), _box(2, 24)
    found = instances(np.stack([worse, better, off, other]), np.array([0.5, 0.9, 0.99, 0.2]), foreground)
    assert len(found) == 2
    assert np.array_equal(found[0], better)
    assert np.array_equal(found[1], other)
    assert not (found[0] & found[1]).any()
    assert len(instances(np.empty((0, 20, 40), bool), np.empty(0), foreground)) == 0


def test_instances_keep_their_ids_along_the_flow_and_through_a_gap() -> None:
    read_out, everywhere = InstanceReadOut(), np.ones((10, 20), np.float32)
    first = read_out.step(_percepts([_box(2, 4), _box(12, 20)], [0.9, 0.8], None), everywhere)
    a, b = int(first[4, 6]), int(first[14, 22])
    assert a != b
    # Both move two cells to the right per frame, and change places in the list.
    for step in range(1, 4):
        boxes = [_box(12, 20 + 2 * step), _box(2, 4 + 2 * step)]
        labels = read_out.step(_percepts(boxes, [0.9, 0.8]), everywhere)
        assert labels[4, 6 + 2 * step] == a
        assert labels[14, 22 + 2 * step] == b
    # The first is missed for two frames and found where the flow carried it.
    for step in (4, 5):
        labels = read_out.step(_percepts([_box(12, 20 + 2 * step)], [0.9]), everywhere)
        assert set(np.unique(labels)) == {0, b}
    labels = read_out.step(_percepts([_box(2, 16)], [0.9]), everywhere)
    assert set(np.unique(labels)) == {0, a}
    # Nothing is foreground: nothing is found; later on ids are new.
    for _ in range(12):
        assert not read_out.step(_percepts([_box(2, 16)], [0.9], 0.0), np.zeros((10, 20), np.float32)).any()
    labels = read_out.step(_percepts([_box(2, 16)], [0.9], 0.0), everywhere)
    assert int(labels.max()) > max(a, b)


def test_the_exported_file_is_a_cue_of_the_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer(drawn_bursts(), tmp_path, Plan(steps=2, batch=2), seed=0, config=TINY)
    trainer.train_step(trainer.batches.draw())
    trainer.save()
    out = tmp_path / "cue.onnx"
    assert export.main([str(tmp_path / "model.pt"), "--out", str(out), "--size", "64x96"]) == 0
    assert "differs from the network by" in capsys.readouterr().out
    cue = BackgroundNetwork(out, device="cpu", threads=1)
    assert cue.size == SIZE
    image = _film(1)[0]
    with torch.no_grad():
        expected = 1 - torch.sigmoid(load_model(tmp_path / "model.pt")(to_input(image, SIZE)))[0, 0].numpy()
    assert cue.map(image, None, (16, 24)) == pytest.approx(expected, abs=3e-3)
    larger = cv2.resize(image, (192, 128), interpolation=cv2.INTER_NEAREST)
    assert cue.map(larger, None, (32, 48)).shape == (32, 48)


def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.pt").write_text("no model")
    torch.save({"objective": "proposals", "config": {}, "state": {}}, tmp_path / "other.pt")
    for name in ("missing", "text", "other"):
        with pytest.raises(ModelError, match=f"{name}.pt"):
            load_model(tmp_path / f"{name}.pt")
    out = tmp_path / "x.onnx"
    for arguments, code, said in (
        ([str(tmp_path / "other.pt"), "--out", str(out)], 4, "objective is proposals"),
        ([str(tmp_path / "other.pt"), "--out", str(out), "--size", "big"], 2, "--size big: must be ROWSxCOLUMNS"),
        ([str(tmp_path / "other.pt"), "--out", str(out), "--size", "50x96"], 2, "multiples of 32"),
    ):
        assert export.main(arguments) == code
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert said in lines[0]
    assert not out.exists()
