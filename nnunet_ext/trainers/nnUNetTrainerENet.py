"""ENet as an nnU-Net trainer."""

from typing import ClassVar

from .CustomTrainer import CustomTrainer


class nnUNetTrainerENet(CustomTrainer):  # noqa: N801
    """ENet (Paszke 2016) under nnU-Net's own recipe."""

    preset: ClassVar = {"network": "enet"}
