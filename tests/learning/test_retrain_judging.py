"""Two networks are compared fairly: in pairs, by blocks, against what COCO calls AP, and on what is known only."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

torch = pytest.importorskip("torch")

from learning.average_precision import Answer, AveragePrecision  # noqa: E402
from learning.networks.compact import Proposals  # noqa: E402
from learning.retrain.judge import THRESHOLDS, FrameScore, Slice, judge, match, spread  # noqa: E402
from learning.retrain.verdict import OLD_FIGURES, decide, frame_gains, paired_gain, paired_losses  # noqa: E402
from learning.synthesis.sample import Kind, Origin, Sample  # noqa: E402
from learning.synthesis.shards import Shards, write_shard  # noqa: E402

CPU = torch.device("cpu")


def _squares(rng: np.random.Generator, count: int) -> np.ndarray:
    masks = np.zeros((count, 32, 40), bool)
    for mask in masks:
        y, x = rng.integers(0, 20, 2)
        mask[y : y + int(rng.integers(5, 14)), x : x + int(rng.integers(5, 14))] = True
    return masks


def test_matching_agrees_with_coco() -> None:
    rng = np.random.default_rng(2)
    for _ in range(30):
        truth = np.zeros((32, 40), np.uint8)
        for value, mask in enumerate(_squares(rng, 4), start=1):
            truth[mask & (truth == 0)] = value
        masks = np.array([truth == v for v in np.unique(truth) if v])
        found, scores = np.concatenate([_squares(rng, 6), masks[:2]]), rng.random(6 + min(2, len(masks)))
        coco = AveragePrecision()
        coco.add(truth, Answer(found, scores))
        best, hits = match(found, scores, masks)
        # Every found truth is a step in COCO's recall; the mean over thresholds is its AR.
        assert hits.sum(axis=1).mean() / len(masks) == pytest.approx(coco.figures()["AR@100"])
        ious = [[(a & b).sum() / (a | b).sum() for a in found] for b in masks]
        np.testing.assert_allclose(best, np.max(ious, axis=1), rtol=1e-5)


def _sample(kind: Kind, doubted: bool = False) -> Sample:
    """A square of one kind in the middle; everything left of it ignored if `doubted`."""
    ids, kinds = np.zeros((256, 448), np.uint8), np.zeros(32, np.uint8)
    if doubted:
        ids[:, :160], kinds[2] = 2, Kind.UNSURE
    ids[80:160, 200:280], kinds[1] = 1, kind
    image = np.full((256, 448, 3), 90, np.uint8)
    motion = np.full((5, 128, 224), 0.2, np.float32)
    return Sample(image, motion, ids, kinds, Origin.STORE)


class Fixed:
    """A network that always answers the same squares (y0, y1, x0, x1, score) in cells, the first as foreground."""

    def __init__(self, *squares: tuple[int, int, int, int, float]) -> None:
        self._squares = squares

    def eval(self) -> "Fixed":
        return self

    def __call__(self, image: torch.Tensor, motion: torch.Tensor) -> Proposals:
        masks = torch.full((1, len(self._squares), 64, 112), -5.0)
        scores = torch.zeros(1, len(self._squares))
        for n, (y0, y1, x0, x1, score) in enumerate(self._squares):
            masks[0, n, y0:y1, x0:x1] = 5.0
            scores[0, n] = score
        background = 1 - torch.sigmoid(masks[:, :1])
        count = len(image)
        return Proposals(
            masks.expand(count, -1, -1, -1),
            scores.expand(count, -1),
            background.expand(count, -1, -1, -1),
            torch.zeros(count, 2, 64, 112),
        )


OBJECT = (20, 40, 50, 70, 0.9)


def test_a_network_that_says_what_is_labelled_gets_everything(tmp_path: Path) -> None:
    write_shard(tmp_path / "held_0000.shard", 11, (_sample(Kind.MOVING) for _ in range(11)))
    found = judge(Fixed(OBJECT), Shards(tmp_path, "held"), 100, CPU)
    assert len(found.frames) == 11
    assert found.figures == pytest.approx(dict.fromkeys(("AP", "AP50", "AP75", "foreground IoU", "best-mask IoU"), 1.0))
    assert all(frame.overall == pytest.approx(1) for frame in found.frames)
    assert found.recall[-1] == 1
    assert set(found.precision) == {1.0}
    half = judge(Fixed((20, 40, 50, 60, 0.9)), Shards(tmp_path, "held"), 100, CPU)
    assert half.figures["best-mask IoU"] == half.figures["foreground IoU"] == pytest.approx(0.5)
    assert half.frames[0].precision == pytest.approx(1 / len(THRESHOLDS))
    assert judge(Fixed((0, 10, 0, 10, 0.9)), Shards(tmp_path, "held"), 100, CPU).figures["AP"] == 0


def test_a_proposal_where_nothing_is_known_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "held_0000.shard", 2, [_sample(Kind.MOVING, doubted=True), _sample(Kind.MOVING, doubted=True)]
    )
    shards = Shards(tmp_path, "held")
    ignored, wrong = (5, 15, 5, 30, 0.95), (5, 15, 80, 100, 0.95)
    assert judge(Fixed(OBJECT, ignored), shards, 9, CPU).frames[0].precision == pytest.approx(1)
    assert judge(Fixed(OBJECT, wrong), shards, 9, CPU).frames[0].precision == pytest.approx(0.5)


def test_what_stands_still_is_an_object_but_neither_foreground_nor_background(tmp_path: Path) -> None:
    write_shard(tmp_path / "held_0000.shard", 1, [_sample(Kind.STATIC)])
    frame = judge(Fixed(OBJECT), Shards(tmp_path, "held"), 9, CPU).frames[0]
    assert frame == FrameScore(None, pytest.approx(1), pytest.approx(1))


def test_a_long_slice_is_sampled_evenly() -> None:
    assert spread(5, 9) == [0, 1, 2, 3, 4]
    assert spread(100, 4) == [0, 25, 50, 75]


def _slice(values: list[float]) -> Slice:
    return Slice([FrameScore(v, None, None) for v in values])


def test_the_error_of_a_gain_is_that_of_blocks_not_of_frames() -> None:
    before, after = _slice([0.0] * 6), _slice([0.1, 0.1, 0.1, 0.2, 0.2, 0.6])
    gain, error, count = paired_gain([(before, after)], ["a", "a", "a", "b", "b", "c"])
    # Block means 0.1, 0.2, 0.6: mean 0.3, s = sqrt(0.07).
    assert (gain, error, count) == pytest.approx((0.3, math.sqrt(0.07 / 3), 3))
    assert math.isinf(paired_gain([(before, after)], ["a"] * 6)[1])
    silent = Slice([FrameScore(None, None, None)] * 6)
    assert paired_gain([(silent, after)], ["a"] * 6)[2] == 0
    # Judged in two ways, a frame counts once, with the mean of what is known.
    assert frame_gains([(before, after), (before, before)]) == pytest.approx([0.05, 0.05, 0.05, 0.1, 0.1, 0.3])
    assert frame_gains([(before, after), (silent, after)]) == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.2, 0.6])


def _old(losses: list[float], field: str = "foreground") -> tuple[Slice, Slice]:
    """Base and retrained on labelled frames; the retrained one loses so much of one figure in each."""
    both = dict.fromkeys(OLD_FIGURES.values(), 0.5)
    before = Slice([FrameScore(**both) for _ in losses])
    return before, Slice([FrameScore(**{**both, field: 0.5 - loss}) for loss in losses])


GOOD = [0.1, 0.12, 0.11]
SAME = [0.0] * 8


@pytest.mark.parametrize(
    ("gains", "losses", "promoted", "said"),
    [
        (GOOD, SAME, True, "promoted: gain"),
        (GOOD, [0.004] * 8, True, "promoted: gain"),
        (GOOD, [-0.3, 0.1] * 4, False, "may lose"),  # better on average, but nobody knows: the spread is too large
        (GOOD, [0.0, 0.008] * 4, False, "may lose 0.0069 of foreground IoU (+0.0040 ± 0.0015 over 8 labelled frames)"),
        (GOOD, [0.0, 0.008] * 100, True, "promoted: gain"),  # the same loss, known better
        (GOOD, [0.006] * 8, False, "at most 0.005 is allowed"),
        (GOOD, [0.0], False, "1 labelled frames say something"),
        ([0.3, -0.2, -0.1], SAME, False, "not above 0 with certainty"),
        ([0.1, 0.12, -0.02], SAME, False, "not above 0 with certainty"),  # above its standard error, as luck often is
        ([0.0, 0.0, 0.0], SAME, False, "not above 0 with certainty"),
        ([0.1], SAME, False, "unknown, too few blocks"),
        ([0.1, 0.1], SAME, False, "unknown, too few blocks"),
    ],
)
def test_only_what_is_proven_better_on_the_new_and_proven_no_worse_on_the_old_is_promoted(
    gains: list[float], losses: list[float], promoted: bool, said: str
) -> None:
    new = [(_slice([0.3] * len(gains)), _slice([0.3 + gain for gain in gains]))]
    verdict = decide(new, _old(losses), [str(n) for n in range(len(gains))], margin=0.005)
    assert verdict.promoted == promoted
    assert said in verdict.reason
    assert "\n" not in verdict.reason


def test_the_bound_of_a_loss_is_that_of_a_paired_one_sided_t_test() -> None:
    losses = np.random.default_rng(3).normal(0.01, 0.05, 40)
    found = paired_losses(*_old(losses.tolist()))["foreground IoU"]
    assert (found.mean, found.frames) == (pytest.approx(losses.mean()), 40)
    # At the bound, and only there, the test that the loss is smaller is significant.
    for margin, significant in ((found.bound * 1.001, True), (found.bound * 0.999, False)):
        test = scipy.stats.ttest_1samp(losses, margin, alternative="less")
        assert (test.pvalue < 0.05) == significant


def test_each_old_figure_can_veto() -> None:
    new = [(_slice([0.3] * 3), _slice([0.4, 0.41, 0.42]))]
    for field, change in itertools.product(OLD_FIGURES.values(), (0.02, -0.02)):
        assert decide(new, _old([change] * 4, field), ["a", "b", "c"], margin=0.005).promoted == (change < 0)


def test_frames_that_say_nothing_about_a_figure_do_not_count() -> None:
    before, after = _old([0.1, 0.2, 0.3])
    after.frames[0] = FrameScore(None, 0.5, 0.5)
    found = paired_losses(before, after)
    assert (found["foreground IoU"].frames, found["best-mask IoU"].frames) == (2, 3)
    assert found["foreground IoU"].mean == pytest.approx(0.25)
