"""Training losses on label maps, for labels and for regions."""

import torch
from monai.losses import DiceLoss
from torch import nn
from torch.nn import functional as F

from ..data.label_map import LabelMap
from ..data.resize import resize_labels
from ..data.unannotated import UnannotatedLabels
from ..errors import OptionError
from ..training.mask_losses import MASK_LOSSES, MaskSetting
from ..training.partial_labels import PartialLabelLoss


class SegmentationLoss(nn.Module):
    """Dice and cross-entropy, with softmax for exclusive labels and sigmoid for regions.

    Args:
        label_map: Labels of the data set.
        lambda_dice: Weight of the Dice loss.
        lambda_ce: Weight of the cross-entropy.
        batch: Whether Dice sums over the batch before it divides; with single slices, many of which lack
            most labels, the per-slice ratio is noise.

    Source:
        Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (sum of batch Dice and cross-entropy).
    """

    def __init__(
        self, label_map: LabelMap, lambda_dice: float = 1.0, lambda_ce: float = 1.0, batch: bool = True
    ) -> None:
        super().__init__()
        self.label_map = label_map
        self.lambda_dice = lambda_dice
        self.lambda_ce = lambda_ce
        regions = label_map.has_regions
        self.dice = DiceLoss(
            include_background=regions, sigmoid=regions, softmax=not regions, to_onehot_y=not regions, batch=batch
        )

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            logits: Shape (B, K, H, W).
            label: Label values, shape (B, 1, H', W'); where the size differs, the nearest value is taken.

        Returns:
            Scalar; logits are taken as float32, because Dice sums overflow half precision.
        """
        logits = logits.float()
        label = resize_labels(label, logits.shape[2:])
        # not MONAI's DiceCELoss: its cross-entropy is a softmax over the regions, although they overlap
        if self.label_map.has_regions:
            target = self.label_map.encode(label)
            cross_entropy = F.binary_cross_entropy_with_logits(logits, target)
        else:
            target = label
            cross_entropy = F.cross_entropy(logits, label[:, 0].long())
        return self.lambda_dice * self.dice(logits, target) + self.lambda_ce * cross_entropy


class MaskLabelLoss(nn.Module):
    """A loss on masks for label maps, see `nnunet_ext.training.mask_losses`.

    Args:
        label_map: Labels of the data set.
        name: Key of `MASK_LOSSES`.
        weight: Weight of the second term, where it has two.
    """

    def __init__(self, label_map: LabelMap, name: str, weight: float = 1.0) -> None:
        super().__init__()
        self.label_map = label_map
        self.loss = MASK_LOSSES[name].build(MaskSetting(label_map.has_regions, weight=weight))

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Compute the loss; arguments and result as of `SegmentationLoss`."""
        label = resize_labels(label, logits.shape[2:])
        return self.loss(logits, self.label_map.encode(label))


COMPOUNDS = {"dice_ce": (1.0, None), "samed": (0.8, 0.2), "ce": (0.0, 1.0), "dice": (1.0, 0.0)}
"""Weights of Dice and of cross-entropy; None stands for the option `loss_lambda`."""

LOSSES = (*COMPOUNDS, *MASK_LOSSES)


def make_loss(
    name: str, label_map: LabelMap, weight: float = 1.0, unannotated: UnannotatedLabels | None = None
) -> nn.Module:
    """Return a training loss by the name that nnU-Net's `loss=` has for it.

    Args:
        name: One of `LOSSES`.
        label_map: Labels of the data set.
        weight: Weight of the second term of `dice_ce`, `dice_focal` and `bce_dice` beside the 1 of Dice, >= 0.
        unannotated: Labels that nobody has annotated, by case: the loss leaves them out.

    Raises:
        OptionError: If there is no such loss, or the weight is negative.
    """
    if name not in LOSSES:
        raise OptionError(f"loss_name must be one of {', '.join(LOSSES)}, got {name!r}")
    if not weight >= 0:
        raise OptionError(f"loss_lambda must be a number >= 0, got {weight}")
    loss: nn.Module
    if name in MASK_LOSSES:
        loss = MaskLabelLoss(label_map, name, weight)
    else:
        dice, entropy = COMPOUNDS[name]
        loss = SegmentationLoss(label_map, dice, weight if entropy is None else entropy)
    if not unannotated:
        return loss
    regions = label_map.has_regions
    encode = label_map.encode if regions else None
    return PartialLabelLoss(loss, unannotated.sets, label_map.num_outputs, regions, encode=encode)


def is_low(loss_resolution: str) -> bool:
    """Return whether the loss is taken on logits as large as the network makes them.

    Args:
        loss_resolution: `full` or `low`.

    Raises:
        OptionError: If it is neither.
    """
    if loss_resolution not in ("full", "low"):
        raise OptionError(f"loss_resolution must be full or low, got {loss_resolution!r}")
    return loss_resolution == "low"
