"""ENet as an nnU-Net trainer."""

from typing import ClassVar

from .CustomTrainer import CustomTrainer


class nnUNetTrainerENet(CustomTrainer):  # noqa: N801
    """ENet (Paszke 2016) in nnU-Net's pipeline, trained with AdamW."""

    preset: ClassVar = {"network": "enet"}
