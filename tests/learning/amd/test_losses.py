"""Warping, SSIM, segment means, photometric distance and visibility against loops that cannot be misread."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from learning.amd.losses import photometric, segment_flow, segment_means, ssim, visibility  # noqa: E402
from learning.amd.measured import measured_flow  # noqa: E402
from learning.amd.objective import affine_residuals, common_fate, distances, flow_distance  # noqa: E402
from learning.amd.warp import inside, warp  # noqa: E402
from learning.networks.amd import Segmented  # noqa: E402
from learning.networks.amd_motion import cost_volume, expected_shift  # noqa: E402
from tests.learning.amd.scenes import channels_first, moving_square  # noqa: E402

RNG = np.random.default_rng(3)


def _look_up(plane: np.ndarray, x: float, y: float) -> float:
    """Bilinear value of float [h, w] at (x, y), the border repeated."""
    h, w = plane.shape
    x, y = min(max(x, 0.0), w - 1.0), min(max(y, 0.0), h - 1.0)
    x0, y0 = int(x), int(y)
    x1, y1 = min(x0 + 1, w - 1), min(y0 + 1, h - 1)
    a, b = x - x0, y - y0
    top = (1 - a) * plane[y0, x0] + a * plane[y0, x1]
    return (1 - b) * top + b * ((1 - a) * plane[y1, x0] + a * plane[y1, x1])


def _slow_warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    out = np.empty_like(image)
    for c, y, x in np.ndindex(image.shape):
        out[c, y, x] = _look_up(image[c], x + flow[0, y, x], y + flow[1, y, x])
    return out


def _slow_ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One value per 3x3 window of float [h, w]."""
    h, w = a.shape
    out = np.empty((h - 2, w - 2))
    for y, x in np.ndindex(out.shape):
        p, q = a[y : y + 3, x : x + 3].ravel(), b[y : y + 3, x : x + 3].ravel()
        covariance = ((p - p.mean()) * (q - q.mean())).mean()
        above = (2 * p.mean() * q.mean() + 1e-4) * (2 * covariance + 9e-4)
        out[y, x] = above / ((p.mean() ** 2 + q.mean() ** 2 + 1e-4) * (p.var() + q.var() + 9e-4))
    return out


def _tensor(*shape: int, low: float = 0.0, high: float = 1.0) -> "torch.Tensor":
    return torch.from_numpy(RNG.uniform(low, high, shape))


def test_warping_looks_pixels_up_where_the_flow_points() -> None:
    image, flow = _tensor(2, 3, 7, 9), _tensor(2, 2, 7, 9, low=-4, high=4)
    for row in range(2):
        slow = _slow_warp(image[row].numpy(), flow[row].numpy())
        np.testing.assert_allclose(warp(image, flow)[row].numpy(), slow, atol=1e-9)


def test_a_whole_pixel_of_flow_moves_the_picture_by_a_pixel() -> None:
    image, flow = _tensor(1, 1, 5, 6), torch.zeros(1, 2, 5, 6, dtype=torch.float64)
    flow[:, 0] = 1.0
    torch.testing.assert_close(warp(image, flow)[..., :-1], image[..., 1:])


def test_gradients_of_the_warp_are_those_of_finite_differences() -> None:
    image = _tensor(1, 2, 5, 6).requires_grad_()
    # Away from whole pixels, where the bilinear look-up has a kink.
    flow = (_tensor(1, 2, 5, 6, low=0.1, high=0.4)).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, flow), eps=1e-6, atol=1e-5)


def test_ssim_equals_the_definition_window_by_window() -> None:
    a, b = _tensor(1, 2, 6, 8), _tensor(1, 2, 6, 8)
    for channel in range(2):
        slow = _slow_ssim(a[0, channel].numpy(), b[0, channel].numpy())
        np.testing.assert_allclose(ssim(a, b)[0, channel].numpy(), slow, atol=1e-9)
    torch.testing.assert_close(ssim(a, a), torch.ones_like(ssim(a, a)))


def test_segment_means_are_the_means_per_mask() -> None:
    features, masks = _tensor(2, 4, 5, 6, low=-1), torch.softmax(_tensor(2, 3, 5, 6, low=-3, high=3), dim=1)
    found = segment_means(features, masks).numpy()
    for b, m, d in np.ndindex(found.shape):
        weights = masks[b, m].numpy()
        np.testing.assert_allclose(found[b, m, d], (features[b, d].numpy() * weights).sum() / weights.sum())


def test_segment_flow_of_hard_masks_is_the_flow_of_each_pixels_segment() -> None:
    labels = RNG.integers(0, 3, (4, 5))
    masks = torch.from_numpy(np.stack([labels == m for m in range(3)]).astype(float))[None]
    flows = _tensor(1, 3, 2, low=-5, high=5)
    found = segment_flow(flows, masks)[0].numpy()
    for y, x in np.ndindex(4, 5):
        np.testing.assert_array_equal(found[:, y, x], flows[0, labels[y, x]].numpy())


def test_a_pooled_flow_field_gives_back_the_mean_of_each_segment() -> None:
    """Segment flow of the means equals per-mask means: what a segment says is its own average motion."""
    flow, labels = _tensor(1, 2, 6, 7, low=-3, high=3), RNG.integers(0, 4, (6, 7))
    masks = torch.from_numpy(np.stack([labels == m for m in range(4)]).astype(float))[None]
    found = segment_flow(segment_means(flow, masks), masks)[0].numpy()
    for m in range(4):
        inside_m = labels == m
        expected = flow[0].numpy()[:, inside_m].mean(axis=1)
        np.testing.assert_allclose(found[:, inside_m], np.repeat(expected[:, None], inside_m.sum(), 1))


def test_photometric_distance_of_visible_pixels_by_hand() -> None:
    a, b = _tensor(2, 3, 6, 7), _tensor(2, 3, 6, 7)
    visible = torch.from_numpy(RNG.integers(0, 2, (2, 1, 6, 7)).astype(float))
    found = photometric(a, b, visible).numpy()
    for row in range(2):
        p, q = a[row].numpy(), b[row].numpy()
        likeness = np.mean([(1 - _slow_ssim(p[c], q[c])) / 2 for c in range(3)], axis=0)
        each = 0.15 * np.abs(p - q).mean(axis=0)[1:-1, 1:-1] + 0.85 * likeness
        counts = visible[row, 0].numpy()[1:-1, 1:-1] > 0
        assert found[row] == pytest.approx(each[counts].mean())
    assert photometric(a, a, visible).abs().max() < 1e-12


def test_pixels_that_do_not_come_back_or_leave_are_not_visible() -> None:
    h, w = 6, 12
    flow, back = torch.zeros(1, 2, h, w), torch.zeros(1, 2, h, w)
    flow[:, 0, :, :4], back[:, 0] = 3.0, -3.0  # the left part goes right and returns; the rest does not agree
    seen = visibility(flow, back)[0, 0]
    assert seen[:, :4].all()
    assert not seen[:, 4:].any()
    away = torch.full((1, 2, h, w), 4.0)
    edge = inside(away)[0, 0]
    for y, x in np.ndindex(h, w):
        assert bool(edge[y, x]) == (x + 4 <= w - 1 and y + 4 <= h - 1)


def test_the_right_segments_and_flows_rebuild_better_than_wrong_ones() -> None:
    """A square that moves by four pixels: its segment with that flow leaves next to nothing to explain."""
    rng = np.random.default_rng(0)
    ground, square = rng.uniform(0, 1, (3, 32, 64)), rng.uniform(0, 1, (3, 16, 16))
    first, second = ground.copy(), ground.copy()
    first[:, 8:24, 16:32], second[:, 8:24, 20:36] = square, square
    masks = torch.zeros(1, 2, 8, 16), torch.zeros(1, 2, 8, 16)
    for mask, left in zip(masks, (4, 5), strict=True):
        mask[0, 1, 2:6, left : left + 4] = 1
        mask[0, 0] = 1 - mask[0, 1]
    images = [torch.from_numpy(image).float()[None] for image in (first, second)]

    def loss(shift: float) -> float:
        flows = torch.tensor([[[0.0, 0.0], [shift, 0.0]]])
        one, other = (Segmented(m, f, torch.zeros(1, 2, 16, 32)) for m, f in zip(masks, (flows, -flows), strict=True))
        return float(distances(one, other, *images, occlusion=False))

    assert loss(4.0) < 0.6 * min(loss(0.0), loss(-4.0), loss(8.0))


def test_cost_volume_compares_every_shift_and_expects_the_right_one() -> None:
    features = _tensor(1, 6, 7, 8, low=-1)
    features = features / features.norm(dim=1, keepdim=True)
    moved = torch.zeros_like(features)
    moved[:, :, 1:, 2:] = features[:, :, :-1, :-2]  # content goes two right, one down
    costs = cost_volume(features, moved, 2)
    one, other = features[0].numpy(), moved[0].numpy()
    for index, (dy, dx) in enumerate(np.ndindex(5, 5)):
        for y, x in np.ndindex(7, 8):
            v, u = y + dy - 2, x + dx - 2
            there = other[:, min(max(v, 0), 6), min(max(u, 0), 7)]
            assert float(costs[0, index, y, x]) == pytest.approx(float((one[:, y, x] * there).sum()))
    shift = expected_shift(costs, 2)[0, :, 2:-3, 2:-3]
    torch.testing.assert_close(shift[0].mean(), torch.tensor(2.0, dtype=shift.dtype), atol=0.3, rtol=0)
    torch.testing.assert_close(shift[1].mean(), torch.tensor(1.0, dtype=shift.dtype), atol=0.3, rtol=0)
    flat = expected_shift(torch.zeros(1, 25, 2, 2), 2, calm=0.1)
    torch.testing.assert_close(flat, torch.zeros(1, 2, 2, 2))


def test_what_is_left_of_a_segments_motion_is_what_no_affine_one_explains() -> None:
    rng = np.random.default_rng(0)
    h, w = 6, 10
    masks = rng.uniform(0.05, 1, (2, h, w))
    flow = rng.normal(size=(2, h, w))
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    places = np.stack([np.ones_like(x), x, y], axis=-1).reshape(-1, 3)
    expected = np.empty((2, h, w))
    for m, mask in enumerate(masks):
        weights = np.diag(mask.reshape(-1))
        normal = places.T @ weights @ places + np.diag([1e-3, 0.02, 0.02]) * h * w
        motion = places @ np.linalg.solve(normal, places.T @ weights @ flow.reshape(2, -1).T)
        expected[m] = np.linalg.norm(flow.reshape(2, -1).T - motion, axis=1).reshape(h, w)
    found = affine_residuals(torch.from_numpy(flow)[None], torch.from_numpy(masks)[None])[0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_masks_that_part_what_moves_differently_share_a_fate() -> None:
    """A square goes right over a ground at rest: its own segment explains the flow, halves of the picture do not."""
    flow = torch.zeros(1, 2, 8, 16)
    flow[:, 0, 2:6, 4:8] = 2.0
    right, wrong = torch.zeros(1, 2, 8, 16), torch.zeros(1, 2, 8, 16)
    right[:, 1, 2:6, 4:8], wrong[:, 1, :, 8:] = 1, 1
    right[:, 0], wrong[:, 0] = 1 - right[:, 1], 1 - wrong[:, 1]
    assert float(common_fate(right, flow)) < 0.2
    assert float(common_fate(wrong, flow)) > 0.5
    hidden = torch.ones_like(flow[:, :1])
    hidden[:, :, 2:6, 4:8] = 0
    assert float(common_fate(wrong, flow, hidden)) == pytest.approx(0, abs=1e-5)
    wrong.requires_grad_()
    nothing = common_fate(wrong, flow, torch.zeros_like(hidden))
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert wrong.grad is not None
    assert not wrong.grad.any()
    # A segment that leans towards the square is drawn further.
    lean = (0.5 + 0.2 * (right - 0.5)).requires_grad_()
    common_fate(lean, flow).backward()
    assert lean.grad is not None
    drawn = lean.grad[:, 0] - lean.grad[:, 1]
    assert bool((drawn[right[:, 1] > 0] > 0).all())
    assert float(drawn[right[:, 1] == 0].mean()) < 0


def test_flow_distance_is_the_mean_length_where_visible() -> None:
    found, measured = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    measured[0, :, 0, 0] = torch.tensor([3.0, 4.0])
    measured[0, 0, 1, 1] = 100.0
    visible = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    assert float(flow_distance(found, measured, visible)) == pytest.approx(5 / 3)


def test_the_measured_flow_leads_from_each_picture_to_the_other() -> None:
    frames = channels_first(moving_square(2, seed=3))
    first, second = (torch.from_numpy(frame)[None].float() / 255 for frame in frames)
    there, back = measured_flow(first, second)
    inside_square = (0, 0, slice(26, 38), slice(14, 24))
    assert float(there[inside_square].median()) == pytest.approx(3, abs=0.5)
    assert float(back[inside_square].median()) == pytest.approx(-3, abs=0.5)
    assert float(there[0, :, :, 80:].abs().median()) < 0.2
