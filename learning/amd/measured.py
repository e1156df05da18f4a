"""Flow by dense inverse search, as the engine has it too: not learned, no label; told beside the paper's loss."""

import cv2
import numpy as np
import torch
from torch import Tensor


def measured_flow(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Flow from `first` to `second` and back, [B, 2, H, W] in pixels each, on the device of the pictures.

    Args:
        first, second: [B, 3, H, W] in [0, 1].
    """
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    # Half the size is finer than the grid of the segments.
    search.setFinestScale(1)
    search.setVariationalRefinementIterations(5)
    ways: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for a, b in zip(_grey(first), _grey(second), strict=True):
        for way, pair in zip(ways, ((a, b), (b, a)), strict=True):
            way.append(search.calc(*pair, None))
    there, back = (torch.from_numpy(np.stack(way)).permute(0, 3, 1, 2).to(first.device) for way in ways)
    return there, back


def _grey(images: Tensor) -> np.ndarray:
    grey = (images.mean(dim=1) * 255).round().clamp(0, 255)
    return np.ascontiguousarray(grey.to(torch.uint8).cpu().numpy())
