"""SAM2-UNet written out as published, of `transformers`' modules: what ours is compared with."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel

META_NAMES = {
    "patch_embed.projection": "patch_embed.proj",
    "layer_norm": "norm",
    "mlp.proj_in": "mlp.layers.0",
    "mlp.proj_out": "mlp.layers.1",
}


def meta_trunk(hiera: Sam2HieraDetModel) -> dict[str, torch.Tensor]:
    """Hiera's weights under Meta's names."""
    state = {}
    for name, value in hiera.state_dict().items():
        for ours, meta in META_NAMES.items():
            name = name.replace(ours, meta)
        state[name] = value
    return state


class _ConvNorm(nn.Module):
    def __init__(self, inside, outside, kernel, padding=0, dilation=1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, kernel, padding=padding, dilation=dilation, bias=False)
        self.bn = nn.BatchNorm2d(outside)

    def forward(self, x):
        return self.bn(self.conv(x))


class _Reduce(nn.Module):
    def __init__(self, channels) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(_ConvNorm(channels, 64, 1))
        for branch, width in ((1, 3), (2, 5), (3, 7)):
            layers = (
                _ConvNorm(channels, 64, 1),
                _ConvNorm(64, 64, (1, width), (0, width // 2)),
                _ConvNorm(64, 64, (width, 1), (width // 2, 0)),
                _ConvNorm(64, 64, 3, width, width),
            )
            setattr(self, f"branch{branch}", nn.Sequential(*layers))
        self.conv_cat = _ConvNorm(256, 64, 3, 1)
        self.conv_res = _ConvNorm(channels, 64, 1)

    def forward(self, x):
        parts = [getattr(self, f"branch{branch}")(x) for branch in range(4)]
        return F.relu(self.conv_cat(torch.cat(parts, 1)) + self.conv_res(x))


class _Up(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = []
        for inside in (128, 64):
            layers += [nn.Conv2d(inside, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        self.conv = nn.ModuleDict({"double_conv": nn.Sequential(*layers)})

    def forward(self, x, skip):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.conv["double_conv"](torch.cat([skip, x], 1))


class PublishedSam2Unet(nn.Module):
    """SAM2-UNet as published, under its released names (the encoder apart).

    Args:
        hiera: The encoder.
        classes: Number of classes; published is one.
        dims: Widths of the encoder's stages.

    Source:
        Xiong et al. 2024, arXiv:2408.08870.
    """

    def __init__(self, hiera: Any, classes: int = 1, dims: tuple[int, ...] = (96, 192, 384, 768)) -> None:
        super().__init__()
        self._hiera: list[Any] = [hiera]
        for number, dim in enumerate(dims, start=1):
            setattr(self, f"rfb{number}", _Reduce(dim))
            setattr(self, f"up{number}", _Up())
        self.side1, self.side2, self.head = (nn.Conv2d(64, classes, 1) for _ in range(3))
        self.learned = nn.ModuleList(
            nn.Sequential(nn.Linear(block.dim, 32), nn.GELU(), nn.Linear(32, block.dim), nn.GELU())
            for block in hiera.blocks
        )

    def encoder(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of the four stages."""
        hiera = self._hiera[0]
        x = hiera.patch_embed(x)
        x = x + hiera._get_pos_embed(x.shape[1:3])
        maps = []
        for number, block in enumerate(hiera.blocks):
            x = block(x + self.learned[number](x))
            if number in hiera.stage_ends:
                maps.append(x.permute(0, 3, 1, 2))
        return maps

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the logits of the three decoder stages, finest first, at the size of the image."""
        maps = self.encoder(x)
        blocks: Any = self
        r1, r2, r3, r4 = (getattr(self, f"rfb{n}")(part) for n, part in enumerate(maps, start=1))
        x = blocks.up1(r4, r3)
        first = F.interpolate(self.side1(x), scale_factor=16, mode="bilinear")
        x = blocks.up2(x, r2)
        second = F.interpolate(self.side2(x), scale_factor=8, mode="bilinear")
        return [F.interpolate(self.head(blocks.up3(x, r1)), scale_factor=4, mode="bilinear"), second, first]

    def released_state(self) -> dict[str, torch.Tensor]:
        """The state dict that the authors release."""
        state = {name: value for name, value in self.state_dict().items() if not name.startswith("learned.")}
        for name, value in meta_trunk(self._hiera[0]).items():
            state["encoder." + re.sub(r"^blocks\.(\d+)\.", r"blocks.\1.block.", name)] = value
        for number, layers in enumerate(self.learned):
            prefix = f"encoder.blocks.{number}.prompt_learn."
            state |= {prefix + name: value for name, value in layers.state_dict().items()}
        return state
