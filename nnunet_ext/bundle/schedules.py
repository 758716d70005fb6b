"""Courses of the learning rate by iteration."""

from collections.abc import Callable

from ..training.schedules import SCHEDULES


def warmup_schedule(name: str, warmup: int, total: int) -> Callable[[int], float]:
    """Return what `torch.optim.lr_scheduler.LambdaLR` multiplies the learning rate by.

    Args:
        name: One of `nnunet_ext.training.schedules.SCHEDULES`: poly, cosine or constant.
        warmup: Iterations of linear warm-up before it.
        total: Iterations of the training, warm-up included.

    Raises:
        ValueError: If there is no such schedule.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")
    factor = SCHEDULES[name].factor

    def at(iteration: int) -> float:
        if iteration < warmup:
            return (iteration + 1) / (warmup + 1)
        return factor(min(1.0, (iteration - warmup) / max(1, total - warmup)))

    return at
