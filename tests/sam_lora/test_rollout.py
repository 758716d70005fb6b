"""Attention rollout is the product of the blocks' mean attentions, taken along one row."""

import pytest
import torch
from segment_anything.modeling.image_encoder import window_partition

from sam_lora import SAMed
from sam_lora.rollout import attention_rollout


def network(side: int) -> SAMed:
    built = SAMed(1, 3, variant="small", image_size=side, tuning="decoder").eval()
    for parameter in built.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return built


def mean_attention(attention, tokens: torch.Tensor) -> torch.Tensor:
    """The matrix (tokens, tokens) of one image, mean over the heads, written out."""
    [[(_, (q, k, _, rows, columns))]] = attention._parts(*attention._projected(tokens))
    height, width = tokens.shape[1:3]
    bias = rows.repeat_interleave(width, dim=-1) + columns.repeat(1, 1, height)
    scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
    return (scores + bias).softmax(-1).mean(0)


def test_shares_are_the_row_of_the_product_of_all_blocks():
    model = network(224)  # 14 x 14 tokens: a window is the whole image
    x = torch.randn(1, 1, 224, 224)
    region = torch.zeros(1, 224, 224, dtype=torch.bool)
    region[:, 64:96, 32:48] = True  # two tokens: row 4 and 5, column 2
    product = torch.eye(196)
    with torch.no_grad():
        tokens = model.image_encoder.patch_embed(x.expand(-1, 3, -1, -1)) + model.image_encoder.pos_embed
        for block in model.image_encoder.blocks:
            attention = mean_attention(block.attn, block.norm1(tokens))
            product = (0.5 * attention + 0.5 * torch.eye(196)) @ product
            tokens = block(tokens)
    start = torch.zeros(196)
    start[[4 * 14 + 2, 5 * 14 + 2]] = 0.5
    torch.testing.assert_close(attention_rollout(model, x, region)[0].flatten(), start @ product, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("side", [64, 256])
def test_shares_sum_to_one_also_where_windows_are_padded(side):
    model = network(side)
    region = torch.zeros(2, 50, 40, dtype=torch.bool)
    region[0, 10:20, 10:20] = True
    shares = attention_rollout(model, torch.randn(2, 1, 50, 40), region)
    assert shares.shape == (2, side // 16, side // 16)
    torch.testing.assert_close(shares.sum((1, 2)), torch.tensor([1.0, 0.0]))
    assert (shares >= 0).all()


def test_windows_keep_shares_inside_them():
    model = network(448)  # 28 x 28 tokens, four windows
    block = model.image_encoder.blocks[0]
    from sam_lora.rollout import _spread

    share = torch.zeros(1, 28, 28, 1)
    share[0, 3, 3] = 1
    with torch.no_grad():
        spread = _spread(block, torch.randn(1, 28, 28, 192), share)
    windows, _ = window_partition(spread, 14)
    torch.testing.assert_close(windows.sum((1, 2, 3)), torch.tensor([1.0, 0.0, 0.0, 0.0]))
