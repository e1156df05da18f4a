"""F_beta and MAE by hand."""

import numpy as np
import pytest

pytest.importorskip("torch")

from learning.amd.saliency import f_beta, score


def test_scores_of_two_stills_by_hand() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    exact = mask.astype(np.float32)
    wide = np.zeros((4, 4), np.float32)
    wide[1:3, 1:] = 1.0  # six pixels, four of them right; twice the mean is 0.75
    found = score([(exact, mask), (wide, mask)])
    precision, recall = (1 + 4 / 6) / 2, 1.0
    assert found.f_beta == pytest.approx(1.3 * precision * recall / (0.3 * precision + recall))
    assert found.mae == pytest.approx((0 + 2 / 16) / 2)
    assert found.images == 2


def test_nothing_found_scores_nothing() -> None:
    mask = np.ones((2, 2), bool)
    assert score([(np.zeros((2, 2), np.float32), mask)]).f_beta == 0.0
    assert f_beta(0.0, 0.0) == 0.0
    assert score([]).images == 0
