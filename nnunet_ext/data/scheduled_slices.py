"""nnU-Net's training cases as single slices in the order of a sampler, for its own data loader."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from ..training.background import BackgroundSchedule
from .foreground_index import SliceKinds
from .samplers import SliceSampler, make_sampler
from .shared_epoch import SharedEpoch


class SliceTable:
    """The slices of all cases that can be drawn; slices without any annotation cannot.

    Args:
        kinds: What the slices of each case hold.
    """

    def __init__(self, kinds: Mapping[str, SliceKinds]) -> None:
        self.kinds = kinds

    @cached_property
    def index(self) -> list[tuple[str, int]]:
        """Case and slice number of each item."""
        return [
            (case, position)
            for case, kind in self.kinds.items()
            for position in sorted(set(range(kind.num_slices)) - set(kind.unannotated))
        ]

    @cached_property
    def has_foreground(self) -> np.ndarray:
        """Whether each item holds foreground, shape (N,), boolean."""
        foreground = {case: set(kind.foreground) for case, kind in self.kinds.items()}
        return np.array([position in foreground[case] for case, position in self.index], dtype=bool)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.index)


class ScheduledSlices:
    """Hand nnU-Net's data loader one slice after the other, each as a case of its own.

    The loader asks for cases by name, which it draws alike; this data set answers with the next slice of the sampler
    instead (so the batch's `keys` name nothing). The number of slices handed out so far is in memory that all worker
    processes share, and tells each of them the epoch: also batches that are made ahead of time belong to the epoch
    that will train on them, and a resumed training goes on where it stopped.

    Args:
        dataset: nnU-Net's data set of whole cases.
        table: Their slices.
        sampler: Order of the slices in each epoch, of this process's share.
        first_epoch: Epoch that the training starts or goes on with, counted from 0.
        ahead: Slices drawn before the first epoch starts: nnU-Net makes one batch for nothing.
        slices_per_epoch: Slices that this process takes of the sampler's in each epoch; None: all.
    """

    def __init__(
        self,
        dataset: Any,
        table: SliceTable,
        sampler: SliceSampler,
        first_epoch: int = 0,
        ahead: int = 0,
        slices_per_epoch: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.identifiers = dataset.identifiers
        self.table = table
        self.sampler = sampler
        self._shared = SharedEpoch(slices_per_epoch or len(sampler), first_epoch, ahead)
        self._epoch: int | None = None
        self._order: list[int] = []

    def next_slice(self) -> tuple[int, str, int]:
        """Return epoch, case and slice number of the next slice over all worker processes."""
        epoch, position = self._shared.advance()
        if epoch != self._epoch:
            self.sampler.set_epoch(epoch + 1)  # samplers count from 1, as engines do
            self._epoch, self._order = epoch, list(self.sampler)
        return epoch, *self.table.index[self._order[position]]

    def load_case(self, identifier: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, dict[str, Any]]:
        """Return the next slice, as nnU-Net's data sets return a case.

        Args:
            identifier: Ignored.

        Returns:
            Image (C, 1, H, W), label map (1, 1, H, W), label map of a previous stage or None, and properties, whose
            `class_locations` are those of the slice.
        """
        _, case, position = self.next_slice()
        image, label, previous, properties = self.dataset.load_case(case)
        one = slice(position, position + 1)
        locations = {key: _in_slice(voxels, position) for key, voxels in properties["class_locations"].items()}
        properties = {**properties, "class_locations": locations}
        return image[:, one], label[:, one], None if previous is None else previous[:, one], properties


def schedule_slices(
    dataset: Any,
    kinds: Mapping[str, SliceKinds],
    options: Any,
    batch_size: int,
    first_epoch: int,
    rank: int = 0,
    num_ranks: int = 1,
    global_batch_size: int | None = None,
) -> ScheduledSlices:
    """Return nnU-Net's cases as slices in the order of the sampler that the options name.

    Args:
        dataset: nnU-Net's data set of whole cases.
        kinds: What the slices of each case hold.
        options: The `nnunet_ext.options.Options` of the training.
        batch_size: Slices in a batch of this process.
        first_epoch: Epoch that the training starts or goes on with, counted from 0.
        rank: This process, from 0.
        num_ranks: Number of processes.
        global_batch_size: Slices in the batches of all processes together; None: `batch_size` in each.
    """
    table = SliceTable(kinds)
    background = BackgroundSchedule(
        options.epochs, options.background_schedule, options.background_keep, options.foreground_only_epochs
    )
    # nnU-Net's batches may differ by one between the processes; they must draw the same order all the same
    largest = batch_size if global_batch_size is None else -(-global_batch_size // num_ranks)
    sampler = make_sampler(
        options.sampler,
        table,
        background,
        num_samples=options.iterations_per_epoch * largest * num_ranks,
        seed=options.seed or 0,
        rank=rank,
        num_ranks=num_ranks,
    )
    own = options.iterations_per_epoch * batch_size
    return ScheduledSlices(dataset, table, sampler, first_epoch, ahead=batch_size, slices_per_epoch=own)


def _in_slice(voxels: Any, position: int) -> np.ndarray:
    """Return the rows (c, z, y, x) of one slice, with z = 0."""
    rows = np.asarray(voxels, dtype=np.int64).reshape(-1, 4)
    rows = rows[rows[:, 1] == position]
    return rows * np.array([1, 0, 1, 1])
