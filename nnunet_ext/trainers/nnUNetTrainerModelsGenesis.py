"""The 3D U-Net of Models Genesis as an nnU-Net trainer."""

from typing import ClassVar

from .CustomTrainer import CustomTrainer


class nnUNetTrainerModelsGenesis(CustomTrainer):  # noqa: N801
    """Models Genesis' 3D U-Net (Zhou 2021) in nnU-Net's pipeline, trained with AdamW; weights: init=genesis:FILE."""

    preset: ClassVar = {"network": "genesisunet3d"}
