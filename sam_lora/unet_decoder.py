"""SAM2-UNet's decoder: receptive-field blocks and a small U-Net."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm(in_channels: int, out_channels: int, kernel: tuple[int, int], dilation: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the size, and batch normalisation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Height and width, odd.
        dilation: Step between the kernel's taps.
    """
    padding = (dilation * (kernel[0] // 2), dilation * (kernel[1] // 2))
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class ReceptiveFieldBlock(nn.Module):
    """Reduce a feature map to few channels and widen its view by four branches of growing dilation.

    As in the released networks there is no activation between the convolutions of a branch.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.

    Shape:
        Input (B, in_channels, H, W); output (B, out_channels, H, W).

    Source:
        Xiong et al. 2024, arXiv:2408.08870; Fan et al. 2020, arXiv:2006.11392 (PraNet), after Liu et al. 2018,
        arXiv:1711.07767.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_norm(in_channels, out_channels, (1, 1))])
        for width in (3, 5, 7):
            self.branches.append(
                nn.Sequential(
                    conv_norm(in_channels, out_channels, (1, 1)),
                    conv_norm(out_channels, out_channels, (1, width)),
                    conv_norm(out_channels, out_channels, (width, 1)),
                    conv_norm(out_channels, out_channels, (3, 3), dilation=width),
                )
            )
        self.join = conv_norm(4 * out_channels, out_channels, (3, 3))
        self.shortcut = conv_norm(in_channels, out_channels, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the reduced map."""
        wide = torch.cat([branch(x) for branch in self.branches], dim=1)
        return F.relu(self.join(wide) + self.shortcut(x))


class UpBlock(nn.Module):
    """Double a map's size (bilinear), join it with the encoder's map of that size, and convolve twice.

    Args:
        channels: Channels of both inputs and of the output.

    Shape:
        Inputs (B, channels, H, W) and (B, channels, 2 H, 2 W); output (B, channels, 2 H, 2 W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *conv_norm(2 * channels, channels, (3, 3)),
            nn.ReLU(inplace=True),
            *conv_norm(channels, channels, (3, 3)),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the joined map."""
        x = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=True)
        return self.convs(torch.cat([skip, x], dim=1))
