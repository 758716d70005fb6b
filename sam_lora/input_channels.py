"""From the channels of medical images to the three that SAM was trained on."""

import torch
from torch import Tensor, nn


class InputChannels(nn.Module):
    """Give three channels: one is repeated, three pass, others go through a learned 1 x 1 convolution.

    The convolution starts as the mean of the channels.

    Args:
        in_channels: Channels of the input, >= 1.

    Shape:
        Input (B, in_channels, H, W); output (B, 3, H, W).

    Raises:
        ValueError: If `in_channels` is less than 1.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be >= 1, got {in_channels}")
        self.in_channels = in_channels
        self.mix = None if in_channels in (1, 3) else nn.Conv2d(in_channels, 3, 1)
        if self.mix is not None and self.mix.bias is not None:
            nn.init.constant_(self.mix.weight, 1 / in_channels)
            nn.init.zeros_(self.mix.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return images of three channels.

        Raises:
            ValueError: If the input has another number of channels than announced.
        """
        if x.shape[1] != self.in_channels and not torch.jit.is_tracing():
            raise ValueError(f"image must have {self.in_channels} channels, got {x.shape[1]}")
        if self.mix is not None:
            return self.mix(x)
        return x.expand(-1, 3, -1, -1)
