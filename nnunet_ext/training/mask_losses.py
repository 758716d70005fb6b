"""Losses on masks, by name: the one definition of what `loss=` and the bundles' `loss_name` have beyond nnU-Net's own.

Each is called as `loss(logits, masks, valid)`: logits (B, K, *S), masks of the classes (B, K, *S), 0 and 1, and pixels
that count (B, 1, *S), None for all. A new one is one more entry of `MASK_LOSSES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .structure_loss import StructureLoss

TVERSKY_ALPHA, TVERSKY_BETA = 0.3, 0.7
"""Weights of false positives and false negatives, as Salehi et al. 2017 (arXiv:1706.05721) found best."""


@dataclass(frozen=True)
class MaskSetting:
    """What a loss must know of the data and the run.

    Args:
        has_regions: Whether the classes are overlapping regions (sigmoid) instead of exclusive labels (softmax).
        batch: Whether overlaps are summed over the batch before they are divided.
        weight: Weight of the second term of a compound beside the 1 of Dice.
    """

    has_regions: bool
    batch: bool = True
    weight: float = 1.0


class OverlapLoss(nn.Module):
    """An overlap loss of MONAI on probabilities, in which pixels that do not count are empty everywhere.

    Args:
        setting: The background of exclusive labels is left out, regions have none.
        loss: MONAI's loss class.
        **options: Its options.
    """

    def __init__(self, setting: MaskSetting, loss: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.has_regions = setting.has_regions
        self.loss = loss(include_background=setting.has_regions, batch=setting.batch, **options)

    def forward(self, logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the loss; logits are taken as float32, because sums over an image overflow half precision."""
        logits, masks = logits.float(), masks.float()
        probabilities = logits.sigmoid() if self.has_regions else logits.softmax(dim=1)
        if valid is not None:
            probabilities, masks = probabilities * valid, masks * valid
        return self.loss(probabilities, masks)


class PixelLoss(nn.Module):
    """Cross-entropy of each pixel, averaged over those that count; easy ones count less where it is focal.

    Args:
        sigmoid: Whether each class is told apart from the rest, instead of one class from all others.
        gamma: Exponent of the focal factor (1 - p)^gamma of the probability p of what is right; 0: cross-entropy.

    Source:
        Lin et al. 2017, arXiv:1708.02002, equation 4.
    """

    def __init__(self, sigmoid: bool, gamma: float = 0.0) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        self.gamma = gamma

    def forward(self, logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the loss; logits are taken as float32."""
        logits, masks = logits.float(), masks.float()
        if self.sigmoid:
            entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
        else:
            entropy = -(masks * logits.log_softmax(dim=1)).sum(dim=1, keepdim=True)
        if self.gamma:
            entropy = entropy * (-torch.expm1(-entropy)) ** self.gamma  # the probability of what is right is e^-entropy
        if valid is None:
            return entropy.mean()
        return (entropy * valid).sum() / (valid.sum() * entropy.shape[1]).clamp_min(1)


class WeightedSum(nn.Module):
    """One loss plus another with a weight.

    Args:
        first: Counts once.
        second: Counts `weight` times.
        weight: Weight of the second, >= 0.
    """

    def __init__(self, first: nn.Module, second: nn.Module, weight: float) -> None:
        super().__init__()
        self.first, self.second, self.weight = first, second, weight

    def forward(self, logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the sum."""
        return self.first(logits, masks, valid) + self.weight * self.second(logits, masks, valid)


def _dice(setting: MaskSetting) -> nn.Module:
    from monai.losses import DiceLoss

    return OverlapLoss(setting, DiceLoss)


def _generalized_dice(setting: MaskSetting) -> nn.Module:
    from monai.losses import GeneralizedDiceLoss

    return OverlapLoss(setting, GeneralizedDiceLoss)


def _tversky(setting: MaskSetting) -> nn.Module:
    from monai.losses import TverskyLoss

    return OverlapLoss(setting, TverskyLoss, alpha=TVERSKY_ALPHA, beta=TVERSKY_BETA)


def _focal(setting: MaskSetting) -> nn.Module:
    return PixelLoss(setting.has_regions, gamma=2.0)


@dataclass(frozen=True)
class MaskLossChoice:
    """One loss: `build(setting)` returns a module called as `loss(logits, masks, valid)`; and one line of help."""

    build: Callable[[MaskSetting], nn.Module]
    help: str


MASK_LOSSES: dict[str, MaskLossChoice] = {
    "generalized_dice": MaskLossChoice(_generalized_dice, "soft Dice of all labels at once, small ones weighted up"),
    "tversky": MaskLossChoice(
        _tversky, f"soft Tversky index: misses weigh {TVERSKY_BETA}, false alarms {TVERSKY_ALPHA}"
    ),
    "focal": MaskLossChoice(_focal, "focal cross-entropy, gamma 2"),
    "dice_focal": MaskLossChoice(
        lambda setting: WeightedSum(_dice(setting), _focal(setting), setting.weight),
        "soft Dice + loss_lambda * focal cross-entropy",
    ),
    "bce_dice": MaskLossChoice(
        lambda setting: WeightedSum(_dice(setting), PixelLoss(sigmoid=True), setting.weight),
        "soft Dice + loss_lambda * binary cross-entropy of each class",
    ),
    "structure": MaskLossChoice(
        lambda setting: StructureLoss(background=not setting.has_regions),
        "IoU + binary cross-entropy that weigh edges, SAM2-UNet's own",
    ),
}
