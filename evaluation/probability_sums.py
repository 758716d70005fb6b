"""Sums over the voxels of an image, from which the scores of its probabilities are made."""

from collections.abc import Sequence

import numpy as np

from .engine.class_probabilities import add_channel, add_top
from .engine.probability_counts import (
    LEFT_OUT,
    N_RANK_BINS,
    add_probabilities,
    areas_of_bins,
    areas_of_keys,
    count_ranks,
    rank_keys,
)
from .label_channels import LabelChannels
from .probability_scores import N_BINS, THRESHOLDS, LabelProbabilityScore, MulticlassScore, Reliability


class LabelSums:
    """Sums over the voxels of an image, for one label against all others."""

    def __init__(self, values: Sequence[int], reference: np.ndarray, ignore_label: int | None, *, exact: bool) -> None:
        self._values, self._reference, self._ignored = values, reference, ignore_label
        self._sums = np.zeros(2)
        self._reliability = np.zeros((3, N_BINS))
        self._by_threshold = np.zeros((2, len(THRESHOLDS)), np.int64)
        self._ranks: SortedRanks | CountedRanks | None = None
        self._exact = exact
        self._n_seen = 0
        self._areas = (float("nan"), float("nan"))

    def add(self, rows: slice, p: np.ndarray) -> None:
        """Add the probabilities of some rows, float32 in [0, 1]."""
        p, truth = p.reshape(-1), self._truth(rows)
        add_probabilities(p, truth, N_BINS, THRESHOLDS, self._sums, self._reliability, self._by_threshold)
        if self._ranks is None:
            self._ranks = SortedRanks(self._reference.size) if self._exact else CountedRanks()
        self._ranks.add(p, truth)
        self._n_seen += p.size
        if self._n_seen == self._reference.size:  # so that labels that come one after the other share the memory
            self._areas, self._ranks = self._ranks.areas(), None

    def _truth(self, rows: slice) -> np.ndarray:
        there = self._reference[rows]
        truth = np.isin(there, self._values) if len(self._values) > 1 else there == self._values[0]
        codes = truth.reshape(-1).view(np.uint8)
        if self._ignored is not None:
            codes[there.reshape(-1) == self._ignored] = LEFT_OUT
        return codes

    def score(self) -> LabelProbabilityScore:
        """Return the scores; every voxel was added once."""
        assert self._n_seen == self._reference.size, "every voxel comes once"
        reliability = Reliability(self._reliability)
        cross_entropy, brier = _means(self._sums, reliability.n_voxels)
        return LabelProbabilityScore(cross_entropy, brier, *self._areas, reliability, self._by_threshold)


class SortedRanks:
    """Ranks of all voxels, exact."""

    def __init__(self, size: int) -> None:
        self._keys, self._n = np.empty(size, np.uint32), 0

    def add(self, p: np.ndarray, truth: np.ndarray) -> None:
        """Add voxels, whose truth is 0, 1 or `LEFT_OUT`."""
        self._n += rank_keys(_bits(p), truth, self._keys[self._n :])

    def areas(self) -> tuple[float, float]:
        """Return AUROC and average precision."""
        keys = self._keys[: self._n]
        keys.sort()
        return areas_of_keys(keys)


class CountedRanks:
    """Ranks by histogram, in memory that doesn't depend on the number of voxels."""

    def __init__(self) -> None:
        self._bins = np.zeros((N_RANK_BINS, 3), np.uint32)

    def add(self, p: np.ndarray, truth: np.ndarray) -> None:
        """Add voxels, whose truth is 0, 1 or `LEFT_OUT`."""
        count_ranks(_bits(p), truth, self._bins)

    def areas(self) -> tuple[float, float]:
        """Return AUROC and average precision."""
        return areas_of_bins(self._bins)


def rank_bytes(n_voxels: int, exact: bool) -> int:
    """Return how much memory the ranks of one label take.

    Args:
        n_voxels: Number of voxels of the image.
        exact: Whether by `SortedRanks` instead of `CountedRanks`.

    Returns:
        Bytes.
    """
    return 4 * n_voxels if exact else 4 * 3 * N_RANK_BINS


class DistributionSums:
    """Sums over the voxels of an image, for all labels together."""

    def __init__(self, reference: np.ndarray, channels: LabelChannels, ignore_label: int | None) -> None:
        self._reference, self._n_channels, self._ignored = reference, channels.n_channels, ignore_label
        self._type = np.uint8 if channels.n_channels <= 256 else np.uint32
        self._open: dict[int | None, tuple[np.ndarray, np.ndarray]] = {}
        self._sums, self._reliability = np.zeros(2), np.zeros((3, N_BINS))

    def add(self, channel: int, rows: slice, p: np.ndarray) -> None:
        """Add a channel of some rows; the same rows for each channel, channels in ascending order."""
        p, classes = p.reshape(-1), self._classes(rows)
        if channel == 0:
            self._open[rows.start] = np.zeros(p.size, np.float32), np.zeros(p.size, self._type)
        best, top = self._open[rows.start]
        add_channel(p, channel, classes, best, top, self._sums)
        if channel == self._n_channels - 1:
            del self._open[rows.start]
            add_top(best, top, classes, N_BINS, self._reliability)

    def _classes(self, rows: slice) -> np.ndarray:
        there = self._reference[rows].reshape(-1)
        classes = there.astype(np.int32)
        classes[there >= self._n_channels] = -1
        if self._ignored is not None:
            classes[there == self._ignored] = -1
        return classes

    def score(self) -> MulticlassScore:
        """Return the scores; every row was added with all channels."""
        assert not self._open, "every row has all channels"
        reliability = Reliability(self._reliability)
        return MulticlassScore(*_means(self._sums, reliability.n_voxels), reliability)


def _bits(p: np.ndarray) -> np.ndarray:
    return p.view(np.uint32) & np.uint32(0x7FFFFFFF)  # without the sign of -0.0


def _means(sums: np.ndarray, n: int) -> tuple[float, float]:
    return (float(sums[0] / n), float(sums[1] / n)) if n else (float("nan"), float("nan"))
