"""Tracking a patch forwards over frames and back again by correlation of features (MuG, Eqs. 3-4)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from learning.networks.mug import STRIDE, Mug, unrecorded_statistics

PATCHES = ("features", "picture")
"""What a tracked patch is cut out of: the features of its frame, or, as in the paper, the picture.

A network that pads its convolutions sees little but borders in a small picture of its own: patches of the picture were
all found in a corner of the next frame, and nothing was learned from them.
"""

PATCH_CELLS = 8
"""Side of a tracked patch on the grid of the features, 32 pixels; a quarter of the height, as in the paper."""

SIGMA_CELLS = 0.1 * PATCH_CELLS
"""Kernel width of the target: a tenth of the patch."""


def cut(maps: Tensor, corner: Tensor, stride: int = 1) -> Tensor:
    """Patches of 8 x 8 cells out of maps [B, C, h, w] whose upper left cells are `corner` (row, column) int64 [B, 2].

    Args:
        stride: elements of the map per cell: 1 for features, 4 for pictures.
    """
    side = PATCH_CELLS * stride
    patches = [
        one[:, y * stride : y * stride + side, x * stride : x * stride + side]
        for one, (y, x) in zip(maps, corner.tolist(), strict=True)
    ]
    return torch.stack(patches)


def response(network: Mug, patch: Tensor, frame: Tensor) -> Tensor:
    """Where patches are in frames: [B, h - p + 1, w - p + 1] in (0, 1), at every corner where the patch fits.

    Args:
        patch: features of the patches [B, C, p, p].
        frame: features of the frames [B, C, h, w].
    """
    return torch.sigmoid(network.gain * likeness(patch, frame) + network.shift)


def likeness(patch: Tensor, frame: Tensor) -> Tensor:
    """Mean cosine of the cells of patches [B, C, p, p] and of frames [B, C, h, w], shaped as `response`."""
    batch, channels, p, _ = patch.shape
    # Half precision would make neighbouring positions equal.
    with torch.autocast(patch.device.type, enabled=False):
        kernels = F.normalize(patch.float(), dim=1) / (p * p)
        fields = F.normalize(frame.float(), dim=1).reshape(1, batch * channels, *frame.shape[2:])
        return F.conv2d(fields, kernels, groups=batch)[0]


@torch.no_grad()
def make_rare(network: Mug, frame: Tensor, corner: Tensor) -> None:
    """Shift the responses so that in frames [B, 3, H, W] a patch is found at one place or so.

    Features that other losses made alike would be found everywhere: that loss is hundreds of times what it should be
    and undoes what was learned before it has fallen.

    Args:
        corner: of a patch of each frame, cells (row, column) int64 [B, 2].
    """
    with unrecorded_statistics(network):
        field = network.backbone(frame)
    alike = likeness(cut(field, corner), field)
    # Rare responses are exponentials; those of a frame then add up to one.
    network.shift.copy_(-torch.logsumexp(network.gain * alike.flatten(1), dim=1).mean())


def peak(responses: Tensor) -> Tensor:
    """Row and column of the highest response [B, rows, columns]: int64 [B, 2]."""
    best = responses.flatten(1).argmax(dim=1)
    return torch.stack([best // responses.shape[2], best % responses.shape[2]], dim=1)


def random_corner(count: int, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Corners int64 [count, 2] of patches inside features of `grid` cells."""
    room = [cells - PATCH_CELLS + 1 for cells in grid]
    return torch.stack([torch.randint(0, n, (count,), generator=generator) for n in room], dim=1)


def there_and_back(
    network: Mug, images: list[Tensor], first: Tensor, corner: Tensor, patches: str = PATCHES[0]
) -> Tensor:
    """Response [B, rows, columns] in the first frame after tracking a patch to the last frame and back.

    Positions are peaks, which pass no gradient: only the last response trains the features, those of the first frame
    and those of the patch that is sought in it.

    Args:
        images: two or more frames in order, each [B, 3, H, W].
        first: features [B, C, H/4, W/4] of images[0].
        corner: where the patch starts, cells (row, column) int64 [B, 2].
        patches: one of `PATCHES`.
    """
    way = [*range(1, len(images)), *range(len(images) - 2, 0, -1)]
    with unrecorded_statistics(network):
        with torch.no_grad():
            fields = [first, *network.backbone(torch.cat(images[1:])).split(len(first))]

            def patch_at(place: int, where: Tensor) -> Tensor:
                if patches == "features":
                    return cut(fields[place], where)
                return network.backbone(cut(images[place], where, STRIDE))

            patch = patch_at(0, corner)
            for place in way:
                found = peak(response(network, patch, fields[place]))
                patch = patch_at(place, found)
        if patches == "features":
            # Once more with gradient: the frame that the last patch is cut out of.
            last = cut(network.backbone(images[1]), found)
        else:
            last = network.backbone(cut(images[1], found, STRIDE))
    return response(network, last, first)
