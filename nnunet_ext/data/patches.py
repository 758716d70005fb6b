"""Patches of cached volumes as a map-style data set."""

import logging
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..errors import OptionError
from .preprocessing import Preprocessing
from .slices import SliceDataset, Transform
from .unannotated import UnannotatedLabels
from .volume_cache import CachedVolume

logger = logging.getLogger(__name__)

_LITTLE = 0.6
"""Less of a patch than this share shows image: worth a word."""


class PatchDataset(SliceDataset):
    """Patches at random places; each item belongs to one slice of one volume, which its patch shows.

    So the samplers of slices choose patches too. Places and random transforms are seeded from (seed, epoch, item).

    Args:
        volumes: Cached cases.
        preprocessing: Normalisation and slice axis.
        image_size: Rows and columns (H, W) of a patch, in voxels; nothing is resized.
        depth: Slices of a patch; volumes smaller than the patch are continued at their far borders (edge value).
        transform: MONAI dictionary transform of "image" (C, D, H, W) and "label" (1, D, H, W).
        seed: Seed of places and transforms.
        patches_per_slice: Items for each slice, with patches at different places.
        foreground_share: Share in [0, 1] of the items with foreground in their slice whose patch surely shows some.
        separate: Whether the patch of a slice with foreground always shows some, whatever the share, and that of one
            without shows none, wherever the volume has room for such a patch. So samplers decide what patches hold.
        augment_from_epoch, unannotated: As for `SliceDataset`.

    Raises:
        OptionError: If a size or number is not 1 or more, or the share is out of range.
    """

    def __init__(
        self,
        volumes: list[CachedVolume],
        preprocessing: Preprocessing,
        image_size: tuple[int, int],
        depth: int,
        transform: Transform | None = None,
        seed: int = 0,
        patches_per_slice: int = 4,
        foreground_share: float = 0.75,
        separate: bool = False,
        augment_from_epoch: int = 0,
        unannotated: UnannotatedLabels | None = None,
    ) -> None:
        if min(depth, *image_size, patches_per_slice) < 1 or len(image_size) != 2:
            raise OptionError(
                "patches: need image_size of two numbers >= 1, depth (patch_depth) >= 1 and patches_per_slice >= 1, "
                f"got {image_size}, {depth} and {patches_per_slice}"
            )
        if not 0 <= foreground_share <= 1:
            raise OptionError(f"foreground_share must be a number in [0, 1], got {foreground_share}")
        super().__init__(volumes, preprocessing, image_size, transform, seed, augment_from_epoch, unannotated)
        self.patch_size = np.array([depth, *self.image_size])
        self._warn_of_borders()
        self.patches_per_slice = patches_per_slice
        self.foreground_share = 1.0 if separate else foreground_share
        self.separate = separate

    def _warn_of_borders(self) -> None:
        """Warn of patches that mostly show what lies outside of the images."""
        if not self.volumes:
            return
        median = np.median([self.preprocessing.ordered_slices_first(v.shape) for v in self.volumes], axis=0)
        shown = np.minimum(median / self.patch_size, 1).prod()
        if shown < _LITTLE:
            size, patch = (" x ".join(f"{n:g}" for n in sizes) for sizes in (median, self.patch_size))
            logger.warning(
                f"WARNING: of a patch of {patch} voxels the median image of {size} fills "
                f"{shown:.0%}, the rest repeats its border; smaller patches learn more"
            )

    @cached_property
    def index(self) -> np.ndarray:
        """Volume number and slice number of each item, shape (N, 2)."""
        axis = self.preprocessing.slice_axis
        index = np.array([(v, s) for v, volume in enumerate(self.volumes) for s in range(volume.shape[axis])])
        return index.repeat(self.patches_per_slice, axis=0)

    @cached_property
    def has_foreground(self) -> np.ndarray:
        """Whether the slice of each item holds foreground, shape (N,), boolean."""
        axis = self.preprocessing.slice_axis
        flags = [np.isin(np.arange(v.shape[axis]), v.foreground_slices(axis)) for v in self.volumes]
        return np.concatenate(flags).repeat(self.patches_per_slice)

    def _plain(self, item: int) -> dict[str, Any]:
        """Return one patch: "image" (C, D, H, W), "label" (1, D, H, W), "case" and "slice"."""
        number, position = (int(i) for i in self.index[item])
        volume = self.volumes[number]
        label = self.preprocessing.slices_first(volume.label)
        place = self._place(np.random.default_rng(self._item_seed(item)), position, label)
        image = np.asarray(self.preprocessing.slices_first(volume.image)[(slice(None), *place)])
        return {
            "image": self._filled(self.preprocessing.normalize(image, volume.statistics).numpy()),
            "label": self._filled(np.array(label[place])[None]),
            "case": volume.case,
            "slice": position,
        }

    def _place(self, random: np.random.Generator, position: int, label: np.ndarray) -> tuple[slice, ...]:
        """Draw where the patch lies, shape (D, H, W) in the volume; smaller where the volume is."""
        size = np.array(label.shape)
        start = random.integers(0, np.maximum(size - self.patch_size, 0) + 1)
        start[0] = position - random.integers(self.patch_size[0])
        voxels = np.empty((0, 2), int)
        if self.separate or random.random() < self.foreground_share:
            voxels = np.argwhere(label[position] > 0)
        if len(voxels):
            start[1:] = voxels[random.integers(len(voxels))] - random.integers(self.patch_size[1:])
        elif self.separate:
            start = self._empty_place(random, position, label, start)
        start = np.clip(start, 0, np.maximum(size - self.patch_size, 0))
        return tuple(slice(a, b) for a, b in zip(start, np.minimum(start + self.patch_size, size), strict=True))

    def _empty_place(
        self, random: np.random.Generator, position: int, label: np.ndarray, otherwise: np.ndarray
    ) -> np.ndarray:
        """Draw the first voxel of a patch that shows the slice and no foreground; another one if there is none."""
        depth, *sides = np.minimum(self.patch_size, label.shape)
        first, last = max(0, position - depth + 1), min(position, len(label) - depth)
        for start in first + random.permutation(last - first + 1):
            columns = np.any(label[start : start + depth] > 0, axis=0)
            free = np.argwhere(_window_sums(columns, *sides) == 0)
            if len(free):
                return np.array([start, *free[random.integers(len(free))]])
        return otherwise

    def _filled(self, array: np.ndarray) -> torch.Tensor:
        """Continue a part of a volume, shape (C, *S), up to the size of the patch."""
        missing = self.patch_size - array.shape[1:]
        pads = [(0, 0), *((0, int(n)) for n in missing)]
        return torch.from_numpy(np.pad(array, pads, mode="edge") if missing.any() else np.ascontiguousarray(array))


def _window_sums(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Count the true pixels in each window of a mask (H, W), by the window's first pixel."""
    sums = np.pad(mask.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    rows = sums[height:] - sums[:-height]
    return rows[:, width:] - rows[:, :-width]
