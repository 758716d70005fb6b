"""SAM's image encoder for any image size that is a multiple of 16."""

from functools import partial

import torch
from segment_anything.modeling.image_encoder import ImageEncoderViT
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import RelativeAttention
from .variants import PATCH_SIZE, ViTVariant


class ImageEncoder(ImageEncoderViT):
    """SAM's ViT with tables of positions of its own size and attention that spares memory.

    Args:
        variant: Size of the encoder.
        image_size: Size (H, W) of the images in pixels, multiples of 16.
        checkpointing: Whether activations inside the blocks are computed again for the gradient.

    Shape:
        Input (B, 3, H, W); output (B, decoder_dim, H / 16, W / 16).

    Source:
        Kirillov et al. 2023, arXiv:2304.02643; `segment_anything.modeling`.
    """

    def __init__(self, variant: ViTVariant, image_size: tuple[int, int], checkpointing: bool = False) -> None:
        super().__init__(
            img_size=PATCH_SIZE,  # the smallest: its tables are replaced below
            patch_size=PATCH_SIZE,
            embed_dim=variant.embed_dim,
            depth=variant.depth,
            num_heads=variant.num_heads,
            out_chans=variant.decoder_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            window_size=variant.window_size,
            global_attn_indexes=variant.global_blocks,
        )
        self.img_size = max(image_size)
        self.checkpointing = checkpointing
        grid = image_size[0] // PATCH_SIZE, image_size[1] // PATCH_SIZE
        self.pos_embed = nn.Parameter(torch.zeros(1, *grid, variant.embed_dim))
        for block in self.blocks:
            windowed = block.window_size > 0
            size = (block.window_size, block.window_size) if windowed else grid
            block.attn = RelativeAttention(variant.embed_dim, variant.num_heads, size, windowed)
            block.window_size = 0  # the attention cuts its windows

    def forward(self, x: Tensor) -> Tensor:
        """Return the embedding of images."""
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))
