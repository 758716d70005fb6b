"""SAM's mask decoder with one mask a class."""

from segment_anything.modeling.mask_decoder import MaskDecoder
from segment_anything.modeling.transformer import TwoWayTransformer
from torch import Tensor

from .variants import ViTVariant


class ClassDecoder(MaskDecoder):
    """Decode an image's embedding to one mask of logits a class, without prompts.

    The head that rates masks is kept for the checkpoint's sake, but nothing comes of it.

    Args:
        variant: Size of SAM.
        num_classes: Classes including background, >= 1.

    Shape:
        Embedding (B, C, h, w), its positions (1, C, h, w), prompt (C,); output (B, num_classes, 4 h, 4 w).

    Source:
        Zhang and Liu 2023, arXiv:2304.13785 (SAMed).
    """

    def __init__(self, variant: ViTVariant, num_classes: int) -> None:
        super().__init__(
            transformer_dim=variant.decoder_dim,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=variant.decoder_dim, num_heads=8, mlp_dim=variant.decoder_mlp_dim
            ),
            num_multimask_outputs=num_classes - 1,
            iou_head_hidden_dim=variant.decoder_dim,
        )

    def forward(self, embedding: Tensor, positions: Tensor, prompt: Tensor) -> Tensor:  # type: ignore[override]
        """Return the logits of all classes at a quarter of the image's size."""
        no_points = prompt.new_zeros(1, 0, prompt.shape[-1])
        return self.predict_masks(embedding, positions, no_points, prompt.view(1, -1, 1, 1))[0]
