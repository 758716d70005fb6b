"""The loss of a training under nnU-Net, from its options and its data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.unannotated import UnannotatedLabels
from ..network_choice import network_class
from .losses import LOSSES, LossSetting, ResizedTarget
from .partial_labels import PartialLabelLoss


def build_loss(
    options: Any, setting: LossSetting, unannotated: UnannotatedLabels, num_outputs: int | None, compiles: bool
) -> nn.Module:
    """Return the loss, called with what the network returns and what nnU-Net's loader makes of the labels.

    Args:
        options: The `nnunet_ext.options.Options` of the training.
        setting: What is known of the data.
        unannotated: Labels that nobody has annotated, by case.
        num_outputs: Outputs of deep supervision, None without.
        compiles: Whether the network is compiled; the Dice is then too.
    """
    loss: Any = LOSSES[options.loss].build(setting)
    if compiles and hasattr(loss, "dc"):
        loss.dc = torch.compile(loss.dc)
    if unannotated:
        masks = unannotated.num_outputs + (setting.ignore_label is not None)
        channels = masks if setting.has_regions else 1
        loss = PartialLabelLoss(loss, unannotated.sets, unannotated.num_outputs, setting.has_regions, channels)
    if options.loss_resolution == "low":
        loss = ResizedTarget(loss)
    if num_outputs is None:
        return loss
    own = getattr(network_class(options.network), "deep_supervision_weights", None)
    # DDP without compile needs every parameter in the loss
    return deeply_supervised(loss, num_outputs, own, use_all=setting.ddp and not compiles)


def deeply_supervised(
    loss: nn.Module, num_outputs: int, weights: Sequence[float] | None = None, use_all: bool = False
) -> nn.Module:
    """Return the weighted mean of a loss over the outputs of deep supervision.

    Args:
        loss: The loss of one output, called as `loss(logits, target)`.
        num_outputs: Outputs of the network, finest first.
        weights: Their weights; None for nnU-Net's own: halved from one to the next, the coarsest of several left out.
        use_all: Whether nnU-Net's own give the coarsest a trace of weight, because every parameter must be in the loss.
    """
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

    shares = 0.5 ** np.arange(num_outputs) if weights is None else np.array(weights)
    if num_outputs > 1 and weights is None:
        shares[-1] = 1e-6 if use_all else 0
    return DeepSupervisionWrapper(loss, shares / shares.sum())
