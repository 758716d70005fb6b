"""Several batches make one step of the optimiser."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


class Accumulation:
    """Add up the gradients of several batches, and step after the last of them and after the last of the epoch.

    A batch counts 1 / `group`, also in the smaller group at the end of an epoch, as in MONAI's trainer.

    Args:
        group: Batches that make a step, >= 1.
        batches: Batches of an epoch.
    """

    def __init__(self, group: int, batches: int) -> None:
        self.group = group
        self.batches = batches
        self.position = 0

    def restart(self) -> None:
        """Begin an epoch."""
        self.position = 0

    def begin(self, optimizer: Optimizer) -> None:
        """Forget the gradients of the last step, if a group begins."""
        if self.position % self.group == 0:
            optimizer.zero_grad(set_to_none=True)

    def finish(self, loss: Tensor, optimizer: Optimizer, scaler: Any = None) -> None:
        """Add the gradients of a batch, and step if a group ends.

        Args:
            loss: Scalar loss of the batch.
            optimizer: The optimiser; what clips the gradients is a hook of its step.
            scaler: Gradient scaler of mixed precision, None without.
        """
        self.position += 1
        ends = self.position % self.group == 0 or self.position == self.batches
        loss = loss / self.group
        if scaler is None:
            loss.backward()
            if ends:
                optimizer.step()
            return
        scaler.scale(loss).backward()
        if ends:
            scaler.step(optimizer)
            scaler.update()


def to_device(target: Any, device: Any) -> Any:
    """Return a target, or the list of targets of deep supervision, on a device."""
    if isinstance(target, list):
        return [one.to(device, non_blocking=True) for one in target]
    return target.to(device, non_blocking=True)
