"""nnU-Net's own 2D network, trained on slices of the adaptive sampler."""

from typing import ClassVar

from .CustomTrainer import CustomTrainer


class nnUNetTrainerAdaptiveSampler(CustomTrainer):  # noqa: N801
    """nnU-Net's planned 2D network; the share of slices without foreground grows over the epochs."""

    preset: ClassVar = {"network": "planned", "sampler": "adaptive"}
