"""Runs: stretches of a row in which a label map, or a pair of them, doesn't change.

Maps are C-contiguous arrays of one axis, of uint8 or uint32. Words of 8 bytes are compared
where they can be, so that the uniform parts of a map cost an eighth of a step a byte.
"""

import numpy as np
from numba import njit

from .bit_ops import load_word

_BYTES = np.uint64(0x0101010101010101)
_FOURS = np.uint64(0x0000000100000001)


@njit(inline="always")
def _repeated(value, itemsize):  # type: ignore[no-untyped-def]
    return np.uint64(value) * (_BYTES if itemsize == 1 else _FOURS)


@njit(inline="always")
def run_end(label_map, start, stop):  # type: ignore[no-untyped-def]
    """Return where the run that begins at an item ends.

    Args:
        label_map: Unsigned integers, shape (n,).
        start: First item of the run.
        stop: Where it ends at the latest, > start.
    """
    value = label_map[start]
    items = 8 // label_map.itemsize
    word = _repeated(value, label_map.itemsize)
    position = start + 1
    while position + 4 * items <= stop:
        differences = load_word(label_map, position) ^ word
        differences |= load_word(label_map, position + items) ^ word
        differences |= load_word(label_map, position + 2 * items) ^ word
        differences |= load_word(label_map, position + 3 * items) ^ word
        if differences != 0:
            break
        position += 4 * items
    while position + items <= stop and load_word(label_map, position) == word:
        position += items
    while position < stop and label_map[position] == value:
        position += 1
    return position


@njit(inline="always")
def pair_run_end(reference, prediction, start, stop):  # type: ignore[no-untyped-def]
    """Return where the run of both maps that begins at an item ends.

    Args:
        reference: Unsigned integers, shape (n,).
        prediction: Unsigned integers of the same type and shape.
        start: First item of the run.
        stop: Where it ends at the latest, > start.
    """
    value, other = reference[start], prediction[start]
    position = start + 1
    items = 8 // reference.itemsize
    word = _repeated(value, reference.itemsize)
    other_word = _repeated(other, reference.itemsize)
    while position + 4 * items <= stop:
        differences = load_word(reference, position) ^ word
        differences |= load_word(prediction, position) ^ other_word
        differences |= load_word(reference, position + items) ^ word
        differences |= load_word(prediction, position + items) ^ other_word
        differences |= load_word(reference, position + 2 * items) ^ word
        differences |= load_word(prediction, position + 2 * items) ^ other_word
        differences |= load_word(reference, position + 3 * items) ^ word
        differences |= load_word(prediction, position + 3 * items) ^ other_word
        if differences != 0:
            break
        position += 4 * items
    while position + items <= stop:
        differences = load_word(reference, position) ^ word
        differences |= load_word(prediction, position) ^ other_word
        if differences != 0:
            break
        position += items
    while position < stop and reference[position] == value and prediction[position] == other:
        position += 1
    return position
