"""Score probabilities against a reference, in pieces that needn't all be in memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from .engine.class_probabilities import sigmoid, softmax
from .engine.compiled import one_process_at_a_time
from .label_channels import Channels, LabelChannels
from .label_map import as_label_map
from .label_score import LabelKey
from .probability_scores import LabelProbabilityScore, ProbabilityScores
from .probability_sums import CountedRanks, DistributionSums, LabelSums, rank_bytes
from .requested_labels import checked_ignored, checked_labels, region_values

ACCEPTED_EXCESS = 1e-3
"""How far outside [0, 1] a probability may lie, for rounding; it is then taken as 0 or 1."""

MOST_SORTED = 1 << 24
"""Voxels times labels up to which ranks are exact in large images; beyond, nearly equal probabilities share one."""

MOST_RANK_BYTES = 1 << 29
"""Memory for the ranks of the labels that are scored in one pass over the probabilities."""

_SLAB_VALUES = 1 << 20

ProbabilityBlock = tuple[Channels, slice, np.ndarray]
"""Channels, some rows along the first spatial axis, and the probability there of being in any of the channels."""


class ProbabilityError(ValueError):
    """Say that numbers are no probabilities, or logits that give none."""


def score_probabilities(
    reference: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[LabelKey] | None = None,
    *,
    regions: Sequence[LabelKey] | None = None,
    logits: bool = False,
    ignore_label: int | None = None,
) -> ProbabilityScores:
    """Compute calibration, ranking and overlap by threshold.

    Args:
        reference: True label map, shape (D, H, W) or (H, W): integer values >= 0.
        probabilities: Shape (K, D, H, W) or (K, H, W), in [0, 1]. Channel k is of label k, unless `regions` says else.
        labels: Labels to score, each against all others; a tuple of values is a region. By default 1 to K - 1, or all
            regions.
        regions: What each channel is of, where channels don't exclude each other.
        logits: Whether the numbers are logits: softmax over the channels, with regions sigmoid, gives probabilities.
        ignore_label: Value in the reference that marks voxels to leave out.

    Returns:
        Scores by label and of the whole distribution.

    Raises:
        ValueError: If shapes don't fit, a label has no channel, or a number is no probability.

    Source:
        Brier 1950 (Brier score); Guo et al. 2017, arXiv:1706.04599 (expected calibration error). Average precision is
        the step-wise sum of scikit-learn.

    Example:
        >>> scores = score_probabilities(np.array([[0, 1]]), np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
        >>> scores.labels[1].brier, scores.labels[1].auroc
        (0.0625, 1.0)
    """
    reference, probabilities = as_label_map(reference, "reference"), np.asarray(probabilities)
    if probabilities.dtype.kind not in "biuf":
        raise ValueError(f"probabilities must be real numbers, got values of type {probabilities.dtype}; convert them")
    if probabilities.ndim not in (3, 4) or probabilities.shape[1:] != reference.shape:
        raise ValueError(
            f"probabilities must be (K, D, H, W) or (K, H, W) for a reference of shape {reference.shape}, "
            f"got {probabilities.shape}"
        )
    if np.isnan(probabilities).any():
        raise ValueError("probabilities must be numbers, got nan")
    values = None if regions is None else tuple(region_values(region) for region in regions)
    channels = LabelChannels(len(probabilities), values)
    wanted = tuple(checked_labels(channels.foreground() if labels is None else labels))
    unions = [channels.of(_values(label)) for label in wanted]
    return score_blocks(
        reference,
        lambda: blocks_of_slabs(_slabs_of(probabilities), channels, unions, logits=logits),
        wanted,
        channels,
        "logits" if logits else "probabilities",
        checked_ignored(ignore_label),
    )


def score_blocks(
    reference: np.ndarray,
    blocks: Callable[[], Iterable[ProbabilityBlock]],
    labels: Sequence[LabelKey],
    channels: LabelChannels,
    source: str,
    ignore_label: int | None,
    *,
    channel_by_channel: bool = False,
) -> ProbabilityScores:
    """Score probabilities that come in pieces.

    Args:
        reference: True label map, shape (D, H, W) or (H, W).
        blocks: Starts to yield the probabilities of every label's channels and of every single channel; the same rows
            for each channel, the channels of some rows in ascending order.
        labels: Labels to score.
        channels: Which channel is of which label.
        source: `probabilities` or `logits`.
        ignore_label: Value in the reference that marks voxels to leave out.
        channel_by_channel: Whether the blocks of a channel come one after the other, so that labels share the memory
            for their ranks. If not, many labels in a large image take more than one pass over the blocks.

    Returns:
        Scores; labels without a channel are missing.
    """
    with_channel = {label: channels.of(_values(label)) for label in labels}
    with_channel = {label: own for label, own in with_channel.items() if own}
    exact = _is_sorted(reference.size, len(labels))
    step = len(with_channel) if channel_by_channel else max(1, MOST_RANK_BYTES // rank_bytes(reference.size, exact))
    whole = DistributionSums(reference, channels, ignore_label) if channels.regions is None else None
    scored: dict[LabelKey, LabelProbabilityScore] = {}
    for start in range(0, max(1, len(with_channel)), max(1, step)):
        group = list(with_channel)[start : start + step]
        sums = {label: LabelSums(_values(label), reference, ignore_label, exact=exact) for label in group}
        for block_channels, rows, p in blocks():
            for label, own in sums.items():
                if with_channel[label] == block_channels:
                    own.add(rows, p)
            if whole is not None and len(block_channels) == 1 and start == 0:
                whole.add(block_channels[0], rows, p)
        scored |= {label: own.score() for label, own in sums.items()}
    return ProbabilityScores(scored, whole.score() if whole is not None else None, source)


def _is_sorted(n_voxels: int, n_labels: int) -> bool:
    """Return whether ranks are those of all voxels, sorted: always where this takes no more memory than counting."""
    return rank_bytes(n_voxels, True) <= rank_bytes(n_voxels, False) or n_voxels * n_labels <= MOST_SORTED


def blocks_of_slabs(
    slabs: Iterable[tuple[slice, np.ndarray]], channels: LabelChannels, unions: Iterable[Channels], *, logits: bool
) -> Iterator[ProbabilityBlock]:
    """Yield the probabilities of every channel, and of being in any of several channels.

    Args:
        slabs: Rows, and the numbers of all channels there, shape (K, rows, ...).
        channels: Which channel is of which label.
        unions: Channels to unite; a single one is yielded anyway.
        logits: Whether the numbers are logits.

    Yields:
        Blocks, all those of some rows before those of the next.

    Raises:
        ProbabilityError: If a number is no probability, or a logit is infinite.
    """
    several = {union for union in unions if len(union) > 1}
    for rows, slab in slabs:
        p = probabilities_of_logits(slab, channels) if logits else as_probabilities(slab)
        for channel in range(len(p)):
            yield (channel,), rows, p[channel]
        for union in several:
            yield union, rows, np.minimum(p[list(union)].sum(axis=0), np.float32(1))


def probabilities_of_logits(slab: np.ndarray, channels: LabelChannels) -> np.ndarray:
    """Return softmax over the channels, or with regions the sigmoid of each.

    Args:
        slab: Logits, shape (K, ...).
        channels: Which channel is of which label.

    Returns:
        Probabilities, float32, same shape.

    Raises:
        ProbabilityError: If a voxel has no largest finite logit.
    """
    values = _as_float32(slab)
    p = np.empty_like(values)
    if channels.regions is not None:
        sigmoid(values.reshape(-1), p.reshape(-1))
    elif not softmax(values.reshape(len(values), -1), p.reshape(len(p), -1)):
        raise ProbabilityError("the largest logit of each voxel must be finite, got an infinite one")
    return p


def as_probabilities(block: np.ndarray) -> np.ndarray:
    """Return numbers as float32 in [0, 1].

    Args:
        block: Probabilities, any shape.

    Returns:
        The same, rounded to float32.

    Raises:
        ProbabilityError: If one lies outside [0, 1] by more than `ACCEPTED_EXCESS`.
    """
    low, high = float(block.min()), float(block.max())
    if low < -ACCEPTED_EXCESS or high > 1 + ACCEPTED_EXCESS:
        raise ProbabilityError(f"probabilities must be in [0, 1], got {low:g} to {high:g}; are these logits?")
    values = _as_float32(block)
    return values if low >= 0 and high <= 1 else np.clip(values, 0, 1)


def warm_up_calibration() -> None:
    """Compile everything that calibration needs, or load it from disk; one process at a time does."""
    reference = np.array([[0, 1]], np.uint8)
    with one_process_at_a_time():
        score_probabilities(reference, np.full((2, 1, 2), 0.5), logits=True)
        score_probabilities(reference, np.full((1, 1, 2), 0.5), regions=[1], logits=True)
        ranks = CountedRanks()
        ranks.add(np.full(2, 0.5, np.float32), np.zeros(2, np.uint8))
        ranks.areas()


def _values(label: LabelKey) -> tuple[int, ...]:
    return tuple(label) if isinstance(label, tuple | list) else (label,)


def _slabs_of(array: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    step = max(1, _SLAB_VALUES * array.shape[1] // max(1, array.size))
    for start in range(0, array.shape[1], step):
        yield slice(start, start + step), array[:, start : start + step]


def _as_float32(array: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(array, np.float32)
    return values if values.flags.writeable else values.copy()  # loops are compiled for arrays that may be written to
