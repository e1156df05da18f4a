"""torchvision's Mask R-CNN R50-FPN as a class-agnostic proposal network: every object, no names, no suppression.

He et al., Mask R-CNN (2017), in the way Du, Xiao and Lepetit (2021) use it: trained without classes, and asked for
many overlapping masks with their scores. Networks with classes give their best class's box, mask and score.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.errors import ModelError, UsageError
from export.third_party.torchvision_ops import import_torchvision

STRIDE = 32
"""The coarsest level of the feature pyramid but one; sizes are multiples, so that nothing needs padding."""


class Proposals(nn.Module):
    """A torchvision Mask R-CNN on one picture of fixed size, its best `count` boxes with their masks.

    Instead of suppression and a score threshold: one detection per region, of its most probable class.

    Args:
        network: torchvision's MaskRCNN, in evaluation mode.
        size: (h, w) of the picture.
        count: detections at most.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int], count: int) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.count = count
        transform = network.transform
        self.register_buffer("mean", torch.tensor(transform.image_mean).reshape(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(transform.image_std).reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes [n, 4] in pixels, labels [n], scores [n] in descending order, masks [n, 1, 28, 28] probabilities.

        Args:
            image: float32 [1, 3, h, w] RGB in 0 ... 1.
        """
        torchvision = import_torchvision()
        heads, sizes = self.network.roi_heads, [self.size]
        normal = (image - self.mean) / self.deviation
        features = self.network.backbone(normal)
        images = torchvision.models.detection.image_list.ImageList(normal, sizes)
        regions, _ = self.network.rpn(images, features)
        seen = heads.box_head(heads.box_roi_pool(features, regions, sizes))
        logits, regression = heads.box_predictor(seen)
        best, label = logits.softmax(-1)[:, 1:].max(1)
        scores, order = best.sort(descending=True)
        scores, order = scores[: self.count], order[: self.count]
        labels = label[order] + 1
        boxes = heads.box_coder.decode(regression, regions)[order]
        boxes = boxes.gather(1, labels[:, None, None].expand(-1, 1, 4))[:, 0]
        boxes = torchvision.ops.boxes.clip_boxes_to_image(boxes, self.size)
        masks = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, [boxes], sizes)))
        side = masks.shape[-1]
        masks = masks.gather(1, labels[:, None, None, None].expand(-1, 1, side, side)).sigmoid()
        return boxes, labels, scores, masks


def build(weights: Path | None, size: tuple[int, int], count: int, regions: int = 1000, seed: int = 0) -> Proposals:
    """The network, of a file of weights or of random ones.

    Args:
        weights: a state dictionary of torchvision's `maskrcnn_resnet50_fpn`, or a checkpoint with one under
            "model"; how many classes it has follows from it. None: random weights, two classes.
        size: (h, w) of the picture, multiples of 32.
        count: detections at most.
        regions: regions looked at, before and after suppression among them.

    Raises:
        UsageError: a size that does not fit.
        ModelError: torchvision is not there, or the weights do not fit.
    """
    if any(n % STRIDE or n < 2 * STRIDE for n in size):
        raise UsageError(f"--size {size[0]}x{size[1]}: multiples of {STRIDE} are needed, at least {2 * STRIDE}")
    import_torchvision()
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    state = None if weights is None else _state(weights)
    classes = 2 if state is None else len(state["roi_heads.box_predictor.cls_score.weight"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = maskrcnn_resnet50_fpn(
            weights=None,
            weights_backbone=None,
            num_classes=classes,
            min_size=min(size),
            max_size=max(size),
            rpn_pre_nms_top_n_test=regions,
            rpn_post_nms_top_n_test=regions,
            box_detections_per_img=count,
            box_score_thresh=0.0,
            box_nms_thresh=1.0,
        )
    if state is None:
        _calm(network)
    else:
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise ModelError(f"weights {weights}: {' '.join(str(error).split())[:160]}") from None
    return Proposals(network.eval(), size, count).eval()


def _calm(network: nn.Module) -> None:
    """Weaken the residual branches, for with random weights each block would double its input."""
    with torch.no_grad():
        for name, layer in network.backbone.named_modules():
            if name.endswith("bn3"):
                layer.weight.fill_(0.2)


def _state(weights: Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and file errors alike
        raise ModelError(f"weights {weights}: not a readable file ({' '.join(str(error).split())[:120]})") from None
    state = state.get("model", state) if isinstance(state, Mapping) else {}
    if "roi_heads.box_predictor.cls_score.weight" not in state:
        raise ModelError(f"weights {weights}: no state dictionary of torchvision's maskrcnn_resnet50_fpn")
    return state
