"""The structure loss of SAM2-UNet: overlap and cross-entropy that weigh the neighbourhood of edges."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW = 31
"""Pixels of the window, along each axis, whose mean tells how near an edge is."""


class StructureLoss(nn.Module):
    """Weighted IoU plus weighted binary cross-entropy of each class against the rest, by the sigmoid of its logit.

    A pixel weighs 1 + 5 * |mean of the mask in a window of 31 pixels - mask|, 1 far from edges and up to 6 at them.
    Both terms are taken of each image and class, then averaged. Where a class is absent, the IoU term pushes its
    probabilities down, as 1 - 1 / (1 + their weighted sum).

    The background of exclusive labels is a class like the others: its logit must be trained, because predictions take
    the largest logit of all. Outside the image is background, so that the image's border is no edge.

    Args:
        background: Whether the first channel is the background, as of exclusive labels; regions have none.

    Shape:
        Logits and target (B, K, H, W), or (B, K, D, H, W) for volumes; `valid` (B, 1, H, W).

    Source:
        Wei et al. 2020, arXiv:1911.11445 (F3Net), as SAM2-UNet takes it (Xiong et al. 2024, arXiv:2408.08870), for one
        class. The released code loses the weight in its cross-entropy, which `reduce='none'` averages first.
    """

    def __init__(self, background: bool) -> None:
        super().__init__()
        self.background = background

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            logits: Raw logits; taken as float32, because sums over an image overflow half precision.
            target: Masks of the classes, 0 and 1.
            valid: Pixels that count, 0 and 1; None for all.

        Returns:
            Scalar, >= 0.
        """
        logits, target = logits.float(), target.float()
        weight = self._weights(target) if valid is None else self._weights(target) * valid
        axes = tuple(range(2, logits.ndim))
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        # a pixel weighs 1 or more: the limit only spares an image without valid pixels the division by 0
        entropy = (weight * entropy).sum(axes) / weight.sum(axes).clamp_min(1)
        probability = logits.sigmoid()
        intersection = (weight * probability * target).sum(axes)
        union = (weight * (probability + target)).sum(axes) - intersection
        return (entropy + 1 - (intersection + 1) / (union + 1)).mean()

    @torch.no_grad()
    def _weights(self, target: Tensor) -> Tensor:
        if self.background:  # as the mask of everything else, it is 0 outside the image too
            target = torch.cat([1 - target[:, :1], target[:, 1:]], dim=1)
        return 1 + 5 * (window_mean(target) - target).abs()


def window_mean(masks: Tensor) -> Tensor:
    """Return the mean in a window around each pixel, with zeros outside the image.

    Args:
        masks: Shape (B, K, H, W) or (B, K, D, H, W).

    Returns:
        Same shape; values in the range of the masks and 0.
    """
    mean = masks
    for axis in range(2, masks.ndim):  # one axis after the other: 31 additions each instead of 31 * 31 at once
        lines = mean.reshape(math.prod(masks.shape[:axis]), masks.shape[axis], -1)
        lines = F.avg_pool2d(lines, (WINDOW, 1), stride=1, padding=(WINDOW // 2, 0))
        mean = lines.view(masks.shape)
    return mean
