"""Slices of cached volumes as a map-style data set, and whole volumes for validation."""

import zlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable
from torch.utils.data import Dataset

from .preprocessing import Preprocessing
from .resize import resize_labels, resize_slices
from .unannotated import UnannotatedLabels
from .volume_cache import CachedVolume

Transform = Callable[[dict[str, Any]], dict[str, Any]]


class SliceDataset(Dataset):
    """All slices of some volumes; item i is slice `index[i]`, resized to the network's canvas.

    Random transforms are seeded from (seed, epoch, item, and how often the epoch has shown it before), so that a run
    gives the same slices whatever the number of workers, and a resumed run the same as an uninterrupted one.

    Args:
        volumes: Cached cases.
        preprocessing: Normalisation and slice axis.
        image_size: Canvas (H, W) in pixels; slices are stretched to it.
        transform: MONAI dictionary transform of "image" (C, H, W) and "label" (1, H, W), after resizing.
        seed: Seed of the random transforms.
        augment_from_epoch: First epoch, counted from 1, that transforms its slices; those before show them as they are.
        unannotated: Labels that nobody has annotated, by case; if any, the codes of the cases follow their labels.
    """

    def __init__(
        self,
        volumes: list[CachedVolume],
        preprocessing: Preprocessing,
        image_size: tuple[int, int],
        transform: Transform | None = None,
        seed: int = 0,
        augment_from_epoch: int = 0,
        unannotated: UnannotatedLabels | None = None,
    ) -> None:
        self.volumes = volumes
        self.preprocessing = preprocessing
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.transform = transform
        self.seed = seed
        self.augment_from_epoch = augment_from_epoch
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # reaches workers that outlive an epoch too
        self.codes = unannotated.codes() if unannotated else {}

    @cached_property
    def index(self) -> np.ndarray:
        """Volume number and slice number of each item, shape (N, 2)."""
        axis = self.preprocessing.slice_axis
        return np.array([(v, s) for v, volume in enumerate(self.volumes) for s in range(volume.shape[axis])])

    @cached_property
    def has_foreground(self) -> np.ndarray:
        """Whether each item holds foreground, shape (N,), boolean; from the cache's index, no slice is read."""
        axis = self.preprocessing.slice_axis
        flags = []
        for volume in self.volumes:
            flag = np.zeros(volume.shape[axis], dtype=bool)
            flag[volume.foreground_slices(axis)] = True
            flags.append(flag)
        return np.concatenate(flags)

    @property
    def epoch(self) -> int:
        """Number of the epoch, counted from 1; 0 before the first."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the random numbers of an epoch; call it before the epoch's loader starts.

        Args:
            epoch: Epoch number.
        """
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self.index)

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Return one slice.

        Args:
            item: Position in `index`; a `samplers.Showing` tells an item that an epoch shows again from the first time.

        Returns:
            "image" float32 (C, H, W), "label" uint8 or int32 (1, H, W), or (2, H, W) with codes, "case" and "slice".
        """
        data = self._transformed(self._plain(item), item)
        if self.codes:
            label = data["label"]
            code = torch.full_like(label, self.codes.get(data["case"], 0))
            data["label"] = torch.cat([label, code])
        return data

    def _plain(self, item: int) -> dict[str, Any]:
        """Return an item before any transform, without codes."""
        number, position = (int(i) for i in self.index[item])
        volume = self.volumes[number]
        image = self.preprocessing.slices_first(volume.image)[:, position]
        label = self.preprocessing.slices_first(volume.label)[position]
        normalized = self.preprocessing.normalize(np.asarray(image), volume.statistics)
        target = torch.from_numpy(np.array(label))
        return {
            "image": resize_slices(normalized[None], self.image_size)[0],
            "label": resize_labels(target[None, None], self.image_size)[0],
            "case": volume.case,
            "slice": position,
        }

    def _transformed(self, data: dict[str, Any], item: int) -> dict[str, Any]:
        if self.transform is None or self.epoch < self.augment_from_epoch:
            return data
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=self._item_seed(item))
        # plain tensors, also in worker processes that don't inherit `set_track_meta(False)`
        return {
            key: value.as_tensor() if isinstance(value, MetaTensor) else value
            for key, value in self.transform(data).items()
        }

    def _item_seed(self, item: int) -> int:
        turn = getattr(item, "turn", 0)
        return zlib.crc32(f"{self.seed} {self.epoch} {int(item)}{f' {turn}' if turn else ''}".encode())


class VolumeDataset(Dataset):
    """Whole normalised volumes at their own resolution, for validation.

    Each rank of a distributed run gets its share. A rank beyond the number of volumes gets the first one with its
    label emptied: metrics ignore such a case, but a rank without any would leave the others waiting for its part.

    Args:
        volumes: Cached cases, at least one.
        preprocessing: Normalisation and slice axis.
        rank: This process, from 0.
        num_ranks: Number of processes.
    """

    def __init__(
        self, volumes: list[CachedVolume], preprocessing: Preprocessing, rank: int = 0, num_ranks: int = 1
    ) -> None:
        self.volumes = volumes[rank::num_ranks] or volumes[:1]
        self.stands_in = rank >= len(volumes)
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        """Return the number of volumes of this rank."""
        return len(self.volumes)

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Return one volume.

        Args:
            item: Position in `volumes`.

        Returns:
            "image" float32 (C, D, H, W), "label" (1, D, H, W) and "case".
        """
        volume = self.volumes[item]
        image = self.preprocessing.slices_first(volume.image)
        label = np.array(self.preprocessing.slices_first(volume.label))
        if self.stands_in:
            label[:] = 0
        return {
            "image": self.preprocessing.normalize(np.asarray(image), volume.statistics),
            "label": torch.from_numpy(label)[None],
            "case": volume.case,
        }
