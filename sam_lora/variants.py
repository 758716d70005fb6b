"""Sizes of SAM's and SAM2's image encoders."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ViTVariant:
    """A size of SAM.

    Args:
        embed_dim: Width of the encoder's tokens.
        depth: Encoder blocks.
        num_heads: Attention heads a block.
        global_blocks: Numbers of the blocks that attend over the whole image; the others attend within windows.
        window_size: Side of a window in tokens.
        decoder_dim: Width of prompt encoder and mask decoder.
        decoder_mlp_dim: Hidden width of the mask decoder's transformer.
        checkpoint: File name of the released weights; empty if there are none.
    """

    embed_dim: int
    depth: int
    num_heads: int
    global_blocks: tuple[int, ...]
    window_size: int = 14
    decoder_dim: int = 256
    decoder_mlp_dim: int = 2048
    checkpoint: str = ""


VIT_VARIANTS = {
    "vit_b": ViTVariant(768, 12, 12, (2, 5, 8, 11), checkpoint="sam_vit_b_01ec64.pth"),
    "vit_l": ViTVariant(1024, 24, 16, (5, 11, 17, 23), checkpoint="sam_vit_l_0b3195.pth"),
    "vit_h": ViTVariant(1280, 32, 16, (7, 15, 23, 31), checkpoint="sam_vit_h_4b8939.pth"),
    "small": ViTVariant(192, 4, 3, (1, 3), decoder_dim=64, decoder_mlp_dim=256),
}
"""SAM's three sizes (Kirillov et al. 2023, and the released code), and one without weights for CPUs and tests."""

PATCH_SIZE = 16
"""Pixels a token, along each side."""


@dataclass(frozen=True)
class HieraVariant:
    """A size of SAM2's image encoder, Hiera.

    Args:
        embed_dim: Width of the first stage; each following one doubles it.
        num_heads: Attention heads of the first stage; each following one doubles them.
        blocks: Blocks of the four stages.
        global_blocks: Numbers of the blocks that attend over the whole image.
        window_sizes: Side of a window in tokens, for each stage.
        background_size: Side of the table of positions (without that of the window).
        checkpoints: File names of the released weights, SAM2.1 first.
    """

    embed_dim: int
    num_heads: int
    blocks: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    window_sizes: tuple[int, int, int, int] = (8, 4, 14, 7)
    background_size: int = 7
    checkpoints: tuple[str, ...] = ()

    @property
    def dims(self) -> tuple[int, int, int, int]:
        """Widths of the four stages, at 1/4, 1/8, 1/16 and 1/32 of the image's size."""
        return self.embed_dim, 2 * self.embed_dim, 4 * self.embed_dim, 8 * self.embed_dim


HIERA_VARIANTS = {
    "mini": HieraVariant(24, 1, (1, 1, 2, 1), (3,)),
    "tiny": HieraVariant(96, 1, (1, 2, 7, 2), (5, 7, 9), checkpoints=("sam2.1_hiera_tiny.pt", "sam2_hiera_tiny.pt")),
    "small": HieraVariant(
        96, 1, (1, 2, 11, 2), (7, 10, 13), checkpoints=("sam2.1_hiera_small.pt", "sam2_hiera_small.pt")
    ),
    "base_plus": HieraVariant(
        112,
        2,
        (2, 3, 16, 3),
        (12, 16, 20),
        background_size=14,
        checkpoints=("sam2.1_hiera_base_plus.pt", "sam2_hiera_base_plus.pt"),
    ),
    "large": HieraVariant(
        144,
        2,
        (2, 6, 36, 4),
        (23, 33, 43),
        (8, 4, 16, 8),
        checkpoints=("sam2.1_hiera_large.pt", "sam2_hiera_large.pt"),
    ),
}
"""Hiera's four sizes (Ravi et al. 2024, arXiv:2408.00714, and the released configurations), and one without weights
for CPUs and tests."""
