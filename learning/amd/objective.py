"""What AMD minimises: each frame of a pair rebuilt from the other along the segment flow (Eq. 7, both directions)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from learning.amd.losses import photometric, visibility
from learning.amd.measured import measured_flow
from learning.amd.warp import inside, warp
from learning.networks.amd import Amd, Segmented

STRIDES = (2, 4)
"""The pictures are compared at these strides: a coarse one sees farther, and a finer one would cost more than both."""

_LEAST_VARIETY_CELLS = 0.05
_SLOPE_PENALTY = 0.02


@dataclass(frozen=True)
class Weights:
    """Of the two terms that are ours, beside the paper's photometric distance of rebuilt frames, which weighs one.

    Attributes:
        dense: distance in pixels of the flow that the motion pathway finds from the measured one.
        fate: variety of the measured flow within segments.
    """

    dense: float = 0.02
    fate: float = 0.3


def to_images(pairs: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
    """First and second frames, [B, 3, h, w] in [0, 1], of uint8 [B, 2, 3, h, w]."""
    tensor = torch.as_tensor(pairs)
    first, second = ((tensor[:, side].float() / 255).contiguous(memory_format=torch.channels_last) for side in (0, 1))
    return first, second


def distances(one: Segmented, other: Segmented, first: Tensor, second: Tensor, *, occlusion: bool = True) -> Tensor:
    """Photometric distance of each pair, [B], the mean over both directions and `STRIDES`.

    Masks are those of the rebuilt frame, for the flow is looked up there: X'_j(p) = X_i(p + F(p)).

    Args:
        one, other: what the network says of `first` towards `second`, and back.
        occlusion: leave out pixels that fail the forward-backward check; else only those that leave the picture.
    """
    width = first.shape[3]
    total = first.new_zeros(len(first))
    for stride in STRIDES:
        a, b = F.avg_pool2d(first, stride), F.avg_pool2d(second, stride)
        size = (a.shape[2], a.shape[3])
        there, back = one.flow(size, width), other.flow(size, width)
        for target, source, flow, opposite in ((a, b, there, back), (b, a, back, there)):
            visible = visibility(flow, opposite) if occlusion else inside(flow).detach()
            total = total + photometric(target, warp(source, flow), visible)
    return total / (2 * len(STRIDES))


def flow_distance(found: Tensor, measured: Tensor, visible: Tensor) -> Tensor:
    """Mean length in pixels of what a flow [B, 2, h, w] lacks to the measured one, where that is visible."""
    lacking = (found - measured).norm(dim=1, keepdim=True)
    return (lacking * visible).sum() / visible.sum().clamp_min(1)


def common_fate(masks: Tensor, flow: Tensor, visible: Tensor | None = None) -> Tensor:
    """How much of a flow's variety is left within segments (*ours*): mean over a batch, in [0, 1].

    sum_m S_m |F - F_m'| over the same for one segment that is everything; F_m' is the affine motion that fits the flow
    of segment m best in the mean square. Only the masks learn from it: the photometric distance tells them where a
    boundary is, but next to nothing inside areas of one colour.

    Args:
        masks: S, [B, c, h, w].
        flow: [B, 2, h, w] in pixels of this grid.
        visible: [B, 1, h, w], 0 where the flow is not to be believed.
    """
    weights = torch.ones_like(masks[:, :1]) if visible is None else visible
    left = (affine_residuals(flow, masks.detach() * weights) * masks * weights).sum(dim=(1, 2, 3))
    whole = (affine_residuals(flow, weights) * weights).sum(dim=(1, 2, 3))
    # A picture that moves as one has nothing to tell apart.
    floor = _LEAST_VARIETY_CELLS * weights.sum(dim=(1, 2, 3))
    # Nor does one in which nothing is visible.
    return (left / (whole + floor).clamp_min(1e-6)).mean()


@torch.no_grad()
def affine_residuals(flow: Tensor, masks: Tensor) -> Tensor:
    """|F - F_m'| [B, c, h, w] of a flow [B, 2, h, w] from the affine motion of each segment [B, c, h, w]."""
    height, width = flow.shape[2:]
    y = torch.linspace(-1, 1, height, dtype=flow.dtype, device=flow.device)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width, dtype=flow.dtype, device=flow.device)[None].expand(height, width)
    places = torch.stack([torch.ones_like(x), x, y]).flatten(1)
    weights, values = masks.flatten(2), flow.flatten(2)
    products = (places[:, None] * places[None]).flatten(0, 1)
    normal = (weights @ products.t()).unflatten(2, (3, 3))
    # Slopes of small segments are held down; the constant is free.
    normal = normal + torch.diag(normal.new_tensor([1e-3, _SLOPE_PENALTY, _SLOPE_PENALTY])) * height * width
    right = torch.einsum("bcp,bkp,ip->bcik", weights, values, places)
    motion = torch.einsum("bcik,ip->bckp", torch.linalg.solve(normal, right), places)
    return (values[:, None] - motion).norm(dim=2).unflatten(2, (height, width))


def reconstruction(
    network: Amd,
    first: Tensor,
    second: Tensor,
    *,
    occlusion: bool = True,
    weights: Weights | None = None,
    segments_alone: bool = False,
) -> Tensor:
    """What a batch is trained on; the network runs in bfloat16 where that is safe.

    Args:
        weights: of the terms beside the paper's distance.
        segments_alone: only the appearance pathway learns, from the measured flow; several times as fast.
    """
    weights = weights or Weights()
    measured = measured_flow(first, second) if weights.dense or weights.fate else None
    with torch.autocast(first.device.type, torch.bfloat16):
        if segments_alone:
            masks = network.segments(torch.cat([first, second])).split(len(first))
        else:
            one, other = network(first, second)
            masks = one.masks, other.masks
    loss = first.new_zeros(())
    if not segments_alone:
        loss = loss + distances(one, other, first, second, occlusion=occlusion).mean()
        if measured is not None and weights.dense:
            for found, flow, visible in zip((one.dense, other.dense), *_at_grid(measured, one.dense), strict=True):
                # The motion pathway is told in pixels of the picture.
                scale = first.shape[3] / found.shape[3]
                loss = loss + weights.dense * flow_distance(found, flow * scale, visible) / 2
    if measured is not None and weights.fate:
        for segments, flow, visible in zip(masks, *_at_grid(measured, masks[0]), strict=True):
            loss = loss + weights.fate * common_fate(segments, flow, visible) / 2
    return loss


def _at_grid(flows: tuple[Tensor, Tensor], like: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Both directions of a flow in cells of the grid of `like`, and where each is to be believed."""
    size = (like.shape[2], like.shape[3])
    scale = size[1] / flows[0].shape[3]
    there, back = (F.interpolate(flow, size=size, mode="area") * scale for flow in flows)
    return [there, back], [visibility(there, back), visibility(back, there)]


@torch.no_grad()
def held_out_distances(network: Amd, pairs: np.ndarray, *, batch: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every pair uint8 [N, 2, 3, h, w] in float32, rebuilt and, for comparison, unmoved: float [N] each.

    No pixel is left out but those that leave the picture: what the check hides would be free to go wrong.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    rebuilt, unmoved = [], []
    for begin in range(0, len(pairs), batch):
        first, second = (image.to(device) for image in to_images(pairs[begin : begin + batch]))
        one, other = network(first, second)
        rebuilt.append(distances(one, other, first, second, occlusion=False))
        still = one._replace(flows=torch.zeros_like(one.flows))
        unmoved.append(distances(still, still, first, second, occlusion=False))
    network.train(was_training)
    return torch.cat(rebuilt).cpu().numpy(), torch.cat(unmoved).cpu().numpy()
