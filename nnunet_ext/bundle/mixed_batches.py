"""Mixup in MONAI's trainer: its inferer mixes the images or the maps, its loss the labels."""

from typing import Any

from monai.inferers import SimpleInferer
from torch import Tensor, nn

from ..training.mixup import Mixup


class MixupInferer(SimpleInferer):
    """Let the network see the mixture of a batch; for the trainer only.

    Args:
        mixup: Draws the mixture; as for `MixupLoss`.
    """

    def __init__(self, mixup: Mixup) -> None:
        super().__init__()
        self.mixup = mixup

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what the network makes of a batch.

        Args:
            inputs: Images (B, C, *S).
            network: The network that the mixture was made for.
            *args: Further arguments of the network.
            **kwargs: As above.
        """
        return super().__call__(self.mixup.begin(inputs), network, *args, **kwargs)


class MixupLoss(nn.Module):
    """Take a loss against the labels of both images of each pair.

    Args:
        loss: The loss, called as `loss(logits, label)`.
        mixup: The one of the `MixupInferer`.
    """

    def __init__(self, loss: nn.Module, mixup: Mixup) -> None:
        super().__init__()
        self.inner = loss
        self.mixup = mixup

    def forward(self, logits: Any, label: Tensor) -> Tensor:
        """Compute the loss of the batch that the inferer saw last."""
        return self.mixup.loss(self.inner, logits, label)
