"""Masks of one label, a bit a voxel.

A mask covers a box and one voxel more on every side, where nothing is set; in a 2D image that is so for rows and
columns only. Its words are uint64, shape (D + 2, H + 2, words): bit b of word w in a row is voxel 64 w + b - 1 of the
box.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from .bit_ops import ALL, ONE, set_bits
from .compiled import compiled
from .flat_maps import FlatMap
from .label_counts import Box
from .label_index import LabelIndex, number_of
from .runs import run_end


def mask_shape(box: Box) -> tuple[int, int, int]:
    """Return the shape of the mask of a box, in words."""
    (first, stop), (top, bottom), (left, right) = box
    return stop - first + 2, bottom - top + 2, (right - left + 2 + 63) // 64


def fill_mask(
    mask: np.ndarray,
    label_map: FlatMap,
    box: Box,
    index: LabelIndex,
    numbers: Sequence[int],
    filled: Box | None = None,
) -> np.ndarray:
    """Make the mask of some labels in a box.

    Args:
        mask: uint64, shape `mask_shape(box)`, written to.
        label_map: The map.
        box: Part of it to take.
        index: Numbers of the label values.
        numbers: Numbers of the labels that are united in the mask.
        filled: Part of the box beyond which the labels don't occur in this map; None for the whole box.

    Returns:
        The mask.
    """
    (first, _), (top, _), (left, _) = box
    mask[:] = 0
    member = np.zeros(index.other + 1, dtype=bool)
    member[list(numbers)] = True
    height, width = label_map.array.shape[1:]
    planes, lines, columns = box if filled is None else filled
    for plane, piece in label_map.slabs(*planes):
        offsets = (plane - first + 1, 1 - top, 1 - left)
        _fill(piece, height, width, lines, columns, offsets, index.table, index.large, index.other, member, mask)
    return mask


@compiled
def _fill(piece, height, width, lines, columns, offsets, table, large, other, member, mask):  # type: ignore[no-untyped-def]
    """Set the bits of the labels in some lines and columns; `offsets` lead from places in the piece to the mask's."""
    for plane in range(piece.size // (height * width)):
        for line in range(lines[0], lines[1]):
            start = (plane * height + line) * width
            position, stop = start + columns[0], start + columns[1]
            words = mask[plane + offsets[0], line + offsets[1]]
            while position < stop:
                end = run_end(piece, position, stop)
                if member[number_of(piece[position], table, large, other)]:
                    _set_range(words, position - start + offsets[2], end - start + offsets[2])
                position = end


@njit(inline="always")
def _set_range(words, first, stop):  # type: ignore[no-untyped-def]
    """Set the bits from one position to before another."""
    first_word, last_word = first >> 6, (stop - 1) >> 6
    head = ALL << np.uint64(first & 63)
    tail = ALL >> np.uint64(63 - ((stop - 1) & 63))
    if first_word == last_word:
        words[first_word] |= head & tail
        return
    words[first_word] |= head
    for word in range(first_word + 1, last_word):
        words[word] = ALL
    words[last_word] |= tail


def unpacked(mask: np.ndarray, flat: bool) -> np.ndarray:
    """Return a mask as booleans.

    Args:
        mask: The mask.
        flat: Whether it is a 2D image.

    Returns:
        Shape (D, H, W'), in 2D (H, W'): voxels of the box, in each row followed by some that are not set.
    """
    words = mask[1] if flat else mask[1:-1]
    # a word's lowest byte holds its first voxels, whatever the machine's order of bytes
    row_bytes = np.ascontiguousarray(words[..., 1:-1, :]).astype("<u8").view(np.uint8)
    return np.unpackbits(row_bytes, axis=-1, bitorder="little")[..., 1:].astype(bool)


@compiled
def count_bits(mask):  # type: ignore[no-untyped-def]
    """Return how many bits of a mask are set."""
    total = 0
    for word in mask.reshape(-1):
        total += np.int64(set_bits(word))
    return total


@compiled
def remove_bits(mask, other):  # type: ignore[no-untyped-def]
    """Clear the bits of a mask that are set in another of the same shape."""
    words, others = mask.reshape(-1), other.reshape(-1)
    for position in range(words.size):
        words[position] &= ~others[position]


@njit(inline="always")
def bit_at(words, position):  # type: ignore[no-untyped-def]
    """Return the bit at a position of a row, 0 or 1."""
    return (words[position >> 6] >> np.uint64(position & 63)) & ONE
