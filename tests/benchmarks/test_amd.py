"""Scores of AMD: each rule's segment is compared with the annotation, and the best one bounds them all."""

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import amd, background  # noqa: E402
from benchmarks.davis import sequences  # noqa: E402
from learning.networks.amd import Segmented  # noqa: E402


class _Red(torch.nn.Module):
    """Segments: red pixels, and the rest; red goes three pixels right."""

    def __init__(self) -> None:
        super().__init__()
        self.flows = torch.nn.Parameter(torch.tensor([[[0.0, 0.0], [3.0, 0.0]]]))
        self.config = type("Config", (), {"segments": 2})

    def masks(self, image: "torch.Tensor") -> "torch.Tensor":
        red = (image[:, :1] > 0.5).float()
        return torch.cat([1 - red, red], dim=1)

    def forward(self, first: "torch.Tensor", second: "torch.Tensor") -> tuple[Segmented, Segmented]:
        dense = torch.zeros(len(first), 2, first.shape[2] // 2, first.shape[3] // 2)
        one, other = (Segmented(self.masks(i), self.flows.expand(len(i), -1, -1), dense) for i in (first, second))
        return one, other


def _footage(folder: Path) -> Path:
    for kind in ("JPEGImages", "Annotations"):
        (folder / kind / "480p" / "walk").mkdir(parents=True)
    for index in range(5):
        image, mask = np.zeros((128, 256, 3), np.uint8), np.zeros((128, 256), np.uint8)
        image[40:80, 20 + 8 * index : 80 + 8 * index, 2] = 255
        mask[image[..., 2] > 0] = 255
        cv2.imwrite(str(folder / "JPEGImages" / "480p" / "walk" / f"{index:05d}.jpg"), image)
        cv2.imwrite(str(folder / "Annotations" / "480p" / "walk" / f"{index:05d}.png"), mask)
    return folder


def test_the_segment_that_moves_is_scored_on_the_inner_frames(tmp_path: Path) -> None:
    (sequence,) = sequences(_footage(tmp_path))
    frames = np.stack([amd.fit(sequence.image(i)) for i in range(5)])
    row = amd.score_video(_Red(), sequence, frames, fixed=0, every=1)  # type: ignore[arg-type]
    assert row["frames"] == 3
    assert row["channels"] == {"flow": 1, "relative": 1, "training": 0}
    assert row["J_flow"] == row["J_relative"] == row["J_best"] > 0.9
    assert row["J_training"] < 0.05
    assert row["F_flow"] > 0.9
    assert amd.means({"a": {"trained": row}, "b": {"trained": {**row, "J_flow": 0.0}}}, "trained")[
        "J_flow"
    ] == pytest.approx(row["J_flow"] / 2, abs=1e-3)


def test_drawn_scenes_tell_the_links_apart() -> None:
    scenes = amd.drawn_scenes(2)
    pairs, shapes, flows = scenes
    assert pairs.shape[:3] == (2, 2, 3)
    assert shapes.shape == flows.shape[:3] == (2, *pairs.shape[3:])

    class Perfect(_Red):
        def masks(self, image: "torch.Tensor") -> "torch.Tensor":
            red = torch.from_numpy(shapes).float()[:, None]
            return torch.cat([1 - red, red], dim=1)

        def dense_flow(self, first: "torch.Tensor", second: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
            flow = torch.from_numpy(flows).permute(0, 3, 1, 2)
            return flow, -flow

    row = amd.score_scenes(Perfect(), 1, scenes)  # type: ignore[arg-type]
    assert row["error_px"] == row["error_px_shapes"] == 0
    assert row["still_px"] == pytest.approx(float(np.linalg.norm(flows, axis=3).mean()), rel=1e-5)
    assert row["J_best_of_each"] == row["J_best_of_all"] == row["J_chosen"] == 1
    assert amd.score_scenes(Perfect(), 0, scenes)["J_chosen"] == 0  # type: ignore[arg-type]


def test_a_missing_model_and_an_unknown_cue_are_exit_codes(tmp_path: Path) -> None:
    assert amd.main(["--data", str(tmp_path), "--model", str(tmp_path / "none.pt")]) == 4
    assert amd.main(["--data", str(tmp_path)]) == 2
    assert amd.main(["--ablation", "3"]) == 2
    assert background.main(["--data", str(tmp_path), "--cues", "telepathy"]) == 2
    assert background.main(["--data", str(tmp_path), "--cues", "uniform"]) == 3
