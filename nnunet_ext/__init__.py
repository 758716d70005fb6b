"""Segmentation methods for nnU-Net and MONAI: networks, data, bundle parts and trainers."""

__version__ = "0.1.0"
