"""Targets say what the labels say, and say nothing where the labels are silent."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from learning.batches import INSTANCES, MEAN, STD, Batch, Batches, Prefetch, targets
from learning.synthesis.sample import Kind, Origin
from learning.synthesis.shards import Shards


def _labels() -> tuple[np.ndarray, np.ndarray]:
    ids, kinds = np.zeros((96, 160), np.uint8), np.zeros(32, np.uint8)
    for value, kind in enumerate((Kind.MOVING, Kind.STATIC, Kind.DISTRACTOR, Kind.UNSURE), start=1):
        ids[20:60, 8 + 36 * (value - 1) : 36 * value] = value
        kinds[value] = kind
    return ids, kinds


def test_with_motion_only_moving_objects_are_foreground_and_standing_ones_stay_open() -> None:
    ids, kinds = _labels()
    out = targets(ids, kinds, Origin.COMPOSITE, True, np.random.default_rng(0))
    small = ids[::2, ::2]
    assert (out["binary"][0][small == 1] == 1).all()
    assert (out["binary"][0][small != 1] == 0).all()
    assert (out["binary_weight"][0][np.isin(small, (0, 1, 3))] == 1).all()
    assert (out["binary_weight"][0][np.isin(small, (2, 4))] == 0).all()


def test_without_motion_every_labelled_object_of_a_pile_is_foreground() -> None:
    ids, kinds = _labels()
    out = targets(ids, kinds, Origin.PILE, False, np.random.default_rng(0))
    small = ids[::2, ::2]
    assert (out["binary"][0][np.isin(small, (1, 2))] == 1).all()
    assert (out["binary_weight"][0][small == 0] == 1).all()


def test_a_composite_with_hidden_motion_teaches_masks_but_not_what_is_foreground() -> None:
    ids, kinds = _labels()
    out = targets(ids, kinds, Origin.COMPOSITE, False, np.random.default_rng(0))
    assert not out["binary_weight"].any()
    assert out["valid"].sum() == 2
    assert (out["heat_weight"][0][ids[::4, ::4] == 0] == 0).all()


def test_unlabelled_pixels_of_coco_are_not_called_empty() -> None:
    ids, kinds = _labels()
    out = targets(ids, kinds, Origin.COCO, False, np.random.default_rng(0))
    small = ids[::2, ::2]
    assert (out["binary_weight"][0][small == 0] == 0).all()
    assert (out["ids"][small == 0] == -1).all()


def test_trained_cells_lie_inside_their_mask_and_the_centre_is_the_peak() -> None:
    ids, kinds = _labels()
    out = targets(ids, kinds, Origin.PILE, True, np.random.default_rng(1))
    coarse_width = out["heat"].shape[2]
    for slot in range(INSTANCES):
        if out["valid"][slot]:
            for cell in out["cells"][slot]:
                y, x = divmod(int(cell), coarse_width)
                assert out["masks"][slot][2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() > 0.4
            assert out["heat"][0].flat[out["cells"][slot][0]] == 1
    assert (out["heat"] == 1).sum() == out["valid"].sum()


def test_batches_keep_image_motion_and_labels_aligned(shard_folder: Path) -> None:
    shards = Shards(shard_folder)
    batch = next(iter(Batches(shards, 8, (256, 448), 0).once()))
    assert batch.image.shape == (8, 3, 256, 448)
    assert batch.motion.shape == (8, 5, 128, 224)
    for row in range(8):
        image, motion, ids, _, _ = shards[row]
        restored = batch.image[row].permute(1, 2, 0).numpy() * STD + MEAN
        np.testing.assert_allclose(restored * 255, image, atol=0.01)
        assert bool(batch.motion[row].any()) == (motion is not None)
        known = batch.ids[row].numpy() >= 0
        np.testing.assert_array_equal(batch.ids[row].numpy()[known], ids[::2, ::2][known])


def test_real_frames_join_in_their_share(shard_folder: Path) -> None:
    synthetic, real, other = Shards(shard_folder), Shards(shard_folder, "held"), Shards(shard_folder, "held")
    drawn: list[Shards] = []

    class Recorded(Batches):
        def _one(self, shards: Shards, index: int, crop: tuple[int, int] | None) -> dict[str, np.ndarray]:
            drawn.append(shards)
            return super()._one(shards, index, crop)

    batches = Recorded(synthetic, 50, (192, 320), 0, [real, other], real_share=0.5)
    batches.draw()
    assert 5 <= sum(shards is real for shards in drawn) <= 20
    assert 5 <= sum(shards is other for shards in drawn) <= 20
    drawn.clear()
    Recorded(synthetic, 8, (192, 320), 0).draw()
    assert all(shards is synthetic for shards in drawn)


def test_a_batch_keeps_one_shape_when_the_crop_changes_while_it_is_drawn(shard_folder: Path) -> None:
    class Switching(Batches):
        def _one(self, shards: Shards, index: int, crop: tuple[int, int] | None) -> dict[str, np.ndarray]:
            self.crop = (256, 448)
            return super()._one(shards, index, crop)

    batches = Switching(Shards(shard_folder), 3, (192, 320), 0)
    assert batches.draw().image.shape == (3, 3, 192, 320)
    assert batches.draw().image.shape == (3, 3, 256, 448)


def test_what_goes_wrong_in_drawing_reaches_the_trainer(shard_folder: Path) -> None:
    class Broken(Batches):
        def draw(self) -> Batch:
            raise OSError("disk gone")

    prefetch = Prefetch(Broken(Shards(shard_folder), 3, (192, 320), 0))
    with pytest.raises(OSError, match="disk gone"):
        prefetch.next()
    prefetch.close()
