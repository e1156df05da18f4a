"""Losses of the four granularities (MuG, section 3.1).

The paper leaves open what is summed and what is averaged, which decides what its weights mean. Here a dense term is
the mean over its positions, so that it does not depend on the grid; the squared distance from a Gaussian of a few
cells is summed, because its mean would vanish; all are means over the batch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from learning.networks.mug import Mug

WEIGHTS = {"frame": 1.0, "short": 0.1, "long": 0.02, "video": 0.5}
"""1, beta_1, beta_2, beta_3 of Eq. 16."""

BOOTSTRAP_ALPHA = 0.05
"""Share of the initial map in what a later round learns (Eq. 15)."""

VIDEO_TEMPERATURE = 0.1
"""Divides the cosine of two videos' features before the softmax over videos."""


def bootstrapped_target(initial: Tensor, prediction: Tensor | None, alpha: float = BOOTSTRAP_ALPHA) -> Tensor:
    """alpha Q + (1 - alpha) P with P = 1 where the last round's model says foreground; Q alone without one.

    Args:
        initial: Q in {0, 1}, any shape.
        prediction: probability of the last round's model, of the same shape.
    """
    if prediction is None:
        return initial
    return alpha * initial + (1 - alpha) * (prediction > 0.5).to(initial.dtype)


def frame_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of foreground logits with targets in [0, 1] (Eqs. 2 and 15)."""
    return F.binary_cross_entropy_with_logits(logits, target)


def gaussian_target(corner: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """G_p: one at the patch's corner (row, column) [B, 2], falling off with `sigma` cells; [B, rows, columns]."""
    y = torch.arange(size[0], device=corner.device, dtype=torch.float32)
    x = torch.arange(size[1], device=corner.device, dtype=torch.float32)
    square = (y[None, :, None] - corner[:, 0, None, None]) ** 2 + (x[None, None] - corner[:, 1, None, None]) ** 2
    return torch.exp(-square / (2 * sigma**2))


def short_loss(response: Tensor, corner: Tensor, sigma: float) -> Tensor:
    """Squared distance of the backward response [B, rows, columns] from the Gaussian at the start (Eq. 5)."""
    rows, columns = response.shape[1:]
    return (response - gaussian_target(corner, (rows, columns), sigma)).square().sum(dim=(1, 2)).mean()


def co_attention(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """A_ij [B, P, P] of features [B, C, h, w]: each column, a cell of b, sums to one over the cells of a (Eq. 6)."""
    cosine = F.normalize(a, dim=1).flatten(2).transpose(1, 2) @ F.normalize(b, dim=1).flatten(2)
    return torch.softmax(cosine / temperature, dim=1)


def inliers(transform: Tensor, grid: tuple[int, int]) -> Tensor:
    """iota [B, P, P] of cells m of i and o of j: max(0, 1 - |m - tau_ij(o)|), distance in cells.

    The paper's step at one cell passes no gradient to the transformation; this falls to zero where the step does.

    Args:
        transform: tau_ij [B, 2, 3] in coordinates -1 … 1 (x, y, 1).
        grid: rows and columns; P is their product.
    """
    rows, columns = grid
    kind = {"device": transform.device, "dtype": transform.dtype}
    y = (torch.arange(rows, **kind) + 0.5) * (2 / rows) - 1
    x = (torch.arange(columns, **kind) + 0.5) * (2 / columns) - 1
    places = torch.stack([x.repeat(rows), y.repeat_interleave(columns)])
    moved = transform @ torch.cat([places, torch.ones_like(places[:1])])
    cells = places.new_tensor([columns / 2, rows / 2])[:, None]
    away = (places * cells)[None, :, :, None] - (moved * cells)[:, :, None, :]
    # The small term keeps the gradient of the root finite where a cell is hit exactly.
    return torch.relu(1 - torch.sqrt(away.square().sum(dim=1) + 1e-8))


def long_loss(network: Mug, first: Tensor, second: Tensor) -> Tensor:
    """Minus the attention that agrees with one affine transformation, both ways (Eq. 8); in [-2, 0].

    Args:
        first, second: features [B, C, h, w] of two distant frames of the same video.
    """
    grid, loss = network.config.grid, first.new_zeros(())
    a, b = (F.adaptive_avg_pool2d(x, grid) for x in (first, second))
    for i, j in ((a, b), (b, a)):
        affinity = co_attention(i, j, network.config.temperature)
        agreeing = affinity * inliers(network.kappa(affinity), grid)
        loss = loss - agreeing.sum(dim=1).mean()
    return loss


def video_loss(queries: Tensor, instances: Tensor) -> Tensor:
    """Instance discrimination among N videos (Eqs. 12-14), divided by N.

    GAP(r^T r') is the product of the two means over positions; they are normalised here so that the softmax does not
    saturate.

    Args:
        queries: r of the query frames [N, 2C, h, w].
        instances: r of one other frame of each video [N, 2C, h, w].
    """
    q = F.normalize(queries.mean(dim=(2, 3)), dim=1)
    k = F.normalize(instances.mean(dim=(2, 3)), dim=1)
    log_p = F.log_softmax(q @ k.t() / VIDEO_TEMPERATURE, dim=1)
    own = torch.eye(len(q), dtype=torch.bool, device=q.device)
    others = torch.log1p(-log_p.exp().clamp(max=1 - 1e-6))
    return -torch.where(own, log_p, others).sum() / len(q)
