"""ENet: a small and fast 2D encoder-decoder of bottleneck blocks, unpooling where the encoder's maxima stood."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_DECODER_SLOPE = 0.25
"""Slope of the decoder's activations for negative values: with plain ReLU, which ends each residual branch too, a
decoder block can only add, and small foregrounds stay at Dice 0 for a thousand steps."""


class ENet(nn.Module):
    """Segment 2D images with ENet.

    Any height and width is taken: inside, the image is continued at its bottom and right border (edge value
    repeated) up to a multiple of 8, and to 16 at least; the logits are cropped back.

    Args:
        in_channels: Channels of the input, >= 1.
        num_classes: Classes K including background, >= 1.
        dropout: Spatial dropout rates, each in [0, 1): of the first encoder stage, and of everything after it.
        skip: Build the wider variant: each decoder stage also sees the encoder's map of its resolution, and the last
            transposed convolution gives way to bilinear upsampling, two 3 x 3 convolution blocks and a 1 x 1
            convolution; 398,203 parameters at 1 -> 5 channels. Not part of the paper.
        input_scale: Factor >= 1 by which the input is enlarged (bilinear) before the network, and the logits reduced
            after it. The network divides by 8: small images (about 50 pixels) gain from 2 to 4.

    Exports: `torch.jit.script` gives equal logits to the bit. `torch.onnx.export(..., dynamo=True)` works with a free
    batch size for any fixed height and width, and with a free height and width if declared as multiples of 8
    (`8 * torch.export.Dim("h", min=2)`).

    Shape:
        Input (B, in_channels, H, W), float; output (B, num_classes, H, W), raw logits.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Paszke et al. 2016, arXiv:1606.02147, table 1 and figure 2. 349,644 parameters at 3 -> 5 channels, with one
        slope for each PReLU and an activation at the end of the residual branch as well as after the sum. The
        decoder's activations have a fixed slope (leaky ReLU, 0.25), where other implementations have ReLU.
    """

    spatial_dims = (2,)
    last_layers = ("classifier",)
    # without an annotation, which would make it a constant to TorchScript
    training_defaults = {"optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 2e-4}  # noqa: RUF012

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dropout: tuple[float, float] = (0.01, 0.1),
        skip: bool = False,
        input_scale: float = 1.0,
    ) -> None:
        super().__init__()
        _check_arguments(in_channels, num_classes, dropout, input_scale)
        self.skip = bool(skip)
        self.input_scale = float(input_scale)
        early, late = (float(rate) for rate in dropout)

        self.initial = _Initial(in_channels, 16)
        self.down1 = _Down(16, 64, early)
        self.stage1 = nn.Sequential(*(_regular(64, early) for _ in range(4)))
        self.down2 = _Down(64, 128, late)
        self.stage2 = _context_stage(128, late)
        self.stage3 = _context_stage(128, late)
        self.up4 = _Up(256 if skip else 128, 64, late)
        self.stage4 = nn.Sequential(*(_regular(64, late, fixed=True) for _ in range(2)))
        self.up5 = _Up(128 if skip else 64, 16, late)
        self.stage5 = _regular(16, late, fixed=True)
        self.head = _skip_head(32, 16) if skip else nn.Identity()
        self.classifier = nn.Conv2d(16, num_classes, 1) if skip else _double(16, num_classes, kernel_size=3)
        # Between these points the places of the maxima bypass the layers, and they can't be mixed.
        self.mixing_points = {"initial": ("initial",), "last": ("head(0)",) if skip else ("up5",)}
        self._initialise()

    @staticmethod
    def default_options(patch_size: Sequence[int]) -> dict[str, float]:
        """Return the options that fit a patch size (H, W): patches under 128 pixels are enlarged, by 2 or by 4."""
        side = min(patch_size)
        return {"input_scale": 1.0 if side >= 128 else 2.0 if side >= 64 else 4.0}

    def forward(self, x: Tensor) -> Tensor:
        """Return the raw logits, shape (B, K, H, W), of images of shape (B, C, H, W)."""
        height, width = x.shape[-2], x.shape[-1]
        if self.input_scale != 1.0:
            enlarged = [math.ceil(height * self.input_scale), math.ceil(width * self.input_scale)]
            x = F.interpolate(x, size=enlarged, mode="bilinear", align_corners=False)
        inner_height, inner_width = x.shape[-2], x.shape[-1]
        # 16 at least: at 8 pixels the deepest map is 1 x 1, where batch statistics of one image are undefined.
        logits = self._segment(_continue_border(x, multiple=8, smallest=16))[..., :inner_height, :inner_width]
        if self.input_scale != 1.0:
            logits = F.interpolate(logits, size=[height, width], mode="bilinear", align_corners=False)
        return logits

    def _segment(self, x: Tensor) -> Tensor:
        half = self.initial(x)
        quarter, winners1 = self.down1(half)
        quarter = self.stage1(quarter)
        eighth, winners2 = self.down2(quarter)
        middle = self.stage2(eighth)
        deep = self.stage3(middle)
        if self.skip:
            deep = torch.cat([deep, middle], dim=1)
        up = self.stage4(self.up4(deep, winners2))
        if self.skip:
            up = torch.cat([up, quarter], dim=1)
        up = self.stage5(self.up5(up, winners1))
        if self.skip:
            up = torch.cat([up, half], dim=1)
            up = F.interpolate(up, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.classifier(self.head(up))

    def _initialise(self) -> None:
        # Torch's own (small) weights suit the rest: with He's, 23 residual sums multiply the logits a thousandfold
        # as long as the running statistics of the normalisation are at their initial values.
        nn.init.normal_(self.classifier.weight, std=0.3)  # logits of about 1
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)


class _Initial(nn.Module):
    """Halve the image by a strided convolution beside a max pooling: (B, C, H, W) -> (B, out, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # With many input channels the pooled copies would leave no room for learned maps: then convolve only.
        self.pools = in_channels <= out_channels // 2
        learned = out_channels - in_channels if self.pools else out_channels
        self.conv = nn.Conv2d(in_channels, learned, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.pools:
            y = torch.cat([y, _max_pool(x)[0].to(y.dtype)], dim=1)
        return self.act(self.norm(y))


class _Bottleneck(nn.Module):
    """Residual block on a quarter of the channels; the size stays."""

    def __init__(self, channels: int, middle: list[nn.Module], dropout: float, fixed: bool) -> None:
        super().__init__()
        inner = channels // 4
        self.branch = nn.Sequential(
            *_conv_block(channels, inner, 1, fixed=fixed),
            *middle,
            *_conv_block(inner, channels, 1, fixed=fixed),
            nn.Dropout2d(dropout),
        )
        self.act = _activation(fixed)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.branch(x))


class _Down(nn.Module):
    """Bottleneck that halves the size; returns its maps and where the maxima of its main path stood."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        inner = in_channels // 4
        self.grown = out_channels - in_channels
        self.branch = nn.Sequential(
            *_conv_block(in_channels, inner, 2, stride=2),
            *_conv_block(inner, inner, 3, padding=1),
            *_conv_block(inner, out_channels, 1),
            nn.Dropout2d(dropout),
        )
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled, winners = _max_pool(x)
        main = F.pad(pooled, [0, 0, 0, 0, 0, self.grown])
        return self.act(main + self.branch(x)), winners


class _Up(nn.Module):
    """Bottleneck that doubles the size; the main path is unpooled to where the encoder's maxima stood."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        inner = in_channels // 4
        self.main = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.branch = nn.Sequential(
            *_conv_block(in_channels, inner, 1, fixed=True),
            _double(inner, inner, kernel_size=2),
            nn.BatchNorm2d(inner),
            _activation(fixed=True),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.Dropout2d(dropout),
        )
        self.act = _activation(fixed=True)

    def forward(self, x: Tensor, winners: Tensor) -> Tensor:
        return self.act(_unpool(self.main(x), winners) + self.branch(x))


def _activation(fixed: bool) -> nn.Module:
    return nn.LeakyReLU(_DECODER_SLOPE) if fixed else nn.PReLU()


def _conv_block(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
    fixed: bool = False,
) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), _activation(fixed)]


def _double(in_channels: int, out_channels: int, kernel_size: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution that exactly doubles the size, for kernels of 2 and 3."""
    surplus = kernel_size - 2
    return nn.ConvTranspose2d(
        in_channels, out_channels, kernel_size, stride=2, padding=surplus, output_padding=surplus, bias=False
    )


def _regular(channels: int, dropout: float, fixed: bool = False, dilation: int = 1) -> _Bottleneck:
    inner = channels // 4
    middle = _conv_block(inner, inner, 3, padding=dilation, dilation=dilation, fixed=fixed)
    return _Bottleneck(channels, middle, dropout, fixed)


def _asymmetric(channels: int, dropout: float) -> _Bottleneck:
    inner = channels // 4
    middle = _conv_block(inner, inner, (5, 1), padding=(2, 0)) + _conv_block(inner, inner, (1, 5), padding=(0, 2))
    return _Bottleneck(channels, middle, dropout, fixed=False)


def _context_stage(channels: int, dropout: float) -> nn.Sequential:
    """Return the eight blocks that widen the view: dilations 2, 4, 8 and 16 with asymmetric kernels between."""
    blocks = []
    for first, second in ((2, 4), (8, 16)):
        blocks += [
            _regular(channels, dropout),
            _regular(channels, dropout, dilation=first),
            _asymmetric(channels, dropout),
            _regular(channels, dropout, dilation=second),
        ]
    return nn.Sequential(*blocks)


def _skip_head(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv_block(in_channels, channels, 3, padding=1), *_conv_block(channels, channels, 3, padding=1)
    )


def _max_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pool 2 x 2 windows; return the maxima (B, C, H/2, W/2) and a mask (B, C, H/2, 2, W/2, 2) of where they stood.

    The gradient runs through the mask: on CUDA the backward pass of `max_pool2d`, and `max_unpool2d`, have no
    deterministic implementation; these element-wise forms have, and TorchScript and ONNX know them.
    """
    batch, channels, height, width = x.shape
    indices = F.max_pool2d(x.detach(), 2, 2, return_indices=True)[1]
    places = torch.arange(height * width, device=x.device).view(height // 2, 2, width // 2, 2)
    winners = indices[:, :, :, None, :, None] == places
    windows = x.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return torch.where(winners, windows, torch.zeros_like(windows)).sum(dim=[3, 5]), winners


def _unpool(x: Tensor, winners: Tensor) -> Tensor:
    """Put each value where the maximum of its window stood, zeros elsewhere: (B, C, H, W) -> (B, C, 2H, 2W)."""
    batch, channels, height, width = x.shape
    spread = torch.where(winners, x[:, :, :, None, :, None], torch.zeros([], dtype=x.dtype, device=x.device))
    return spread.reshape(batch, channels, 2 * height, 2 * width)


def _continue_border(x: Tensor, multiple: int, smallest: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples of `multiple` and at least `smallest`."""
    # By concatenation: the replication padding of torch has no deterministic backward pass on CUDA.
    missing = max(-x.shape[-2] % multiple, smallest - x.shape[-2])
    if missing > 0:
        x = torch.cat([x, x[..., -1:, :].expand(-1, -1, missing, -1)], dim=-2)
    missing = max(-x.shape[-1] % multiple, smallest - x.shape[-1])
    if missing > 0:
        x = torch.cat([x, x[..., -1:].expand(-1, -1, -1, missing)], dim=-1)
    return x


def _check_arguments(in_channels: int, num_classes: int, dropout: tuple[float, float], input_scale: float) -> None:
    for name, value in (("in_channels", in_channels), ("num_classes", num_classes)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    if len(dropout) != 2 or not all(0 <= rate < 1 for rate in dropout):
        raise ValueError(f"dropout must be two rates in [0, 1), got {dropout!r}; the paper's are (0.01, 0.1)")
    if not 1 <= input_scale < math.inf:
        raise ValueError(f"input_scale must be a factor >= 1, got {input_scale!r}; 1 leaves the image as it is")
