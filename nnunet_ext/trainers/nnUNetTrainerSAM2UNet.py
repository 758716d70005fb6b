"""SAM2-UNet as an nnU-Net trainer."""

from typing import ClassVar

from .CustomTrainer import CustomTrainer


class nnUNetTrainerSAM2UNet(CustomTrainer):  # noqa: N801
    """SAM2-UNet (Xiong 2024) in nnU-Net's pipeline, trained with AdamW; weights: pretrained=FILE."""

    preset: ClassVar = {"network": "sam2unet"}
