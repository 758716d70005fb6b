"""The bundles' random transforms among nnU-Net's, and transforms that begin with an epoch."""

from typing import Any

import numpy as np
from monai.transforms import Compose

from ..training.augmentations import NNUNET
from .augmentation import make_augmentation
from .shared_epoch import SharedEpoch


class MonaiTransform:
    """Apply MONAI's dictionary transforms to the patches of nnU-Net's data loader.

    Each call is seeded from NumPy's global generator, which differs between nnU-Net's worker processes.

    Args:
        transform: Transforms of "image" and "label" that keep sizes and label values.
    """

    def __init__(self, transform: Compose) -> None:
        self.transform = transform

    def __call__(self, **data: Any) -> dict[str, Any]:
        """Transform "image" (C, *S) and "segmentation" (1, *S), S = H, W or D, H, W."""
        self.transform.set_random_state(seed=int(np.random.randint(2**31)))
        label = data["segmentation"]
        result = self.transform({"image": data["image"], "label": label})
        image, moved = (getattr(result[key], "as_tensor", lambda key=key: result[key])() for key in ("image", "label"))
        return {**data, "image": image.float(), "segmentation": moved.to(label.dtype)}


class FromEpoch:
    """Apply one transform before an epoch, and another from it on.

    Args:
        before: Transform of the epochs before.
        after: Transform of the other epochs.
        first: First epoch, counted from 1, that gets `after`.
        epoch: Counts the samples.
    """

    def __init__(self, before: Any, after: Any, first: int, epoch: SharedEpoch) -> None:
        self.before, self.after = before, after
        self.first = first
        self.epoch = epoch

    def __call__(self, **data: Any) -> dict[str, Any]:
        """Transform the next sample."""
        epoch, _ = self.epoch.advance()
        return (self.after if epoch + 1 >= self.first else self.before)(**data)


def patch_transforms(name: str, patch_size: tuple[int, ...], last: Any) -> tuple[Any, Any]:
    """Return transforms of nnU-Net's patches: plain ones, and those of a set; None for nnU-Net's own set.

    nnU-Net's loader hands over larger patches than it trains on, of which these take the centre.

    Args:
        name: Name of the set.
        patch_size: Size of the patches in training, (H, W) in pixels or (D, H, W) in voxels.
        last: What nnU-Net does to patches of the validation: labels outside the image, regions, coarser targets.
    """
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform

    centre = SpatialTransform(patch_size, patch_center_dist_from_border=0, random_crop=False, mode_seg="nearest")
    plain = ComposeTransforms([centre, last])
    if name == NNUNET:
        return plain, None
    if name == "none":
        return plain, plain
    chosen = MonaiTransform(make_augmentation(name, patch_size))
    return plain, ComposeTransforms([centre, RemoveLabelTransform(-1, 0), chosen, last])


def training_transforms(
    options: Any, patch_size: tuple[int, ...], own: Any, last: Any, batch_size: int, first_epoch: int
) -> Any:
    """Return the transforms of nnU-Net's training patches that the options name, from the epoch that they name.

    Args:
        options: The `nnunet_ext.options.Options` of the training.
        patch_size: Size of the patches in training.
        own: nnU-Net's own transforms.
        last: As for `patch_transforms`.
        batch_size: Patches in a batch of this process.
        first_epoch: Epoch that the training starts or goes on with, counted from 0.
    """
    if options.augmentation == NNUNET and options.augment_from_epoch == 1:
        return own
    plain, chosen = patch_transforms(options.augmentation, patch_size, last)
    epoch = SharedEpoch(options.iterations_per_epoch * batch_size, first_epoch, ahead=batch_size)
    return FromEpoch(plain, chosen or own, options.augment_from_epoch, epoch)
