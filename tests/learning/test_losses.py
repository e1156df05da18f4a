"""Losses prefer the right answer; the embedding follows its equation; the mask read-out follows its formula."""

import math

import pytest

torch = pytest.importorskip("torch")

from learning.losses import binary_foreground, embedding_pairs, focal_centres, instance_masks, similarity  # noqa: E402
from learning.networks.compact import MASK_STRIDE, UNIT_PX, Compact, Maps  # noqa: E402


def test_similarity_is_one_for_equal_and_follows_the_equation() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.5])
    assert float(similarity(a, a)) == pytest.approx(1.0)
    assert float(similarity(a, b)) == pytest.approx(2 / (1 + math.exp(1.25)))


def test_embedding_loss_falls_when_instances_separate() -> None:
    torch.manual_seed(0)
    ids = torch.zeros(2, 16, 24, dtype=torch.long)
    ids[:, 4:12, 4:12] = 1
    apart = (ids[:, None] * 3.0).expand(-1, 4, -1, -1)
    assert float(embedding_pairs(apart, ids)) < 0.1 * float(embedding_pairs(torch.zeros_like(apart), ids))


def test_embedding_loss_asks_for_two_objects_to_differ_however_large_the_background() -> None:
    torch.manual_seed(0)
    ids = torch.zeros(2, 32, 48, dtype=torch.long)
    ids[:, 4:8, 4:8], ids[:, 4:8, 20:24] = 1, 2
    alike = ((ids[:, None] > 0) * 4.0).expand(-1, 4, -1, -1)
    apart = alike.clone()
    apart[:, 0] = ids * 4.0
    assert float(embedding_pairs(apart, ids)) < 0.2 * float(embedding_pairs(alike, ids))


def test_ignored_pixels_do_not_count() -> None:
    target, weight = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    weight[..., :4] = 0
    logits = torch.full((1, 1, 8, 8), -5.0)
    wrong = logits.clone()
    wrong[..., :4] = 5.0
    assert float(binary_foreground(wrong, target, weight)) == pytest.approx(
        float(binary_foreground(logits, target, weight))
    )
    assert float(focal_centres(wrong, target, weight)) == pytest.approx(float(focal_centres(logits, target, weight)))


def test_mask_losses_prefer_the_right_mask_and_report_its_iou() -> None:
    target = torch.zeros(1, 20, 20)
    target[:, 5:15, 5:15] = 1
    right, half = (target * 2 - 1) * 6, torch.full_like(target, -6.0)
    half[:, 5:10, 5:15] = 6
    good, bad = (instance_masks(m, target, torch.ones(1)) for m in (right, half))
    assert float(good[0]) < float(bad[0])
    assert float(good[1]) < float(bad[1])
    assert float(good[2]) == 1.0
    assert float(bad[2]) == pytest.approx(0.5)


def test_masks_follow_the_formula_cell_by_cell() -> None:
    torch.manual_seed(1)
    network = Compact()
    maps = Maps(
        torch.zeros(1, 1, 4, 6),
        torch.randn(1, 21, 4, 6),
        torch.randn(1, 16, 8, 12),
        torch.randn(1, 2, 8, 12),
        torch.zeros(1, 1, 8, 12),
        torch.zeros(1, 16, 8, 12),
    )
    cells = torch.tensor([[0, 13, 23]])
    masks = network.read_masks(maps, cells)
    for n, cell in enumerate(cells[0].tolist()):
        row, column = divmod(cell, 6)
        kernel = maps.kernels[0, :, row, column]
        centre = torch.tensor([(column + 0.5) * 8 / UNIT_PX, (row + 0.5) * 8 / UNIT_PX]) + kernel[18:20]
        for y, x in ((0, 0), (3, 7), (7, 11)):
            place = torch.tensor([(x + 0.5) * MASK_STRIDE / UNIT_PX, (y + 0.5) * MASK_STRIDE / UNIT_PX])
            distance = ((place + maps.votes[0, :, y, x] - centre) ** 2).sum()
            expected = kernel[:16] @ maps.features[0, :, y, x] + kernel[16] - kernel[17].exp() * distance
            assert float(masks[0, n, y, x]) == pytest.approx(float(expected), rel=1e-3, abs=1e-3)


def test_outputs_have_the_shapes_and_ranges_of_the_contract() -> None:
    network = Compact().eval()
    with torch.no_grad():
        out = network(torch.randn(1, 3, 256, 448), torch.zeros(1, 5, 128, 224))
    assert out.masks.shape == (1, 32, 64, 112)
    assert out.scores.shape == (1, 32)
    assert out.background.shape == (1, 1, 64, 112)
    assert out.embedding.shape[2:] == (64, 112)
    for values in (out.scores, out.background):
        assert float(values.min()) >= 0
        assert float(values.max()) <= 1
