"""A network and a CRF that refines its logits, as an nnU-Net trainer."""

from typing import ClassVar

from .CustomTrainer import CustomTrainer


class nnUNetTrainerCRF(CustomTrainer):  # noqa: N801
    """ENet, or another network.base, with a mean-field CRF behind it; weights of the base: pretrained=FILE."""

    preset: ClassVar = {"network": "crf"}
