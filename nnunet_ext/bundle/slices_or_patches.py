"""What differs between a network of slices and one of patches, for a bundle that takes both."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import Inferer, SlidingWindowInferer

from ..data.patches import PatchDataset
from ..data.slices import SliceDataset
from .inferers import ResizedSliceInferer


def make_samples(patch_size: Sequence[int], sampler: str, **options: Any) -> SliceDataset:
    """Return the samples of a training.

    Args:
        patch_size: Canvas (H, W) of slices in pixels, or size (D, H, W) of patches in voxels.
        sampler: What chooses them, see `nnunet_ext.data.make_sampler`; `adaptive` needs to know what patches hold.
        **options: Further options of `nnunet_ext.data.SliceDataset`.

    Raises:
        OptionError: If patches are to be smaller than 1 voxel, or an option is out of range.
    """
    height, width = patch_size[-2:]
    if len(patch_size) == 2:
        return SliceDataset(image_size=(height, width), **options)
    separate = sampler == "adaptive"
    return PatchDataset(image_size=(height, width), depth=patch_size[0], separate=separate, **options)


def make_inferer(patch_size: Sequence[int], batch_size: int, output_device: str | torch.device) -> Inferer:
    """Return what predicts whole volumes, (B, C, D, H, W), with a network of slices or of patches.

    Args:
        patch_size: As for `make_samples`.
        batch_size: Slices or patches predicted at once.
        output_device: Where the logits of the whole volume are kept, such as "cpu" to spare a GPU's memory.
    """
    if len(patch_size) == 2:
        return ResizedSliceInferer((patch_size[0], patch_size[1]), batch_size, output_device)
    return SlidingWindowInferer(
        roi_size=tuple(patch_size),
        sw_batch_size=batch_size,
        overlap=0.5,
        mode="gaussian",
        padding_mode="replicate",
        device=output_device,
    )
