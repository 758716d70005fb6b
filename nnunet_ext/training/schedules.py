"""The learning-rate schedules that `schedule=` takes. A new one is one more entry of `SCHEDULES`.

A schedule maps the progress of the training, in [0, 1), to a factor on the learning rate.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch.optim import Optimizer

STEP_FACTOR, STEPS_AT = 0.1, (0.5, 0.75)
NUM_CYCLES, CYCLE_LOWEST = 4, 0.1
PLATEAU_FACTOR = 0.2


@dataclass(frozen=True)
class ScheduleChoice:
    """One schedule: its factor on the learning rate by progress in [0, 1), and one line of help."""

    factor: Callable[[float], float]
    help: str


SCHEDULES: dict[str, ScheduleChoice] = {
    "poly": ScheduleChoice(lambda progress: (1 - progress) ** 0.9, "(1 - progress)^0.9, nnU-Net's own"),
    "cosine": ScheduleChoice(lambda progress: 0.5 * (1 + math.cos(math.pi * progress)), "half a cosine, from 1 to 0"),
    "constant": ScheduleChoice(lambda progress: 1.0, "the same learning rate throughout"),
    "step": ScheduleChoice(
        lambda progress: STEP_FACTOR ** sum(progress >= at for at in STEPS_AT), "a tenth at half of it, again at 3/4"
    ),
    "cyclic": ScheduleChoice(
        lambda progress: 1 - (1 - CYCLE_LOWEST) * (1 - abs(1 - 2 * (progress * NUM_CYCLES % 1))),
        f"{NUM_CYCLES} triangles, from 1 down to {CYCLE_LOWEST:g} and up again",
    ),
    "plateau": ScheduleChoice(
        lambda progress: 1.0, f"times {PLATEAU_FACTOR:g} where validation got no better for plateau_patience"
    ),
}


def plateau_factor(scores: Iterable[float], patience: int) -> float:
    """Return the factor on the learning rate after some validations.

    It depends on the scores alone, so a resumed training that knows them goes on as it would have.

    Args:
        scores: Scores of all validations so far, higher is better; nan is no gain.
        patience: Validations without a better score that lower the learning rate, >= 1.

    Source:
        Isensee et al. 2018, arXiv:1809.10486: times 0.2 after 30 epochs without gain.
    """
    best, waited, factor = -math.inf, 0, 1.0
    for score in scores:
        best, waited = (score, 0) if score > best else (best, waited + 1)
        if waited >= patience:
            factor, waited = factor * PLATEAU_FACTOR, 0
    return factor


class EpochSchedule:
    """Set each parameter group's learning rate from the number of the epoch alone.

    nnU-Net calls `step(epoch)` at the start of every epoch, also of the first one after `--c`, so the schedule
    needs no state. Each group keeps its own base learning rate.

    Args:
        optimizer: Its groups' learning rates at this moment are the base values.
        factor: See `ScheduleChoice`.
        epochs: Length of the training, >= 1.
        warmup_epochs: Epochs, < `epochs`, of linear warm-up before the schedule proper.
        plateau: Returns a further factor at the start of an epoch, see `plateau_factor`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: Callable[[float], float],
        epochs: int,
        warmup_epochs: int = 0,
        plateau: Callable[[], float] | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.factor = factor
        self.epochs = epochs
        self.warmup_epochs = warmup_epochs
        self.plateau = plateau or (lambda: 1.0)

    def factor_at(self, epoch: int) -> float:
        """Return the factor on the learning rate in an epoch, counted from 0."""
        if epoch < self.warmup_epochs:
            return (epoch + 1) / (self.warmup_epochs + 1)
        return self.factor((epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs))

    def step(self, epoch: int) -> None:
        """Set the learning rates of an epoch, counted from 0."""
        factor = self.factor_at(epoch) * self.plateau()
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base_lr * factor
