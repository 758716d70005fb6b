"""Which parts of an image a region's prediction attends to, through all blocks of SAM's encoder."""

import torch
from segment_anything.modeling.image_encoder import Block
from torch import Tensor
from torch.nn import functional as F

from .attention import RelativeAttention
from .networks.samed import SAMed


@torch.no_grad()
def attention_rollout(network: SAMed, x: Tensor, region: Tensor) -> Tensor:
    """Return how much each token of an image contributes to a region by attention alone.

    The region's tokens get equal shares, which go back from the last block to the first: half of a share stays (the
    residual path), half is spread as the mean over the heads attends.

    Args:
        network: The network, in evaluation mode.
        x: Images, shape (B, in_channels, H, W).
        region: Which pixels to explain, boolean, shape (B, H, W).

    Returns:
        Shares, float, shape (B, image_size / 16, image_size / 16); each sums to 1 (0 where the region is empty).

    Source:
        Abnar and Zuidema 2020, arXiv:2005.00928.
    """
    inputs: list[Tensor] = []
    blocks = [block for block in network.image_encoder.blocks if isinstance(block, Block)]
    hooks = [block.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for block in blocks]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    height, width = inputs[0].shape[1:3]
    share = F.adaptive_avg_pool2d(region[:, None].float(), (height, width)).movedim(1, -1)
    share = share / share.sum((1, 2, 3), keepdim=True).clamp(min=1e-12)
    for block, tokens in zip(reversed(blocks), reversed(inputs), strict=True):
        share = 0.5 * share + 0.5 * _spread(block, block.norm1(tokens), share)
    return share[..., 0]


def _spread(block: Block, tokens: Tensor, share: Tensor) -> Tensor:
    """Return the shares (B, H, W, 1) after they went from the queries of a block to what these attend to."""
    attention = block.attn
    assert isinstance(attention, RelativeAttention)
    spread = attention.spread(tokens, share)
    if attention.windowed:  # what padding gets is lost to the image: it goes back to where the rest went
        spread = spread / spread.sum((1, 2, 3), keepdim=True).clamp(min=1e-12)
    return spread
