"""The learning-rate schedules that `schedule=` takes. A new one is one more entry of `SCHEDULES`.

A schedule maps the progress of the training, in [0, 1), to a factor on the learning rate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer


@dataclass(frozen=True)
class ScheduleChoice:
    """One schedule: its factor on the learning rate by progress in [0, 1), and one line of help."""

    factor: Callable[[float], float]
    help: str


SCHEDULES: dict[str, ScheduleChoice] = {
    "poly": ScheduleChoice(lambda progress: (1 - progress) ** 0.9, "(1 - progress)^0.9, nnU-Net's own"),
    "cosine": ScheduleChoice(lambda progress: 0.5 * (1 + math.cos(math.pi * progress)), "half a cosine, from 1 to 0"),
    "constant": ScheduleChoice(lambda progress: 1.0, "the same learning rate throughout"),
}


class EpochSchedule:
    """Set each parameter group's learning rate from the number of the epoch alone.

    nnU-Net calls `step(epoch)` at the start of every epoch, also of the first one after `--c`, so the schedule
    needs no state. Each group keeps its own base learning rate.

    Args:
        optimizer: Its groups' learning rates at this moment are the base values.
        factor: See `ScheduleChoice`.
        epochs: Length of the training, >= 1.
        warmup_epochs: Epochs, < `epochs`, of linear warm-up before the schedule proper.
    """

    def __init__(
        self, optimizer: Optimizer, factor: Callable[[float], float], epochs: int, warmup_epochs: int = 0
    ) -> None:
        self.optimizer = optimizer
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.factor = factor
        self.epochs = epochs
        self.warmup_epochs = warmup_epochs

    def factor_at(self, epoch: int) -> float:
        """Return the factor on the learning rate in an epoch, counted from 0."""
        if epoch < self.warmup_epochs:
            return (epoch + 1) / (self.warmup_epochs + 1)
        return self.factor((epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs))

    def step(self, epoch: int) -> None:
        """Set the learning rates of an epoch, counted from 0."""
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base_lr * self.factor_at(epoch)
