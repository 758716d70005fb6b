"""Sets of random transforms of slices, by name: what the bundles' `augmentation` takes.

Each is a MONAI dictionary transform of "image" (C, H, W) and "label" (1, H, W) that keeps their size. Labels are taken
by nearest neighbour throughout: a mean of label values is another label. A new set is one more entry of
`AUGMENTATIONS`.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    Rand2DElasticd,
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
WARP: dict[str, Any] = {"keys": KEYS, "mode": ("bilinear", "nearest"), "padding_mode": ("border", "zeros")}


def _basic(image_size: tuple[int, int]) -> list[Any]:
    return [
        RandAffined(prob=0.5, rotate_range=0.26, scale_range=(0.15, 0.15), translate_range=(12, 12), **WARP),
        RandGaussianNoised(keys="image", prob=0.15, std=0.1),
        RandScaleIntensityd(keys="image", prob=0.3, factors=0.2),
        RandShiftIntensityd(keys="image", prob=0.3, offsets=0.1),
    ]


def _affine(image_size: tuple[int, int]) -> list[Any]:
    shift = [side / 10 for side in image_size]
    # a range for each axis: MONAI takes a single number for the first axis alone
    ranges: dict[str, Any] = {"shear_range": (0.1, 0.1), "scale_range": (0.2, 0.2), "translate_range": shift}
    return [RandAffined(prob=0.8, rotate_range=0.35, **ranges, **WARP)]


def _elastic(image_size: tuple[int, int]) -> list[Any]:
    height, width = image_size
    spacing = (max(2.0, height / 8), max(2.0, width / 8))
    return [Rand2DElasticd(prob=0.5, spacing=spacing, magnitude_range=(0, min(image_size) / 40), **WARP)]


def _crop(image_size: tuple[int, int]) -> list[Any]:
    smallest = [max(1, round(0.7 * side)) for side in image_size]
    return [
        RandSpatialCropd(keys=KEYS, roi_size=smallest, max_roi_size=image_size, random_size=True),
        Resized(keys=KEYS, spatial_size=image_size, mode=("bilinear", "nearest-exact")),
    ]


def _zoom(image_size: tuple[int, int]) -> list[Any]:
    modes: dict[str, Any] = {"mode": ("bilinear", "nearest-exact"), "padding_mode": ("edge", "constant")}
    return [RandZoomd(keys=KEYS, prob=0.5, min_zoom=0.8, max_zoom=1.3, **modes)]


class RandNnunetAugmentd(RandomizableTransform):
    """nnU-Net's own training transforms of 2D patches, as one MONAI dictionary transform.

    They draw from the global generators of NumPy and torch, which are seeded from this transform's own for the time of
    the call and restored afterwards.

    Args:
        image_size: Size (H, W) of the slices in pixels.
        mirror: Whether to mirror along both axes, as nnU-Net does unless told otherwise.

    Raises:
        OptionError: If nnU-Net is not installed.
    """

    def __init__(self, image_size: tuple[int, int], mirror: bool = True) -> None:
        super().__init__(prob=1.0)
        try:
            from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
        except ImportError as error:
            raise OptionError(f"augmentation: nnunet needs nnU-Net ({error}); pip install nnunetv2") from error
        # as nnU-Net: any angle for patches that are about square, else 15 degrees
        angle = np.pi if max(image_size) / min(image_size) <= 1.5 else np.pi / 12
        self.transform = nnUNetTrainer.get_training_transforms(
            image_size, (-angle, angle), None, (0, 1) if mirror else (), do_dummy_2d_data_aug=False
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform a slice.

        Args:
            data: "image" (C, H, W), "label" (1, H, W) and others, which are left alone.
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


AUGMENTATIONS: dict[str, Callable[[tuple[int, int]], list[Any]]] = {
    "none": lambda image_size: [],
    "basic": _basic,
    "affine": _affine,
    "elastic": _elastic,
    "crop": _crop,
    "zoom": _zoom,
    NNUNET: lambda image_size: [RandNnunetAugmentd(image_size)],
}
"""Transforms by name, made for slices of a size (H, W)."""


def make_augmentation(name: str, image_size: tuple[int, int]) -> Compose:
    """Return the random transforms of training slices.

    Args:
        name: A key of `AUGMENTATIONS`.
        image_size: Size (H, W) of the slices in pixels.

    Raises:
        OptionError: If there is no such set.
    """
    if name not in AUGMENTATIONS:
        raise OptionError(f"augmentation must be one of {', '.join(AUGMENTATIONS)}, got {name!r}")
    return Compose(AUGMENTATIONS[name]((int(image_size[0]), int(image_size[1]))))
