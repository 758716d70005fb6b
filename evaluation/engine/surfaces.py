"""Surfaces of bit masks: border voxels, and the nodes of the dual grid where a mask begins or ends.

Both have the layout of `bit_masks`. A node's bit is that of the voxel with the larger index in each axis of the 2x2x2
voxels that meet there, less one: node (z, y, x) lies between the mask's padded voxels (z, y, x) and (z+1, y+1, x+1).
"""

import numpy as np
from numba import njit

from .bit_ops import ONE, trailing_zeros
from .compiled import compiled

_TOP = np.uint64(63)


@compiled
def border(mask, flat, result):  # type: ignore[no-untyped-def]
    """Find the voxels of a mask that have a face neighbour outside it.

    Args:
        mask: uint64, shape (D + 2, H + 2, words).
        flat: Whether it is a 2D image, in which only neighbours in the plane count.
        result: uint64 of the same shape, written to.
    """
    n_words = mask.shape[2]
    result[0] = 0
    result[-1] = 0
    for plane in range(1, mask.shape[0] - 1):
        result[plane, 0] = 0
        result[plane, -1] = 0
        for line in range(1, mask.shape[1] - 1):
            row = mask[plane, line]
            for word in range(n_words):
                own = row[word]
                if own == 0:
                    result[plane, line, word] = 0
                    continue
                before = row[word - 1] >> _TOP if word else np.uint64(0)
                after = row[word + 1] << _TOP if word + 1 < n_words else np.uint64(0)
                inside = (own << ONE | before) & (own >> ONE | after)
                inside &= mask[plane, line - 1, word] & mask[plane, line + 1, word]
                if not flat:
                    inside &= mask[plane - 1, line, word] & mask[plane + 1, line, word]
                result[plane, line, word] = own & ~inside


@njit(inline="always")
def _shifted(row, word):  # type: ignore[no-untyped-def]
    """Return a word of a row in which each bit is that of the next voxel."""
    after = row[word + 1] << _TOP if word + 1 < row.size else np.uint64(0)
    return row[word] >> ONE | after


@compiled
def _filled_rows(mask):  # type: ignore[no-untyped-def]
    filled = np.zeros(mask.shape[:2], dtype=np.bool_)
    for plane in range(mask.shape[0]):
        for line in range(mask.shape[1]):
            for word in mask[plane, line]:
                if word:
                    filled[plane, line] = True
                    break
    return filled


@compiled
def nodes(mask, flat, result):  # type: ignore[no-untyped-def]
    """Find the nodes around which a mask holds some voxels and lacks others.

    Args:
        mask: uint64, shape (D + 2, H + 2, words).
        flat: Whether it is a 2D image, whose nodes lie between 2x2 voxels.
        result: uint64 of the same shape, written to; the last plane (in 2D all but the second) and the last line of
            each plane get no node.
    """
    n_steps = 2 if flat else 4
    filled = _filled_rows(mask)
    for plane in range(mask.shape[0]):
        for line in range(mask.shape[1]):
            result[plane, line] = 0
            beyond = plane != 1 if flat else plane == mask.shape[0] - 1
            if beyond or line == mask.shape[1] - 1:
                continue
            some_filled = filled[plane, line] or filled[plane, line + 1]
            if not (some_filled or (not flat and (filled[plane + 1, line] or filled[plane + 1, line + 1]))):
                continue
            for word in range(mask.shape[2]):
                some, all_ = np.uint64(0), ~np.uint64(0)
                for step in range(n_steps):
                    row = mask[plane + (step >> 1), line + (step & 1)]
                    here, following = row[word], _shifted(row, word)
                    some |= here | following
                    all_ &= here & following
                result[plane, line, word] = some & ~all_


@njit(inline="always")
def corner_words(mask, flat, plane, line, word, corners):  # type: ignore[no-untyped-def]
    """Write which voxels around the nodes of a word a mask holds.

    Args:
        mask: uint64, shape (D + 2, H + 2, words).
        flat: Whether it is a 2D image.
        plane: Plane of the nodes.
        line: Line of the nodes.
        word: Word of the nodes.
        corners: uint64, shape (8,), in 2D (4,): bit b of entry 4 z + 2 y + x (in 2D 2 y + x) is set if the mask holds
            voxel (z, y, x), counted from node b.
    """
    for step in range(2 if flat else 4):
        row = mask[plane + (step >> 1), line + (step & 1)]
        corners[2 * step] = row[word]
        corners[2 * step + 1] = _shifted(row, word)


@njit(inline="always")
def node_code(corners, bit):  # type: ignore[no-untyped-def]
    """Return which voxels around a node a mask holds, bit k for the k-th of `corner_words`."""
    code = 0
    for corner in range(corners.size):
        code |= np.int64((corners[corner] >> bit) & ONE) << corner
    return code


@compiled
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
    corners = np.empty(4 if flat else 8, dtype=np.uint64)
    for plane in range(own.shape[0]):
        for line in range(own.shape[1]):
            for word in range(own.shape[2]):
                bits = own[plane, line, word]
                if bits == 0:
                    continue
                corner_words(mask, flat, plane, line, word, corners)
                others = other[plane, line, word]
                while bits:
                    bit = trailing_zeros(bits)
                    size = sizes[node_code(corners, bit)]
                    if (others >> bit) & ONE:
                        shared += size
                    else:
                        apart_sizes[from_node] = size
                        from_node += 1
                    bits &= bits - ONE
    return shared
