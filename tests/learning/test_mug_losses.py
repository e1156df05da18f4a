"""Every loss of the four granularities equals a slow reference, and its gradient the slope."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from learning.mug import losses, tracking  # noqa: E402
from learning.networks.mug import Mug, MugConfig  # noqa: E402

TINY = MugConfig(stem=4, widths=(4, 6, 8, 8), decoder=(8, 6), features=6, memory_pool=2, grid=(4, 6), estimator=(5, 4))


@pytest.fixture
def network() -> Mug:
    torch.manual_seed(3)
    return Mug(TINY)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=0, keepdims=True)


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def test_frame_loss_is_the_cross_entropy_of_the_bootstrapped_target() -> None:
    rng = np.random.default_rng(0)
    logits, q = rng.normal(size=(2, 1, 3, 4)), rng.integers(0, 2, (2, 1, 3, 4)).astype(float)
    before = rng.uniform(size=q.shape)
    expected = 0.0
    for z, own, last in zip(logits.ravel(), q.ravel(), before.ravel(), strict=True):
        p, hard = 1 / (1 + math.exp(-z)), float(last > 0.5)
        expected -= (0.05 * own + 0.95 * hard) * math.log(p) + (0.05 * (1 - own) + 0.95 * (1 - hard)) * math.log(1 - p)
    target = losses.bootstrapped_target(torch.tensor(q), torch.tensor(before))
    assert float(losses.frame_loss(torch.tensor(logits), target)) == pytest.approx(expected / q.size)
    assert losses.bootstrapped_target(torch.tensor(q), None).tolist() == q.tolist()


def test_short_loss_is_the_squared_distance_from_a_gaussian() -> None:
    rng = np.random.default_rng(1)
    response, corner, sigma = rng.uniform(size=(2, 5, 7)), np.array([[0, 6], [3, 2]]), 0.8
    expected = 0.0
    for b in range(2):
        for y in range(5):
            for x in range(7):
                square = (y - corner[b, 0]) ** 2 + (x - corner[b, 1]) ** 2
                expected += (response[b, y, x] - math.exp(-square / (2 * sigma**2))) ** 2
    measured = losses.short_loss(torch.tensor(response), torch.tensor(corner), sigma)
    assert float(measured) == pytest.approx(expected / 2, rel=1e-5)


def test_response_is_the_mean_cosine_of_patch_and_window(network: Mug) -> None:
    rng = np.random.default_rng(2)
    patch, frame = rng.normal(size=(2, 6, 3, 3)), rng.normal(size=(2, 6, 5, 8))
    found = tracking.response(network, torch.tensor(patch), torch.tensor(frame)).detach().numpy()
    assert found.shape == (2, 3, 6)
    gain, shift = network.gain.item(), network.shift.item()
    for b in range(2):
        p, f = _unit(patch[b]), _unit(frame[b])
        for y in range(3):
            for x in range(6):
                cosine = np.mean([p[:, i, j] @ f[:, y + i, x + j] for i in range(3) for j in range(3)])
                assert found[b, y, x] == pytest.approx(1 / (1 + math.exp(-(gain * cosine + shift))), rel=1e-3)


class _Pixels(torch.nn.Module):
    """Features that are the pixels themselves: moving with the picture, cell by cell."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return F.pixel_unshuffle(image, 4)


@pytest.mark.parametrize("patches", tracking.PATCHES)
def test_a_patch_comes_back_to_where_it_started(network: Mug, patches: str) -> None:
    network.backbone = _Pixels()  # type: ignore[assignment]
    wide = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    # The scene moves by (4, 8), then by (8, -4) pixels: whole cells.
    frames = [wide[:, :, y : y + 64, x : x + 96] for y, x in ((16, 16), (12, 8), (4, 12))]
    corner = torch.tensor([[4, 9], [5, 10]])
    first = network.backbone(frames[0]).requires_grad_()
    back = tracking.there_and_back(network, frames, first, corner, patches)
    assert tracking.peak(back).tolist() == corner.tolist()
    assert torch.equal(tracking.cut(first, corner)[1], first[1, :, 5:13, 10:18])
    assert torch.equal(tracking.cut(frames[0], corner, 4)[1], frames[0][1, :, 20:52, 40:72])
    losses.short_loss(back, corner, tracking.SIGMA_CELLS).backward()
    assert first.grad is not None
    assert float(first.grad.abs().sum()) > 0


@pytest.mark.parametrize("patches", tracking.PATCHES)
def test_the_last_patch_trains_the_backbone_too(network: Mug, patches: str) -> None:
    frames = list(torch.randn(3, 2, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    corner = torch.tensor([[4, 9], [5, 10]])
    first = torch.randn(2, 6, 16, 24, generator=torch.Generator().manual_seed(1))
    back = tracking.there_and_back(network, frames, first, corner, patches)
    losses.short_loss(back, corner, tracking.SIGMA_CELLS).backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in network.backbone.parameters())


def test_long_loss_counts_attention_within_one_cell_of_the_transformation(network: Mug) -> None:
    rng = np.random.default_rng(4)
    rows, columns = TINY.grid
    with torch.no_grad():
        network.kappa.linear.bias.copy_(torch.tensor([0.1, -0.2, 0.1, 0.05, -0.1, -0.15]))
        network.kappa.linear.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    network.double()
    first, second = (rng.normal(size=(2, 6, 2 * rows, 2 * columns)) for _ in range(2))
    expected = 0.0
    for b in range(2):
        a, c = (x[b].reshape(6, rows, 2, columns, 2).mean(axis=(2, 4)).reshape(6, -1) for x in (first, second))
        for i, j in ((a, c), (c, a)):
            affinity = _softmax(_unit(i).T @ _unit(j) / TINY.temperature, axis=0)
            tau = network.kappa(torch.tensor(affinity)[None])[0].detach().numpy()
            for o in range(rows * columns):
                place = np.array([(o % columns + 0.5) * 2 / columns - 1, (o // columns + 0.5) * 2 / rows - 1, 1.0])
                x, y = (tau @ place + 1) / 2 * (columns, rows) - 0.5
                for m in range(rows * columns):
                    away = math.hypot(m % columns - x, m // columns - y)
                    expected -= affinity[m, o] * max(0.0, 1 - away) / (rows * columns)
    measured = losses.long_loss(network, torch.tensor(first), torch.tensor(second))
    assert measured.item() == pytest.approx(expected / 2, rel=1e-4)
    assert -2 <= measured.item() < 0


def test_frames_that_are_equal_are_inliers_of_the_identity(network: Mug) -> None:
    x = torch.randn(1, 6, *TINY.grid, generator=torch.Generator().manual_seed(0))
    assert float(losses.long_loss(network, 4 * x, 4 * x).detach()) < -1.8
    inside = losses.inliers(torch.eye(2, 3)[None], TINY.grid)[0]
    assert torch.allclose(inside, torch.eye(len(inside)), atol=1e-3)


def test_video_loss_tells_videos_apart() -> None:
    rng = np.random.default_rng(5)
    q, k = rng.normal(size=(4, 6, 2, 3)), rng.normal(size=(4, 6, 2, 3))
    means = [[v.mean(axis=(1, 2)) for v in x] for x in (q, k)]
    expected = 0.0
    for n in range(4):
        # The mean over all pairs of positions of r^T r' is the product of the means.
        pairs = np.einsum("cp,cq->pq", q[n].reshape(6, -1), k[n].reshape(6, -1)).mean()
        assert pairs == pytest.approx(means[0][n] @ means[1][n])
        scores = np.array([_unit(means[0][n]) @ _unit(m) for m in means[1]]) / losses.VIDEO_TEMPERATURE
        p = _softmax(scores, axis=0)
        expected -= math.log(p[n]) + sum(math.log(1 - p[i]) for i in range(4) if i != n)
    assert float(losses.video_loss(torch.tensor(q), torch.tensor(k))) == pytest.approx(expected / 4, rel=1e-5)
    assert losses.video_loss(torch.tensor(q), torch.tensor(q)) < losses.video_loss(
        torch.tensor(q), torch.tensor(np.roll(q, 1, axis=0))
    )


def test_recall_gathers_what_the_memory_knows_of_a_cell(network: Mug) -> None:
    rng = np.random.default_rng(6)
    x, memory = rng.normal(size=(2, 6, 2, 3)), rng.normal(size=(2, 3, 6, 1, 2))
    r = network.double().recall(torch.tensor(x), torch.tensor(memory)).numpy()
    assert r.shape == (2, 12, 2, 3)
    assert np.array_equal(r[:, 6:], x)
    for b in range(2):
        cells = np.concatenate([frame.reshape(6, -1) for frame in memory[b]], axis=1)
        for y in range(2):
            for c in range(3):
                weights = _softmax(_unit(x[b, :, y, c]) @ _unit(cells) / TINY.temperature, axis=0)
                assert r[b, :6, y, c] == pytest.approx(cells @ weights)


def _gradient_cases() -> list[tuple[str, int]]:
    return [("frame", 0), ("short", 1), ("long", 2), ("video", 3), ("recall", 4)]


@pytest.mark.parametrize(("name", "seed"), _gradient_cases())
def test_gradients_equal_slopes(name: str, seed: int, network: Mug) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    network.double()
    with torch.no_grad():
        network.kappa.linear.bias.copy_(torch.tensor([0.1, -0.2, 0.13, 0.05, -0.1, -0.17]))
    target, corner = (draw(2, 1, 3, 4) > 0).double().detach(), torch.tensor([[1, 2]])
    functions = {
        "frame": (lambda z: losses.frame_loss(z, target), (draw(2, 1, 3, 4),)),
        "short": (lambda z: losses.short_loss(torch.sigmoid(z), corner, 0.8), (draw(1, 4, 5),)),
        "long": (lambda a, b: losses.long_loss(network, a, b), (draw(1, 6, 4, 6), draw(1, 6, 4, 6))),
        "video": (losses.video_loss, (draw(3, 4, 2, 2), draw(3, 4, 2, 2))),
        "recall": (lambda x, m: network.recall(x, m).square().mean(), (draw(1, 6, 2, 3), draw(1, 2, 6, 1, 2))),
    }
    function, values = functions[name]
    assert torch.autograd.gradcheck(function, values, atol=1e-4)


def test_the_transformation_learns_from_the_inliers(network: Mug) -> None:
    grid = TINY.grid
    # Rows of two frames that show the same, one shifted by a cell: the identity is off by one.
    wide = 4 * torch.randn(1, 6, grid[0], grid[1] + 1, generator=torch.Generator().manual_seed(2))
    first, second = wide[..., :-1], wide[..., 1:]
    optimiser = torch.optim.Adam(network.kappa.parameters(), lr=0.01)
    begin = float(losses.long_loss(network, first, second).detach())
    for _ in range(60):
        optimiser.zero_grad()
        loss = losses.long_loss(network, first, second)
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < begin - 0.5
