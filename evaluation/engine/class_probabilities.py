"""Loops over the probabilities of all classes: from logits, and scores of the whole distribution."""

import math

import numpy as np

from .compiled import compiled
from .probability_counts import CLIP


@compiled
def softmax(logits, probabilities):  # type: ignore[no-untyped-def]
    """Turn logits into probabilities that add up to 1.

    Args:
        logits: float32, shape (K, n).
        probabilities: Where to write, float32, shape (K, n).

    Returns:
        Whether each voxel has a largest finite logit; if not, some probabilities aren't numbers.
    """
    n_channels, n = logits.shape
    powers = np.empty(n_channels)
    sound = True
    for i in range(n):
        largest = logits[0, i]
        for channel in range(1, n_channels):
            largest = max(largest, logits[channel, i])
        sound = sound and math.isfinite(largest)
        total = 0.0
        for channel in range(n_channels):
            powers[channel] = math.exp(np.float64(logits[channel, i]) - largest)
            total += powers[channel]
        for channel in range(n_channels):
            probabilities[channel, i] = powers[channel] / total
    return sound


@compiled
def sigmoid(logits, probabilities):  # type: ignore[no-untyped-def]
    """Turn logits of independent channels into probabilities.

    Args:
        logits: float32, shape (n,).
        probabilities: Where to write, float32, shape (n,).
    """
    for i in range(logits.size):
        probabilities[i] = 1.0 / (1.0 + math.exp(-np.float64(logits[i])))


@compiled
def add_channel(p, channel, classes, best, top, sums):  # type: ignore[no-untyped-def]
    """Add a channel of some voxels to the scores of the whole distribution.

    Args:
        p: Probabilities of the channel, float32, shape (n,).
        channel: Its number; they come in ascending order.
        classes: Number of each voxel's true channel, negative if it doesn't count, int32, shape (n,).
        best: Largest probability of the channels so far, float32, shape (n,).
        top: The channel that it is of.
        sums: Adds up cross-entropy in nats and squared error, float64, shape (2,).
    """
    cross_entropy, squared = 0.0, 0.0
    for i in range(p.size):
        if channel == 0 or p[i] > best[i]:
            best[i] = p[i]
            top[i] = channel
        if classes[i] < 0:
            continue
        value = np.float64(p[i])
        if classes[i] == channel:
            squared += (1.0 - value) ** 2
            cross_entropy -= math.log(min(max(value, CLIP), 1.0 - CLIP))
        else:
            squared += value * value
    sums[0] += cross_entropy
    sums[1] += squared


@compiled
def add_top(best, top, classes, n_bins, reliability):  # type: ignore[no-untyped-def]
    """Count how often the likeliest channel is the true one, by its probability.

    Args:
        best: Largest probability, float32, shape (n,).
        top: The channel that it is of, shape (n,).
        classes: Number of each voxel's true channel, negative if it doesn't count, int32, shape (n,).
        n_bins: Number of bins of equal width; the last holds 1 too.
        reliability: Adds up voxels, probability and hits by bin, float64, shape (3, n_bins).
    """
    for i in range(best.size):
        if classes[i] >= 0:
            in_bin = min(int(np.float64(best[i]) * n_bins), n_bins - 1)
            reliability[0, in_bin] += 1
            reliability[1, in_bin] += best[i]
            reliability[2, in_bin] += classes[i] == top[i]
