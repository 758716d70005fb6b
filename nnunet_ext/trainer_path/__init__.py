"""The folder that `nnUNet_extTrainer` points to: `python -m nnunet_ext path` prints it.

nnU-Net imports every module of this folder while it looks for a trainer, so there is exactly one.
"""
