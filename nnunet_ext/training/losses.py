"""The losses that `loss=` takes. A new one is one more entry of `LOSSES`.

Builders import nnU-Net when called, so that reading the table costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from .mask_losses import MASK_LOSSES, MaskSetting


@dataclass(frozen=True)
class LossSetting:
    """What a loss must know of the data and the run.

    Args:
        has_regions: Whether the classes are overlapping regions (sigmoid) instead of exclusive labels (softmax).
        ignore_label: The label that marks pixels without annotation, None if there is none.
        batch_dice: Whether Dice is taken over the batch as a whole, as the plans say.
        ddp: Whether several processes train together.
        weight: Weight of the second term of a compound beside the 1 of Dice.
    """

    has_regions: bool
    ignore_label: int | None
    batch_dice: bool
    ddp: bool
    weight: float = 1.0


@dataclass(frozen=True)
class LossChoice:
    """One loss: `build(setting)` returns a module called as `loss(logits, target)`; and one line of help."""

    build: Callable[[LossSetting], nn.Module]
    help: str


def _dice_and_cross_entropy(setting: LossSetting, dice_weight: float, entropy_weight: float) -> nn.Module:
    """Return nnU-Net's compound loss: it knows regions, the ignore label and DDP."""
    from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    dice = {
        "batch_dice": setting.batch_dice,
        "do_bg": setting.has_regions,
        "smooth": 1e-5,
        "ddp": setting.ddp,
    }
    weights = {"weight_ce": entropy_weight, "weight_dice": dice_weight, "dice_class": MemoryEfficientSoftDiceLoss}
    if setting.has_regions:
        return DC_and_BCE_loss({}, dice, use_ignore_label=setting.ignore_label is not None, **weights)
    loss = DC_and_CE_loss(dice, {}, ignore_label=setting.ignore_label, **weights)
    return loss if dice_weight or setting.ignore_label is None else AlwaysTensor(loss)


class AlwaysTensor(nn.Module):
    """Give nnU-Net's cross-entropy a gradient, of 0, also for a batch without any annotation: there it is the number 0.

    Args:
        loss: The loss, called as `loss(logits, target)`.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits (B, K, *S) and a target (B, 1, *S)."""
        value = self.loss(logits, target)
        return value if isinstance(value, Tensor) else 0 * logits.float().mean()


class ResizedTarget(nn.Module):
    """Give a loss its target in the size of the logits, by the nearest value.

    Args:
        loss: The loss, called as `loss(logits, target)`.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits (B, K, *S) and a target (B, C, *T)."""
        from ..data.resize import resize_labels

        return self.loss(logits, resize_labels(target, logits.shape[2:]))


class NnunetMaskLoss(nn.Module):
    """A loss on masks for nnU-Net's targets: label values or masks of regions, with or without ignored pixels.

    Args:
        setting: What is known of the data.
        loss: The loss, called as `loss(logits, masks, valid)`.
    """

    def __init__(self, setting: LossSetting, loss: nn.Module) -> None:
        super().__init__()
        self.setting = setting
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: Shape (B, K, *S).
            target: Label values (B, 1, *S), or masks of regions (B, K, *S), then of ignored pixels (B, 1, *S).
        """
        ignored = None
        if self.setting.has_regions:
            masks = target[:, : logits.shape[1]]
            if self.setting.ignore_label is not None:
                ignored = target[:, -1:].bool()
        else:
            label = target.long()
            if self.setting.ignore_label is not None:
                ignored = label == self.setting.ignore_label
                label = label.masked_fill(ignored, 0)
            masks = F.one_hot(label[:, 0], logits.shape[1]).movedim(-1, 1)
        return self.loss(logits, masks, None if ignored is None else ~ignored)


def _on_masks(name: str) -> LossChoice:
    """Return the choice of a loss on masks."""
    choice = MASK_LOSSES[name]

    def build(setting: LossSetting) -> nn.Module:
        return NnunetMaskLoss(
            setting, choice.build(MaskSetting(setting.has_regions, setting.batch_dice, setting.weight))
        )

    return LossChoice(build, choice.help)


LOSSES: dict[str, LossChoice] = {
    "dice_ce": LossChoice(
        lambda setting: _dice_and_cross_entropy(setting, 1, setting.weight),
        "soft Dice + loss_lambda * cross-entropy, nnU-Net's own",
    ),
    "samed": LossChoice(
        lambda setting: _dice_and_cross_entropy(setting, 0.8, 0.2), "0.8 soft Dice + 0.2 cross-entropy, SAMed's own"
    ),
    "ce": LossChoice(lambda setting: _dice_and_cross_entropy(setting, 0, 1), "cross-entropy alone"),
    "dice": LossChoice(lambda setting: _dice_and_cross_entropy(setting, 1, 0), "soft Dice alone"),
    **{name: _on_masks(name) for name in MASK_LOSSES},
}
