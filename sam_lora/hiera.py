"""SAM2's image encoder, Hiera, with its four stages as feature maps."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import Sam2HieraDetConfig
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel

from .variants import HieraVariant


class HieraAttention(nn.Module):
    """Hiera's attention with query, key and value as three layers, and a fused kernel.

    Args:
        dim: Width of the tokens.
        dim_out: Width of the result.
        num_heads: Attention heads.
        pool: Factor by which queries are pooled, 1 for none.
    """

    def __init__(self, dim: int, dim_out: int, num_heads: int, pool: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.pool = pool
        self.qkv = nn.ModuleDict({name: nn.Linear(dim, dim_out) for name in ("q_proj", "k_proj", "v_proj")})
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, hidden_states: Tensor, **_: object) -> Tensor:
        """Return tokens (B, H / pool, W / pool, dim_out) of tokens (B, H, W, dim)."""
        q, k, v = (self.qkv[name](hidden_states) for name in ("q_proj", "k_proj", "v_proj"))
        if self.pool > 1:
            q = F.max_pool2d(q.permute(0, 3, 1, 2), self.pool).permute(0, 2, 3, 1)
        batch, height, width, _ = q.shape
        attended = F.scaled_dot_product_attention(self._heads(q), self._heads(k), self._heads(v))
        return self.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))

    def _heads(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class BottleneckAdapter(nn.Module):
    """Two small layers that add to a block's input what was learned: x + GELU(W2 GELU(W1 x)).

    Args:
        dim: Width of the tokens.
        hidden: Width between the layers.

    Source:
        Xiong et al. 2024, arXiv:2408.08870, figure 2.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, hidden)
        self.up = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted tokens, shape (.., dim)."""
        return x + F.gelu(self.up(F.gelu(self.down(x))))


class HieraEncoder(nn.Module):
    """Hiera's four stages, with an adapter before each block if asked for.

    Args:
        variant: Size.
        adapter_dim: Hidden width of the adapters; 0: none.
        checkpointing: Whether activations inside the blocks are computed again for the gradient.

    Shape:
        Input (B, 3, H, W), multiples of 32; outputs (B, dims[i], H / 2^(i + 2), W / 2^(i + 2)), finest first.

    Source:
        Ravi et al. 2024, arXiv:2408.00714; `transformers.Sam2HieraDetModel`.
    """

    def __init__(self, variant: HieraVariant, adapter_dim: int = 0, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.trunk = Sam2HieraDetModel(hiera_config(variant))
        blocks: Any = self.trunk.blocks
        for block in blocks:
            stock = block.attn
            pool = block.query_stride[0] if block.query_stride else 1
            block.attn = HieraAttention(stock.dim, stock.dim_out, stock.num_attention_heads, pool)
        dims = [block.dim for block in blocks]
        self.adapters = nn.ModuleList([BottleneckAdapter(dim, adapter_dim) for dim in dims] if adapter_dim else [])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of the four stages."""
        trunk: Any = self.trunk
        x = trunk.patch_embed(x)
        x = x + trunk._get_pos_embed(x.shape[1:3])
        maps = []
        for number in range(len(trunk.blocks)):
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(self._block, number, x, use_reentrant=False)
            else:
                x = self._block(number, x)
            if number in trunk.stage_ends:
                maps.append(x.permute(0, 3, 1, 2))
        return maps

    def _block(self, number: int, x: Tensor) -> Tensor:
        if self.adapters:
            x = self.adapters[number](x)
        return self.trunk.blocks[number](x)


def hiera_config(variant: HieraVariant) -> Sam2HieraDetConfig:
    """Return the configuration of `transformers` for a size.

    Args:
        variant: Size.
    """
    return Sam2HieraDetConfig(
        hidden_size=variant.embed_dim,
        num_attention_heads=variant.num_heads,
        blocks_per_stage=list(variant.blocks),
        embed_dim_per_stage=list(variant.dims),
        num_attention_heads_per_stage=[variant.num_heads * 2**stage for stage in range(4)],
        window_size_per_stage=list(variant.window_sizes),
        global_attention_blocks=list(variant.global_blocks),
        window_positional_embedding_background_size=[variant.background_size] * 2,
        attn_implementation="sdpa",  # type: ignore[call-arg]
    )
