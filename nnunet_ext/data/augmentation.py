"""Sets of random transforms of slices and of patches, by name: what the bundles' `augmentation` takes.

Each is a MONAI dictionary transform of "image" (C, *S) and "label" (1, *S), S = H, W or D, H, W, that keeps their size.
Labels are taken by nearest neighbour throughout: a mean of label values is another label. Beyond their borders images
repeat them, and so do labels: what looks like an organ isn't background, and what is ignored stays so. Patches turn and
shear within their slices only, as their voxels may be much longer across. A new set is one more entry of
`AUGMENTATIONS`.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    Rand2DElasticd,
    Rand3DElasticd,
    RandAffined,
    RandGaussianNoised,
    RandomizableTransform,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    RandZoomd,
    Resized,
)

from ..errors import OptionError
from ..training.augmentations import NNUNET

KEYS = ("image", "label")
WARP: dict[str, Any] = {"keys": KEYS, "mode": ("bilinear", "nearest"), "padding_mode": "border"}
_LARGEST_SHIFT = 12
"""Pixels by which `basic` shifts a slice at most."""


def _basic(size: tuple[int, ...]) -> list[Any]:
    if len(size) == 3:  # of intensities in [0, 1], where volumes have them
        shift = [side / 10 for side in size]
        return [
            RandAffined(prob=0.3, rotate_range=(0.26, 0, 0), scale_range=[0.15] * 3, translate_range=shift, **WARP),
            RandGaussianNoised(keys="image", prob=0.15, std=0.03),
            RandScaleIntensityd(keys="image", prob=0.3, factors=0.2),
            RandShiftIntensityd(keys="image", prob=0.3, offsets=0.05),
        ]
    shift = [min(_LARGEST_SHIFT, side / 10) for side in size]
    return [
        RandAffined(prob=0.5, rotate_range=0.26, scale_range=(0.15, 0.15), translate_range=shift, **WARP),
        RandGaussianNoised(keys="image", prob=0.15, std=0.1),
        RandScaleIntensityd(keys="image", prob=0.3, factors=0.2),
        RandShiftIntensityd(keys="image", prob=0.3, offsets=0.1),
    ]


def _affine(size: tuple[int, ...]) -> list[Any]:
    # a range for each axis: MONAI takes a single number for the first axis alone
    ranges: dict[str, Any] = {"scale_range": [0.2] * len(size), "translate_range": [side / 10 for side in size]}
    if len(size) == 3:
        # MONAI's angles about each axis, and shears of each along the two others
        ranges |= {"rotate_range": (0.35, 0, 0), "shear_range": (0, 0, 0, 0.1, 0, 0.1)}
    else:
        ranges |= {"rotate_range": 0.35, "shear_range": (0.1, 0.1)}
    return [RandAffined(prob=0.8, **ranges, **WARP)]


def _elastic(size: tuple[int, ...]) -> list[Any]:
    if len(size) == 3:  # smoothing leaves of 400 a standard deviation of about 2 voxels
        return [Rand3DElasticd(prob=0.5, sigma_range=(4, 6), magnitude_range=(0, 400), **WARP)]
    height, width = size
    spacing = (max(2.0, height / 8), max(2.0, width / 8))
    return [Rand2DElasticd(prob=0.5, spacing=spacing, magnitude_range=(0, min(size) / 40), **WARP)]


def _crop(size: tuple[int, ...]) -> list[Any]:
    smallest = [max(1, round(0.7 * side)) for side in size]
    return [
        RandSpatialCropd(keys=KEYS, roi_size=smallest, max_roi_size=size, random_size=True),
        Resized(keys=KEYS, spatial_size=size, mode=(_linear(size), "nearest-exact")),
    ]


def _zoom(size: tuple[int, ...]) -> list[Any]:
    modes: dict[str, Any] = {"mode": (_linear(size), "nearest-exact"), "padding_mode": "edge"}
    return [RandZoomd(keys=KEYS, prob=0.5, min_zoom=0.8, max_zoom=1.3, **modes)]


def _linear(size: tuple[int, ...]) -> str:
    return "trilinear" if len(size) == 3 else "bilinear"


class RandNnunetAugmentd(RandomizableTransform):
    """nnU-Net's own training transforms, as one MONAI dictionary transform.

    They draw from the global generators of NumPy and torch, which are seeded from this transform's own for the time of
    the call and restored afterwards.

    Args:
        size: Size (H, W) of the slices in pixels, or (D, H, W) of the patches in voxels.
        mirror: Whether to mirror along all axes, as nnU-Net does unless told otherwise.

    Raises:
        OptionError: If nnU-Net is not installed.
    """

    def __init__(self, size: tuple[int, ...], mirror: bool = True) -> None:
        super().__init__(prob=1.0)
        try:
            from nnunetv2.configuration import ANISO_THRESHOLD
            from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
        except ImportError as error:
            raise OptionError(f"augmentation: nnunet needs nnU-Net ({error}); pip install nnunetv2") from error
        # as nnU-Net: flat patches turn within their slices alone; slices by any angle if they are about square
        within_slices = len(size) == 3 and max(size) / size[0] > ANISO_THRESHOLD
        if len(size) == 3:
            angle = np.pi if within_slices else np.pi / 6
        else:
            angle = np.pi if max(size) / min(size) <= 1.5 else np.pi / 12
        axes = tuple(range(len(size))) if mirror else ()
        self.transform = nnUNetTrainer.get_training_transforms(
            size, (-angle, angle), None, axes, do_dummy_2d_data_aug=within_slices
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform a slice or a patch.

        Args:
            data: "image" (C, *S), "label" (1, *S) and others, which are left alone.
        """
        seed = int(self.R.randint(2**31))
        numpy_state = np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed)
            try:
                label = torch.as_tensor(data["label"])
                # a copy: some of its transforms work in place
                image = torch.as_tensor(data["image"]).clone()
                result = self.transform(
                    image=image, segmentation=label.to(torch.int16 if _fits(label) else torch.int32)
                )
            finally:
                np.random.set_state(numpy_state)
        return {**data, "image": result["image"], "label": result["segmentation"].to(label.dtype)}


def _fits(label: torch.Tensor) -> bool:
    return label.dtype in (torch.uint8, torch.int8, torch.int16)


AUGMENTATIONS: dict[str, Callable[[tuple[int, ...]], list[Any]]] = {
    "none": lambda size: [],
    "basic": _basic,
    "affine": _affine,
    "elastic": _elastic,
    "crop": _crop,
    "zoom": _zoom,
    NNUNET: lambda size: [RandNnunetAugmentd(size)],
}
"""Transforms by name, made for slices of a size (H, W) or patches of a size (D, H, W)."""


def make_augmentation(name: str, image_size: Sequence[int]) -> Compose:
    """Return the random transforms of training slices or patches.

    Args:
        name: A key of `AUGMENTATIONS`.
        image_size: Size (H, W) of the slices in pixels, or (D, H, W) of the patches in voxels.

    Raises:
        OptionError: If there is no such set.
    """
    if name not in AUGMENTATIONS:
        raise OptionError(f"augmentation must be one of {', '.join(AUGMENTATIONS)}, got {name!r}")
    return Compose(AUGMENTATIONS[name](tuple(int(side) for side in image_size)))
