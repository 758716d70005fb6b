"""SAM2-UNet: SAM2's image encoder with adapters, and a U-shaped decoder."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional as F

from ..adaptable import Adaptable
from ..checkpoint_file import LoadReport
from ..hiera import HieraEncoder
from ..input_channels import InputChannels
from ..lora import LoraOptions, inject, lora_config
from ..sizes import multiples_of, pair
from ..unet_decoder import ReceptiveFieldBlock, UpBlock
from ..variants import HIERA_VARIANTS

TUNING = ("adapter", "lora", "decoder", "all")
_BLOCK = r"encoder\.trunk\.blocks\.{}\.attn\.qkv\.(q|v)_proj"
_WIDTH = 64


class SAM2UNet(Adaptable):
    """Segment 2D images with SAM2's encoder, which stays frozen behind adapters, and a small decoder that trains.

    The image is stretched to `image_size` inside, and the logits are stretched back.

    Args:
        in_channels: Channels of the input; 1 is repeated, 3 are SAM2's, for others a 1 x 1 convolution learns three.
        num_classes: Classes K including background, >= 1.
        variant: Size of Hiera: `tiny`, `small`, `base_plus`, `large`, or `mini` (no released weights).
        image_size: Canvas in pixels, side or (H, W), multiples of 32.
        tuning: What trains beside the decoder: `adapter` (as published), `lora` (updates of queries and values
            instead), `decoder` (nothing), `all` (the encoder itself, without adapters).
        adapter_dim: Hidden width of the adapters.
        rank: Rank of the updates, see `sam_lora.lora.LoraOptions`, as for the following ones.
        alpha: Scaling; None: the rank.
        dropout: Dropout rate of the updates' input.
        dora: Learn magnitude and direction apart.
        rslora: Scale by the square root of the rank.
        init: `default`, `gaussian` or `pissa`.
        block_ranks: Rank of each encoder block, 0 for none; empty: `rank` everywhere.
        deep_supervision: Return the logits of the two coarser decoder stages too.
        checkpointing: Compute activations of the encoder's blocks again for the gradient, to spare memory.

    Shape:
        Input (B, in_channels, H, W), float; output (B, K, H, W), raw logits; with `deep_supervision` a list of three
        of that shape, finest stage first.

    Raises:
        ValueError: If an option is out of range.

    Source:
        Xiong et al. 2024, arXiv:2408.08870. Published: large, 352 pixels. Left out are a fourth upsampling block,
        which the released network builds and never uses (110,848 parameters), and the rescaling of each prediction.
    """

    spatial_dims = (2,)
    last_layers = ("heads.2",)
    small_options = {"variant": "mini", "image_size": 64}  # noqa: RUF012
    training_defaults = {  # noqa: RUF012
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 5e-4,
        "schedule": "cosine",
        "deep_supervision": True,
    }
    deep_supervision_scales = [[1.0, 1.0]] * 3
    deep_supervision_weights = (1.0, 1.0, 1.0)

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        variant: str = "large",
        image_size: int | tuple[int, int] = 352,
        tuning: str = "adapter",
        adapter_dim: int = 32,
        rank: int = 4,
        alpha: float | None = None,
        dropout: float = 0.0,
        dora: bool = False,
        rslora: bool = False,
        init: str = "default",
        block_ranks: tuple[int, ...] = (),
        deep_supervision: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        for name, value, allowed in (("variant", variant, tuple(HIERA_VARIANTS)), ("tuning", tuning, TUNING)):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be >= 1, got {num_classes}")
        if adapter_dim < 1:
            raise ValueError(f"adapter_dim must be >= 1, got {adapter_dim}")
        options = LoraOptions(rank, alpha, dropout, dora, rslora, init, tuple(block_ranks))
        self.variant = HIERA_VARIANTS[variant]
        self.options = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "variant": variant,
            "image_size": image_size,
            **asdict(options),
        }
        self.image_size = multiples_of(32, "image_size", pair(image_size))
        self.tuning = tuning
        self.deep_supervision = deep_supervision

        self.input_channels = InputChannels(in_channels)
        self.encoder = HieraEncoder(self.variant, adapter_dim if tuning == "adapter" else 0, checkpointing)
        self.reductions = nn.ModuleList([ReceptiveFieldBlock(dim, _WIDTH) for dim in self.variant.dims])
        self.ups = nn.ModuleList([UpBlock(_WIDTH) for _ in range(3)])
        self.heads = nn.ModuleList([nn.Conv2d(_WIDTH, num_classes, 1) for _ in range(3)])
        self.lora_config = self._adapt(options) if tuning == "lora" else None
        self.mixing_points = self._mixing_points()
        self.requires_grad_(True)
        for side in self.heads[:-1]:
            side.requires_grad_(deep_supervision)  # otherwise nothing comes of them
        self.encoder.trunk.requires_grad_(tuning == "all")
        for name, parameter in self.encoder.trunk.named_parameters():
            if ".lora_" in name:
                parameter.requires_grad_(True)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return the raw logits of images of shape (B, C, H, W)."""
        size = x.shape[-2:]
        x = self.input_channels(x)
        if tuple(size) != self.image_size:
            x = F.interpolate(x, self.image_size, mode="bilinear", align_corners=False)
        *finer, x = (reduce(part) for reduce, part in zip(self.reductions, self.encoder(x), strict=True))
        outputs = []
        for up, head, skip in zip(self.ups, self.heads, reversed(finer), strict=True):
            x = up(x, skip)
            outputs.append(head(x))
        chosen = outputs[::-1] if self.deep_supervision else outputs[-1:]
        logits = [F.interpolate(part, size, mode="bilinear", align_corners=False) for part in chosen]
        return logits if self.deep_supervision else logits[0]

    @staticmethod
    def default_options(patch_size: Sequence[int]) -> dict[str, Any]:
        """Return the options that fit a patch size (H, W): the published canvas, or a smaller one for small patches."""
        return {"image_size": 256 if max(patch_size) <= 128 else 352}

    def _load_base(self, file: str | Path) -> LoadReport:
        """Load Meta's SAM2 of this size, or a released SAM2-UNet."""
        from ..sam2_checkpoint import load_pretrained

        return load_pretrained(self, file)

    @property
    def released_weights(self) -> tuple[str, ...]:
        """Return the names of the files with released weights of this size; none if there are none."""
        return self.variant.checkpoints

    @property
    def saved_modules(self) -> list[str]:
        """Names of the modules, beside the updates, that an adapter must keep."""
        lists = {
            "reductions": self.reductions,
            "ups": self.ups,
            "heads": self.heads,
            "encoder.adapters": self.encoder.adapters,
        }
        names = [f"{name}.{number}" for name, part in lists.items() for number in range(len(part))]
        return [*names, *(["input_channels.mix"] if self.input_channels.mix is not None else [])]

    def _mixing_points(self) -> dict[str, tuple[str, ...]]:
        trunk: Any = self.encoder.trunk
        points: dict[str, tuple[str, ...]] = {"patch_embed": ("encoder.trunk.patch_embed",)}
        for stage, last in enumerate(trunk.stage_ends):
            points[f"stage{stage}"] = (f"encoder.trunk.blocks.{last}", f"encoder[:{stage}]")
        return points

    def _adapt(self, options: LoraOptions) -> LoraConfig:
        ranks = options.ranks(sum(self.variant.blocks))
        adapted = "|".join(str(number) for number, rank in enumerate(ranks) if rank)
        config = lora_config(options, _BLOCK.format(f"({adapted})"), ranks, _BLOCK)
        inject(self, config)
        return config
