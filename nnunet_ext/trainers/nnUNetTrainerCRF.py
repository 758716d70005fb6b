"""A network and a CRF that refines its logits, as an nnU-Net trainer."""

from typing import ClassVar

from .CustomTrainer import CustomTrainer


class nnUNetTrainerCRF(CustomTrainer):  # noqa: N801
    """ENet (3D: the U-Net of Models Genesis), or another network.base, with a mean-field CRF behind it.

    Weights of the base: pretrained=FILE.
    """

    preset: ClassVar = {"network": "crf"}
