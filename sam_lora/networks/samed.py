"""SAMed: SAM's image encoder with low-rank updates, and its mask decoder with one mask a class."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from segment_anything.modeling.prompt_encoder import PromptEncoder
from torch import Tensor
from torch.nn import functional as F

from ..adaptable import Adaptable
from ..checkpoint_file import LoadReport
from ..class_decoder import ClassDecoder
from ..image_encoder import ImageEncoder
from ..input_channels import InputChannels
from ..lora import LoraOptions, inject, lora_config
from ..sizes import multiples_of, pair
from ..variants import PATCH_SIZE, VIT_VARIANTS

TUNING = ("lora", "decoder", "all")
DECODERS = ("full", "lora")
_ENCODER_BLOCK = r"image_encoder\.blocks\.{}\.attn\.qkv\.(q|v)_proj"
_DECODER_LAYERS = r"mask_decoder\.transformer\.(layers\.\d+\.)?\w*attn\w*\.(q|v)_proj"


class SAMed(Adaptable):
    """Segment 2D images with SAM, adapted by LoRA on the queries and values of its image encoder.

    The image fills the encoder's canvas: it is stretched to `image_size` inside, and the logits are stretched back.

    Args:
        in_channels: Channels of the input; 1 is repeated, 3 are SAM's, for others a 1 x 1 convolution learns three.
        num_classes: Classes K including background, >= 1.
        variant: Size of SAM: `vit_b`, `vit_l`, `vit_h`, or `small` (2 million parameters, no released weights).
        image_size: Canvas in pixels, side or (H, W), multiples of 16; positions are resized to it.
        tuning: What trains: `lora` (updates and decoder), `decoder` (the encoder stays as it is), `all`.
        decoder: `full`: the whole mask decoder trains; `lora`: its transformer stays and gets updates too
            (SAMed_s), its class tokens and upsampling train. With tuning=lora only.
        rank: Rank of the updates, see `sam_lora.lora.LoraOptions`, as for the following ones.
        alpha: Scaling; None: the rank.
        dropout: Dropout rate of the updates' input.
        dora: Learn magnitude and direction apart.
        rslora: Scale by the square root of the rank.
        init: `default`, `gaussian` or `pissa`.
        block_ranks: Rank of each encoder block, 0 for none; empty: `rank` everywhere.
        checkpointing: Compute activations of the encoder's blocks again for the gradient, to spare memory.
        low_resolution: In training, return the logits as the decoder makes them, at a quarter of `image_size`.

    Shape:
        Input (B, in_channels, H, W), float; output (B, K, H, W), raw logits. In training with `low_resolution`
        (B, K, image_size / 4, image_size / 4).

    Raises:
        ValueError: If an option is out of range.

    Source:
        Zhang and Liu 2023, arXiv:2304.13785; Kirillov et al. 2023, arXiv:2304.02643. Published: vit_b, 512 pixels,
        rank 4, loss at low resolution.
    """

    spatial_dims = (2,)
    last_layers = ("mask_decoder.output_hypernetworks_mlps",)
    small_options = {"variant": "small", "image_size": 64}  # noqa: RUF012
    training_defaults = {  # noqa: RUF012
        "optimizer": "adamw",
        "learning_rate": 5e-3,
        "weight_decay": 0.1,
        "warmup_epochs": 1,
        "loss": "samed",
    }

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        variant: str = "vit_b",
        image_size: int | tuple[int, int] = 512,
        tuning: str = "lora",
        decoder: str = "full",
        rank: int = 4,
        alpha: float | None = None,
        dropout: float = 0.0,
        dora: bool = False,
        rslora: bool = False,
        init: str = "default",
        block_ranks: tuple[int, ...] = (),
        checkpointing: bool = False,
        low_resolution: bool = False,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("variant", variant, tuple(VIT_VARIANTS)),
            ("tuning", tuning, TUNING),
            ("decoder", decoder, DECODERS),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be >= 1, got {num_classes}")
        options = LoraOptions(rank, alpha, dropout, dora, rslora, init, tuple(block_ranks))
        self.variant = VIT_VARIANTS[variant]
        self.options = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "variant": variant,
            "image_size": image_size,
            "decoder": decoder,
            **asdict(options),
        }
        self.image_size = multiples_of(PATCH_SIZE, "image_size", pair(image_size))
        self.tuning = tuning
        self.decoder = decoder
        self.low_resolution = low_resolution

        grid = self.image_size[0] // PATCH_SIZE, self.image_size[1] // PATCH_SIZE
        self.input_channels = InputChannels(in_channels)
        self.image_encoder = ImageEncoder(self.variant, self.image_size, checkpointing)
        self.prompt_encoder = PromptEncoder(self.variant.decoder_dim, grid, self.image_size, mask_in_chans=16)
        self.mask_decoder = ClassDecoder(self.variant, num_classes)
        self.lora_config = self._adapt(options, decoder) if tuning == "lora" else None
        self._choose_trainable(tuning, decoder)
        stages = [f"image_encoder.{name}" for name in ("patch_embed", *self._global_blocks())]
        self.mixing_points = {stage: (stage,) for stage in stages}
        self._cached_positions: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the raw logits, shape (B, K, H, W), of images of shape (B, C, H, W)."""
        size = x.shape[-2:]
        x = self.input_channels(x)
        if tuple(size) != self.image_size:
            x = F.interpolate(x, self.image_size, mode="bilinear", align_corners=False)
        prompt = self.prompt_encoder.no_mask_embed(torch.zeros((), dtype=torch.long, device=x.device))
        logits = self.mask_decoder(self.image_encoder(x), self._positions(x), prompt)
        if self.low_resolution and self.training:
            return logits
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    @staticmethod
    def default_options(patch_size: Sequence[int]) -> dict[str, Any]:
        """Return the options that fit a patch size (H, W): the published canvas, or a smaller one for small patches."""
        side = max(patch_size)
        return {"image_size": 256 if side <= 128 else 512}

    def _load_base(self, file: str | Path) -> LoadReport:
        """Load Meta's SAM of this size."""
        from ..sam_checkpoint import load_sam

        return load_sam(self, file)

    @property
    def released_weights(self) -> tuple[str, ...]:
        """Return the names of the files with released weights of this size; none if there are none."""
        return (self.variant.checkpoint,) if self.variant.checkpoint else ()

    @property
    def saved_modules(self) -> list[str]:
        """Names of the modules, beside the updates, that an adapter must keep."""
        names = ["mask_decoder"]
        if self.decoder == "lora":
            heads = (f"output_hypernetworks_mlps.{number}" for number in range(self.mask_decoder.num_mask_tokens))
            parts = ("iou_token", "mask_tokens", "output_upscaling", "iou_prediction_head", *heads)
            names = [f"mask_decoder.{part}" for part in parts]
        mix = ["input_channels.mix"] if self.input_channels.mix is not None else []
        return [*names, "prompt_encoder.no_mask_embed", *mix]

    def _global_blocks(self) -> list[str]:
        return [f"blocks.{number}" for number in self.variant.global_blocks]

    def _positions(self, x: Tensor) -> Tensor:
        """Return the encoding of the embedding's grid, which only `image_size` decides, so it is made once."""
        cached = self._cached_positions
        if cached is None or cached.device != x.device or torch.jit.is_tracing():
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                cached = self.prompt_encoder.get_dense_pe()
            self._cached_positions = None if torch.jit.is_tracing() else cached
        return cached

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._cached_positions = None  # they depend on the weights
        super()._load_from_state_dict(*args, **kwargs)

    def _adapt(self, options: LoraOptions, decoder: str) -> LoraConfig:
        ranks = options.ranks(self.variant.depth)
        adapted = "|".join(str(number) for number, rank in enumerate(ranks) if rank)
        targets = _ENCODER_BLOCK.format(f"({adapted})")
        if decoder == "lora":
            targets = f"({targets}|{_DECODER_LAYERS})"
        config = lora_config(options, targets, ranks, _ENCODER_BLOCK)
        inject(self, config)
        return config

    def _choose_trainable(self, tuning: str, decoder: str) -> None:
        if tuning != "lora":
            self.requires_grad_(tuning == "all")
        self.prompt_encoder.requires_grad_(False)  # all but one embedding serve prompts that nobody gives
        self.prompt_encoder.no_mask_embed.requires_grad_(True)
        self.input_channels.requires_grad_(True)
        for name, parameter in self.mask_decoder.named_parameters():
            kept = decoder == "lora" and tuning == "lora" and name.startswith("transformer.") and "lora_" not in name
            parameter.requires_grad_(not kept)
        self.mask_decoder.iou_prediction_head.requires_grad_(False)  # its rating is used nowhere
