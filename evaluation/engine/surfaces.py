"""Surfaces of bit masks: border voxels, and the nodes of the dual grid where a mask begins or ends.

Both have the layout of `bit_masks`. A node's bit is that of the voxel with the larger index in each axis of the 2x2x2
voxels that meet there, less one: node (z, y, x) lies between the mask's padded voxels (z, y, x) and (z+1, y+1, x+1).
"""

import numpy as np
from numba import njit

from .bit_ops import ONE, trailing_zeros

_TOP = np.uint64(63)


@njit(cache=True, nogil=True)
def border(mask, flat):  # type: ignore[no-untyped-def]
    """Return the voxels of a mask that have a face neighbour outside it.

    Args:
        mask: uint64, shape (D + 2, H + 2, words).
        flat: Whether it is a 2D image, in which only neighbours in the plane count.

    Returns:
        uint64 of the same shape.
    """
    result = np.zeros_like(mask)
    n_words = mask.shape[2]
    for plane in range(1, mask.shape[0] - 1):
        for line in range(1, mask.shape[1] - 1):
            row = mask[plane, line]
            for word in range(n_words):
                own = row[word]
                if own == 0:
                    continue
                before = row[word - 1] >> _TOP if word else np.uint64(0)
                after = row[word + 1] << _TOP if word + 1 < n_words else np.uint64(0)
                inside = (own << ONE | before) & (own >> ONE | after)
                inside &= mask[plane, line - 1, word] & mask[plane, line + 1, word]
                if not flat:
                    inside &= mask[plane - 1, line, word] & mask[plane + 1, line, word]
                result[plane, line, word] = own & ~inside
    return result


@njit(inline="always")
def _shifted(row, word):  # type: ignore[no-untyped-def]
    """Return a word of a row in which each bit is that of the next voxel."""
    after = row[word + 1] << _TOP if word + 1 < row.size else np.uint64(0)
    return row[word] >> ONE | after


@njit(cache=True, nogil=True)
def _filled_rows(mask):  # type: ignore[no-untyped-def]
    filled = np.zeros(mask.shape[:2], dtype=np.bool_)
    for plane in range(mask.shape[0]):
        for line in range(mask.shape[1]):
            for word in mask[plane, line]:
                if word:
                    filled[plane, line] = True
                    break
    return filled


@njit(cache=True, nogil=True)
def nodes(mask, flat):  # type: ignore[no-untyped-def]
    """Return the nodes around which a mask holds some voxels and lacks others.

    Args:
        mask: uint64, shape (D + 2, H + 2, words).
        flat: Whether it is a 2D image, whose nodes lie between 2x2 voxels.

    Returns:
        uint64 of the same shape; the last plane (in 2D all but the second) and the last line are empty.
    """
    result = np.zeros_like(mask)
    first, stop = (1, 2) if flat else (0, mask.shape[0] - 1)
    filled = _filled_rows(mask)
    for plane in range(first, stop):
        for line in range(mask.shape[1] - 1):
            some_filled = filled[plane, line] or filled[plane, line + 1]
            if not (some_filled or (not flat and (filled[plane + 1, line] or filled[plane + 1, line + 1]))):
                continue
            for word in range(mask.shape[2]):
                some, all_ = np.uint64(0), ~np.uint64(0)
                for step in range(2 if flat else 4):
                    row = mask[plane + (step >> 1), line + (step & 1)]
                    here, following = row[word], _shifted(row, word)
                    some |= here | following
                    all_ &= here & following
                result[plane, line, word] = some & ~all_
    return result


@njit(inline="always")
def node_code(mask, flat, plane, line, column):  # type: ignore[no-untyped-def]
    """Return which voxels around a node a mask holds.

    Args:
        mask: uint64, shape (D + 2, H + 2, words).
        flat: Whether it is a 2D image.
        plane: Plane of the node.
        line: Line of the node.
        column: Bit of the node.

    Returns:
        The bit of voxel (z, y, x) is 4 z + 2 y + x, in 2D that of (y, x) is 2 y + x, counted from the node.
    """
    code = 0
    for step in range(2 if flat else 4):
        row = mask[plane + (step >> 1), line + (step & 1)]
        for x in range(2):
            position = column + x
            if position >> 6 < row.size:
                bit = (row[position >> 6] >> np.uint64(position & 63)) & ONE
                code |= np.int64(bit) << (2 * step + x)
    return code


@njit(cache=True, nogil=True)
def node_sizes(mask, own, other, flat, sizes, apart_sizes):  # type: ignore[no-untyped-def]
    """Write the sizes of the nodes of one surface that the other doesn't share; return the sum of the others'.

    Args:
        mask: Mask that `own` is the nodes of.
        own: Nodes, uint64, shape (D + 2, H + 2, words).
        other: The other mask's nodes.
        flat: Whether it is a 2D image.
        sizes: Size of the surface by code of the node.
        apart_sizes: float64, shape (nodes of `own` that aren't in `other`,), written in array order.
    """
    from_node = 0
    shared = 0.0
    for plane in range(own.shape[0]):
        for line in range(own.shape[1]):
            for word in range(own.shape[2]):
                bits = own[plane, line, word]
                while bits:
                    column = 64 * word + np.int64(trailing_zeros(bits))
                    size = sizes[node_code(mask, flat, plane, line, column)]
                    if other[plane, line, word] >> np.uint64(column & 63) & ONE:
                        shared += size
                    else:
                        apart_sizes[from_node] = size
                        from_node += 1
                    bits &= bits - ONE
    return shared
