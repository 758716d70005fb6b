"""SAMed as an nnU-Net trainer."""

from typing import ClassVar

from .CustomTrainer import CustomTrainer


class nnUNetTrainerSAMed(CustomTrainer):  # noqa: N801
    """SAMed (SAM with LoRA, Zhang 2023) in nnU-Net's pipeline, trained with AdamW; weights: pretrained=FILE."""

    preset: ClassVar = {"network": "samed"}
