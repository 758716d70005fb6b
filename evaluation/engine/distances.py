"""Exact distances from the points of one bit mask to the nearest point of another.

A point looks through the rows of the other mask from the nearest outwards; in each row the nearest set bit is found
in a few instructions. It stops at the first row that is farther away than what it found. Points that find nothing in
the nearest rows are left to `far_points`, so that distant objects cost little more than near ones.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numba import njit

from .bit_ops import ONE, leading_zeros, set_bits, trailing_zeros
from .compiled import compiled
from .far_points import occupied_blocks, resolve_far

MOST_ROWS = 512
"""Rows that a point looks through at most."""

_SAMPLE_POINTS = 256
"""After so many points the search gives up at once if most of them found nothing near."""


def distances_to(
    own: np.ndarray, other: np.ndarray, spacing_mm: Sequence[float], limit_mm: float = math.inf
) -> np.ndarray:
    """Return how far the points of one mask that the other doesn't share are from the nearest of the other's.

    Args:
        own: Points to start from: uint64, shape (D, H, words), a bit a point.
        other: Points to find, uint64 of the same shape, at least one.
        spacing_mm: Distance of neighbouring points in mm: planes, lines, columns.
        limit_mm: Distances above it are of no interest, and given as inf.

    Returns:
        Distances in mm, float64, shape (points of `own` that aren't in `other`,), in array order.
    """
    distances = np.empty(_count_apart(own, other))
    if not distances.size:
        return distances
    spacing = tuple(float(size) for size in spacing_mm)
    steps, rows_mm2, reach_mm2 = _row_order(spacing, own.shape[0], own.shape[1])
    limited = limit_mm < math.inf and limit_mm * limit_mm <= reach_mm2
    if limited:
        reach_mm2 = limit_mm * limit_mm
    # a search that ends at the limit is short; else it is tried on a few points first
    sample = distances.size if limited else _SAMPLE_POINTS
    n_far = _search_near(own, other, _row_extents(other), steps, rows_mm2, reach_mm2, spacing[2], distances, sample)
    if n_far and limited:
        distances[distances < 0] = math.inf
    elif n_far:
        sizes_mm = np.array(spacing)
        places, boxes_mm = occupied_blocks(other, sizes_mm)
        resolve_far(own, other, places, boxes_mm, sizes_mm, distances)
    return distances


@lru_cache(maxsize=64)
def _row_order(spacing_mm: tuple[float, ...], planes: int, lines: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the steps to the rows around a point, nearest first, their squared distances, and how far they reach."""
    disc_mm = math.sqrt(MOST_ROWS * spacing_mm[0] * spacing_mm[1] / math.pi)
    reach = [int(min(count - 1, disc_mm // size)) for count, size in zip((planes, lines), spacing_mm[:2], strict=True)]
    if planes == 1:
        reach = [0, lines - 1]
    down, across = (np.arange(-n, n + 1) for n in reach)
    squared = (down[:, None] * spacing_mm[0]) ** 2 + (across[None, :] * spacing_mm[1]) ** 2
    order = np.argsort(squared, axis=None, kind="stable")
    complete = reach == [planes - 1, lines - 1]
    order = order if complete else order[squared.ravel()[order] <= disc_mm**2]
    steps = np.stack(np.unravel_index(order, squared.shape), axis=1) - np.array(reach)
    return steps.astype(np.int64), squared.ravel()[order], math.inf if complete else disc_mm**2


@compiled
def _count_apart(own, other):  # type: ignore[no-untyped-def]
    mine, others = own.reshape(-1), other.reshape(-1)
    total = 0
    for position in range(mine.size):
        total += np.int64(set_bits(mine[position] & ~others[position]))
    return total


@compiled
def _row_extents(mask):  # type: ignore[no-untyped-def]
    """Return the first and the last set bit of each row, shape (planes, lines, 2); -1 if there is none."""
    extents = np.full((mask.shape[0], mask.shape[1], 2), -1, dtype=np.int32)
    for plane in range(mask.shape[0]):
        for line in range(mask.shape[1]):
            for word in range(mask.shape[2]):
                bits = mask[plane, line, word]
                if bits:
                    if extents[plane, line, 0] < 0:
                        extents[plane, line, 0] = 64 * word + np.int64(trailing_zeros(bits))
                    extents[plane, line, 1] = 64 * word + 63 - np.int64(leading_zeros(bits))
    return extents


@njit(inline="always")
def _nearest_in_row(row, first, last, column):  # type: ignore[no-untyped-def]
    """Return how many columns away the nearest set bit of a row is that has one, at `first` and at `last`."""
    if column <= first:
        return first - column
    if column >= last:
        return column - last
    word, bit = column >> 6, np.uint64(column & 63)
    bits = row[word] >> bit
    ahead = word
    if bits:
        right = np.int64(trailing_zeros(bits))
    else:
        ahead += 1
        while row[ahead] == 0:
            ahead += 1
        right = 64 * ahead + np.int64(trailing_zeros(row[ahead])) - column
    bits = row[word] << (np.uint64(63) - bit)
    if bits:
        return min(right, np.int64(leading_zeros(bits)))
    behind = word - 1
    while row[behind] == 0:
        behind -= 1
    return min(right, column - (64 * behind + 63 - np.int64(leading_zeros(row[behind]))))


@compiled
def _search_near(  # type: ignore[no-untyped-def]
    own, other, extents, steps, rows_mm2, reach_mm2, column_mm, distances, sample_points
):
    """Write the distance of each point of `own` that isn't in `other`, -1 if it is beyond the reach; count those."""
    planes, lines, n_words = own.shape
    found, unresolved = 0, 0
    for plane in range(planes):
        for line in range(lines):
            for word in range(n_words):
                bits = own[plane, line, word] & ~other[plane, line, word]
                while bits:
                    column = 64 * word + np.int64(trailing_zeros(bits))
                    bits &= bits - ONE
                    best_mm2 = np.inf
                    if found < sample_points or 2 * unresolved < found:
                        for step in range(rows_mm2.size):
                            if rows_mm2[step] >= best_mm2 or rows_mm2[step] > reach_mm2:
                                break
                            z, y = plane + steps[step, 0], line + steps[step, 1]
                            if z < 0 or z >= planes or y < 0 or y >= lines or extents[z, y, 0] < 0:
                                continue
                            extent = extents[z, y]
                            columns = _nearest_in_row(other[z, y], np.int64(extent[0]), np.int64(extent[1]), column)
                            away_mm = columns * column_mm
                            best_mm2 = min(best_mm2, rows_mm2[step] + away_mm * away_mm)
                    if best_mm2 <= reach_mm2 and best_mm2 < np.inf:
                        distances[found] = math.sqrt(best_mm2)
                    else:
                        distances[found] = -1.0
                        unresolved += 1
                    found += 1
    return unresolved
