"""SAM, built of its authors' own modules, and ours in a small size."""

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn
from torch.nn import functional as F

from sam_lora import SAMed

ADAPTED = [{}, {"decoder": "lora"}, {"dora": True}, {"init": "pissa"}, {"rslora": True, "block_ranks": (0, 2, 4, 4)}]
"""Options of SAMed with each kind of update."""


def small(**options) -> SAMed:
    return SAMed(1, 4, **{"variant": "small", "image_size": 128, **options}).eval()


def disturb(network: nn.Module) -> None:
    """Change what is trainable, as training would."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)


def stock_sam(side: int = 128, masks: int = 3) -> Sam:
    """The variant `small`, built of `segment_anything`'s own modules."""
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=side,
            embed_dim=192,
            depth=4,
            num_heads=3,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=(1, 3),
            out_chans=64,
        ),
        prompt_encoder=PromptEncoder(64, (side // 16, side // 16), (side, side), mask_in_chans=16),
        mask_decoder=MaskDecoder(
            transformer_dim=64,
            transformer=TwoWayTransformer(depth=2, embedding_dim=64, num_heads=8, mlp_dim=256),
            num_multimask_outputs=masks,
            iou_head_hidden_dim=64,
        ),
    ).eval()


def segment_with(sam: Sam, x: torch.Tensor) -> torch.Tensor:
    """All masks of `segment_anything`'s modules without prompts, at the images' size."""
    embeddings = sam.image_encoder(x.expand(-1, 3, -1, -1))
    positions = sam.prompt_encoder.get_dense_pe()
    sparse, dense = sam.prompt_encoder(None, None, None)
    masks = [sam.mask_decoder.predict_masks(one[None], positions, sparse, dense)[0] for one in embeddings]
    return F.interpolate(torch.cat(masks), x.shape[-2:], mode="bilinear", align_corners=False)
