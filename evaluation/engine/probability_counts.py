"""Loops over the probabilities of one label: sums, counts by probability, and ranks."""

import math

import numpy as np
from numba import njit

from .compiled import compiled

CLIP = 1e-7
"""Probabilities are kept this far from 0 and 1 where their logarithm is taken."""

LEFT_OUT = 2
"""Truth of a voxel that doesn't count; 0 and 1 are false and true."""

_FINE = 0x3A800000
"""Bits of 2**-10: above it bins are distinguished by 16 bits of the mantissa, below by 12."""

_HALF = 0x3F000000
"""Bits of 1/2."""

_SEVERAL = 0xFFFFFFFF
_HALF_BIN = (_FINE >> 11) + ((_HALF - _FINE) >> 7)
N_RANK_BINS = 2 * _HALF_BIN + 1
"""Bins of `count_ranks`: by p below 1/2, by 1 - p above."""


@compiled
def add_probabilities(p, truth, n_bins, thresholds, sums, reliability, by_threshold):  # type: ignore[no-untyped-def]
    """Add some voxels of one label.

    Args:
        p: Probabilities in [0, 1], float32, shape (n,).
        truth: 0, 1 or `LEFT_OUT`, uint8, shape (n,).
        n_bins: Number of bins of equal width; the last holds 1 too.
        thresholds: Equally spaced from 0 to 1, float64, shape (T,).
        sums: Adds up cross-entropy in nats and squared error, float64, shape (2,).
        reliability: Adds up voxels, probability and truth by bin, float64, shape (3, n_bins).
        by_threshold: Adds up voxels that are false and true by the largest threshold <= p, int64, shape (2, T).
    """
    last = thresholds.size - 1
    surest = -math.log1p(-CLIP)
    cross_entropy, squared = 0.0, 0.0
    for i in range(p.size):
        if truth[i] == LEFT_OUT:
            continue
        value, positive = np.float64(p[i]), truth[i]
        of_truth = value if positive else 1.0 - value
        if of_truth >= 1.0 - CLIP:
            cross_entropy += surest
        else:
            cross_entropy -= math.log(max(of_truth, CLIP))
        squared += (1.0 - of_truth) ** 2
        in_bin = min(int(value * n_bins), n_bins - 1)
        reliability[0, in_bin] += 1
        reliability[1, in_bin] += value
        reliability[2, in_bin] += positive
        step = min(int(value * last), last)
        while thresholds[step] > value:
            step -= 1
        while step < last and thresholds[step + 1] <= value:
            step += 1
        by_threshold[positive, step] += 1
    sums[0] += cross_entropy
    sums[1] += squared


@compiled
def rank_keys(bits, truth, keys):  # type: ignore[no-untyped-def]
    """Write a number for each voxel that sorts by probability and ends with its truth.

    Args:
        bits: Probabilities in [0, 1] as the bits of float32, uint32, shape (n,).
        truth: 0, 1 or `LEFT_OUT`, uint8, shape (n,).
        keys: Where to write, uint32, n or longer.

    Returns:
        How many were written.
    """
    n = 0
    for i in range(bits.size):
        if truth[i] != LEFT_OUT:
            keys[n] = (bits[i] << 1) | truth[i]
            n += 1
    return n


@compiled
def count_ranks(bits, truth, bins):  # type: ignore[no-untyped-def]
    """Count voxels by probability, finely near 0 and near 1.

    Args:
        bits: Probabilities in [0, 1] as the bits of float32, without the sign of -0.0, uint32, shape (n,).
        truth: 0, 1 or `LEFT_OUT`, uint8, shape (n,).
        bins: uint32, shape (N_RANK_BINS, 3): adds up voxels that are false and true; the third entry is their value, or
            `_SEVERAL`. Side by side, because reaching a bin is what takes time.
    """
    complement = np.empty(1, np.float32)
    complement_bits = complement.view(np.uint32)
    p = bits.view(np.float32)
    for i in range(bits.size):
        if truth[i] == LEFT_OUT:
            continue
        place = np.int64(bits[i])
        if place >= _HALF:
            complement[0] = np.float32(1) - p[i]  # exact: both are multiples of 2**-24
            place = np.int64(complement_bits[0])
        rank = place >> 11 if place < _FINE else (_FINE >> 11) + ((place - _FINE) >> 7)
        if bits[i] >= _HALF:
            rank = 2 * _HALF_BIN - rank
        own = bins[rank]
        if own[0] == 0 and own[1] == 0:
            own[2] = bits[i]
        elif own[2] != bits[i]:
            own[2] = _SEVERAL
        own[truth[i]] += 1


@compiled
def areas_of_keys(keys):  # type: ignore[no-untyped-def]
    """Return the areas under the ROC curve and under the precision-recall curve.

    Args:
        keys: What `rank_keys` wrote, sorted, uint32, shape (n,).

    Returns:
        AUROC, ties counting half, and average precision; nan where there is no true or no false voxel.
    """
    state = np.zeros(4)
    end = keys.size
    while end > 0:
        value = keys[end - 1] >> 1
        start, positives = end, 0
        while start > 0 and keys[start - 1] >> 1 == value:
            start -= 1
            positives += keys[start] & 1
        _advance(state, positives, end - start - positives)
        end = start
    return _areas(state)


@compiled
def areas_of_bins(bins):  # type: ignore[no-untyped-def]
    """Return the same from what `count_ranks` counted.

    Voxels of one bin are ties if they have one value; else they are taken as evenly mixed, which they nearly are.
    """
    state = np.zeros(4)
    for rank in range(len(bins) - 1, -1, -1):
        negatives, positives = np.int64(bins[rank, 0]), np.int64(bins[rank, 1])
        if positives + negatives == 0:
            continue
        if bins[rank, 2] != _SEVERAL:
            _advance(state, positives, negatives)
            continue
        precisions = state[3]
        for i in range(1, positives + 1):
            true, false = state[0] + i, state[1] + negatives * i / (positives + 1)
            precisions += true / (true + false)
        _advance(state, positives, negatives)
        state[3] = precisions
    return _areas(state)


@njit(inline="always")
def _advance(state, positives, negatives):  # type: ignore[no-untyped-def]
    """Go on to voxels of a lower probability; state: true and false so far, pairs in wrong order, sum of precisions."""
    state[2] += positives * (state[1] + 0.5 * negatives)
    state[0] += positives
    state[1] += negatives
    if positives:
        state[3] += positives * (state[0] / (state[0] + state[1]))


@njit(inline="always")
def _areas(state):  # type: ignore[no-untyped-def]
    if state[0] == 0 or state[1] == 0:
        return np.nan, np.nan
    return 1.0 - state[2] / (state[0] * state[1]), state[3] / state[0]
