"""Keep the gradients of a step in bounds."""

from collections.abc import Sequence

import torch
from torch import nn


def tame_gradients(parameters: Sequence[nn.Parameter], max_norm: float, drop_not_finite: bool = True) -> None:
    """Clip gradients; drop them where a batch, such as one of blank patches, has made them not finite.

    Args:
        parameters: What the optimiser steps.
        max_norm: Largest norm of all their gradients together.
        drop_not_finite: Whether to set gradients to 0 if their norm is not finite, without asking the device.
    """
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    if not drop_not_finite:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = torch.where(norm.isfinite(), parameter.grad, torch.zeros_like(parameter.grad))
