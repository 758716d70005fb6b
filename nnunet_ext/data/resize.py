"""Resize slices to the canvas of a network, the same way in training and at prediction."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def resize_slices(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Stretch slices to a size with bilinear interpolation, anti-aliased where they shrink.

    Args:
        images: Shape (N, C, H, W), floating point.
        size: Wanted (H, W).

    Returns:
        Shape (N, C, *size); the input itself if it has that size already.
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    shrinks = images.shape[-2] > size[0] or images.shape[-1] > size[1]
    # bfloat16 and float16 lack an anti-aliased kernel on some devices
    resized = F.interpolate(images.float(), size=size, mode="bilinear", align_corners=False, antialias=shrinks)
    return resized.to(images.dtype)


def resize_labels(labels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Stretch labels to a size with nearest-neighbour interpolation.

    Args:
        labels: Shape (N, C, H, W), or (N, C, D, H, W) for volumes; integer or boolean values.
        size: Wanted (H, W) or (D, H, W).

    Returns:
        Shape (N, C, *size), same type; the input itself if it has that size already.
    """
    if tuple(labels.shape[2:]) == tuple(size):
        return labels
    return F.interpolate(labels.float(), size=tuple(size), mode="nearest-exact").to(labels.dtype)
