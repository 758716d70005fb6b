"""Run a 2D network over the slices of a volume."""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

from ..data.resize import resize_slices


class ResizedSliceInferer(Inferer):
    """Stretch each slice to the network's canvas, predict, and stretch the logits back.

    Args:
        image_size: Canvas (H, W) in pixels.
        batch_size: Slices predicted at once.
        output_device: Where the logits of the whole volume are kept, such as "cpu" to spare a GPU's memory;
            None keeps them where the input lies.
    """

    def __init__(
        self, image_size: tuple[int, int], batch_size: int = 16, output_device: str | torch.device | None = None
    ) -> None:
        super().__init__()
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.batch_size = batch_size
        self.output_device = output_device

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Predict volumes.

        Args:
            inputs: Normalised images, shape (B, C, D, H, W); D counts slices.
            network: 2D network, (N, C, h, w) -> (N, K, h, w).
            *args: Passed to the network.
            **kwargs: Passed to the network.

        Returns:
            Raw logits, float32, shape (B, K, D, H, W).
        """
        batch, channels, depth, height, width = inputs.shape
        device = inputs.device if self.output_device is None else torch.device(self.output_device)
        slices = inputs.movedim(2, 1).reshape(batch * depth, channels, height, width)
        logits: torch.Tensor | None = None
        for start in range(0, batch * depth, self.batch_size):
            part = resize_slices(slices[start : start + self.batch_size], self.image_size)
            output = network(part, *args, **kwargs)
            output = output[0] if isinstance(output, list) else output  # deep supervision: the finest comes first
            predicted = resize_slices(output.float(), (height, width))
            if logits is None:
                logits = predicted.new_empty((batch * depth, *predicted.shape[1:]), device=device)
            logits[start : start + len(part)] = predicted
        assert logits is not None
        return logits.reshape(batch, depth, -1, height, width).movedim(1, 2)
