"""The 3D U-Net of Models Genesis, which its self-supervised weights fit."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._weights import LoadReport, load_weights


class GenesisUNet3D(nn.Module):
    """Segment or restore volumes with the 3D U-Net of Models Genesis.

    Any size is taken: inside, the volume is continued at its far borders (edge value repeated) up to multiples of 8,
    and the output is cropped back. Batch normalisation uses its running statistics at inference, so that the logits of
    a volume don't depend on its batch mates; in the original they do.

    Args:
        in_channels: Channels of the input, >= 1.
        num_classes: Classes K including background, or channels to restore, >= 1.
        base_channels: Channels of the first convolution, an even number >= 2; released weights have 32.

    Shape:
        Input (B, in_channels, D, H, W), float; output (B, num_classes, D, H, W), raw logits.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Zhou et al. 2021, Models Genesis, Medical Image Analysis 67 (arXiv:2004.07882), written from the paper.
        19,073,665 parameters at 1 -> 1 channels.
    """

    spatial_dims = (3,)
    # without an annotation, which would make it a constant to TorchScript
    training_defaults = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-4}  # noqa: RUF012
    small_options = {"base_channels": 4}  # noqa: RUF012
    released_weights = ("Genesis_Chest_CT.pt",)
    encoder_names = ("down_tr64.", "down_tr128.", "down_tr256.", "down_tr512.")
    head_names = ("out_tr.",)
    last_layers = ("out_tr.final_conv",)
    mixing_points = {  # noqa: RUF012
        "down_tr64": ("down_tr64",),
        "down_tr128": ("down_tr128", "up_tr64(1)"),
        "down_tr256": ("down_tr256", "up_tr128(1)", "up_tr64(1)"),
        "down_tr512": ("down_tr512", "up_tr256(1)", "up_tr128(1)", "up_tr64(1)"),
    }

    def __init__(self, in_channels: int, num_classes: int, *, base_channels: int = 32) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("num_classes", num_classes)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value}")
        if not isinstance(base_channels, int) or base_channels < 2 or base_channels % 2:
            raise ValueError(f"base_channels must be an even number >= 2, got {base_channels}")
        c = base_channels
        # The names are those of the released weights; their numbers are the channels at base_channels=32.
        self.down_tr64 = _Down(in_channels, c, 2 * c)
        self.down_tr128 = _Down(2 * c, 2 * c, 4 * c)
        self.down_tr256 = _Down(4 * c, 4 * c, 8 * c)
        self.down_tr512 = _Down(8 * c, 8 * c, 16 * c)
        self.up_tr256 = _Up(16 * c, skipped=8 * c, out_channels=8 * c)
        self.up_tr128 = _Up(8 * c, skipped=4 * c, out_channels=4 * c)
        self.up_tr64 = _Up(4 * c, skipped=2 * c, out_channels=2 * c)
        self.out_tr = _Out(2 * c, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the raw logits, shape (B, K, D, H, W), of volumes of shape (B, C, D, H, W)."""
        depth, height, width = x.shape[-3], x.shape[-2], x.shape[-1]
        full = self.down_tr64(_continue_border(x))
        half = self.down_tr128(F.max_pool3d(full, 2))
        quarter = self.down_tr256(F.max_pool3d(half, 2))
        eighth = self.down_tr512(F.max_pool3d(quarter, 2))
        up = self.up_tr256(eighth, quarter)
        up = self.up_tr128(up, half)
        up = self.up_tr64(up, full)
        return self.out_tr(up)[..., :depth, :height, :width].contiguous()

    @torch.jit.unused
    def load_pretrained(self, file: str | Path, parts: str = "all") -> LoadReport:
        """Start from the weights of a file; the last layer stays fresh.

        Args:
            file: The authors' `Genesis_Chest_CT.pt`, or a model of our own pre-training.
            parts: `all`: encoder and decoder; `encoder`: that alone.

        Returns:
            What was loaded, adapted to the number of input channels, left fresh, and not expected.

        Raises:
            ValueError: If the file can't be read, lacks a wanted entry or has it in another shape.
        """
        return load_weights(self, file, encoder=self.encoder_names, head=self.head_names, parts=parts)


class _ConvNorm(nn.Module):
    """3 x 3 x 3 convolution, batch normalisation, ReLU; the size stays."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.bn1 = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)))


class _Down(nn.Module):
    """Two convolutions of the encoder: (B, in, *S) -> (B, out, *S)."""

    def __init__(self, in_channels: int, middle: int, out_channels: int) -> None:
        super().__init__()
        self.ops = nn.Sequential(_ConvNorm(in_channels, middle), _ConvNorm(middle, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.ops(x)


class _Up(nn.Module):
    """Double the size, join the encoder's map of that size, convolve twice: (B, in, *S) -> (B, out, *2S)."""

    def __init__(self, in_channels: int, skipped: int, out_channels: int) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose3d(in_channels, in_channels, 2, stride=2)
        self.ops = nn.Sequential(_ConvNorm(in_channels + skipped, out_channels), _ConvNorm(out_channels, out_channels))

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        return self.ops(torch.cat([self.up_conv(x), skipped], dim=1))


class _Out(nn.Module):
    """Logits from the last map: (B, in, *S) -> (B, K, *S)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.final_conv = nn.Conv3d(in_channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.final_conv(x)


def _continue_border(x: Tensor) -> Tensor:
    """Repeat the far borders up to multiples of 8, one side up to 16.

    At 8 x 8 x 8 the deepest map is a single voxel, where batch statistics of one volume are undefined.
    """
    missing = [-x.shape[-1] % 8, -x.shape[-2] % 8, -x.shape[-3] % 8]
    if max(x.shape[-1], x.shape[-2], x.shape[-3]) <= 8:
        missing[0] += 8
    if sum(missing) == 0:
        return x
    return F.pad(x, [0, missing[0], 0, missing[1], 0, missing[2]], mode="replicate")
