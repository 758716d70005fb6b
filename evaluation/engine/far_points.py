"""Distances of points whose nearest counterpart is far away.

The mask to be found is cut into blocks of 8 x 8 rows and one word, each with the box that its bits fill. Points that
lie together (in such a block of their own) share the short list of blocks that can hold their nearest point; each
point then looks through those that are nearer than what it has found.
"""

import math

import numpy as np
from numba import njit

from .bit_ops import ONE, leading_zeros, set_bits, trailing_zeros
from .compiled import compiled

_SIDE = 8
"""Planes and lines of a block."""

_WINDOWS = 4
"""Parts of a block's columns whose points are taken together."""


@compiled
def occupied_blocks(mask, spacing_mm):  # type: ignore[no-untyped-def]
    """Return the boxes of the blocks of a mask in which a bit is set.

    Args:
        mask: uint64, shape (D, H, words).
        spacing_mm: float64, shape (3,): distance of neighbouring points.

    Returns:
        int64 (n, 5): first plane, the one after the last, first line, the one after the last, word; and float64
        (6, n): lowest and highest place in mm, by axis.
    """
    places = np.empty((64, 5), dtype=np.int64)
    boxes_mm = np.empty((64, 6))
    found = 0
    planes, lines, n_words = mask.shape
    for plane in range(0, planes, _SIDE):
        for line in range(0, lines, _SIDE):
            for word in range(n_words):
                together = np.uint64(0)
                first_z, last_z, first_y, last_y = planes, -1, lines, -1
                for z in range(plane, min(plane + _SIDE, planes)):
                    for y in range(line, min(line + _SIDE, lines)):
                        bits = mask[z, y, word]
                        if bits:
                            together |= bits
                            first_z, last_z = min(first_z, z), z
                            first_y, last_y = min(first_y, y), max(last_y, y)
                if not together:
                    continue
                if found == len(places):
                    places = np.concatenate((places, np.empty_like(places)))
                    boxes_mm = np.concatenate((boxes_mm, np.empty_like(boxes_mm)))
                places[found] = (first_z, last_z + 1, first_y, last_y + 1, word)
                boxes_mm[found, 0], boxes_mm[found, 1] = first_z * spacing_mm[0], last_z * spacing_mm[0]
                boxes_mm[found, 2], boxes_mm[found, 3] = first_y * spacing_mm[1], last_y * spacing_mm[1]
                first_x = 64 * word + np.int64(trailing_zeros(together))
                last_x = 64 * word + 63 - np.int64(leading_zeros(together))
                boxes_mm[found, 4], boxes_mm[found, 5] = first_x * spacing_mm[2], last_x * spacing_mm[2]
                found += 1
    return places[:found], boxes_mm[:found].T.copy()


@njit(inline="always")
def _gap(low, high, place):  # type: ignore[no-untyped-def]
    """Return how far a place is from an interval."""
    return max(0.0, low - place, place - high)


@compiled
def _ways_to_boxes(boxes_mm, z_mm, y_mm, x_mm, ways_mm2):  # type: ignore[no-untyped-def]
    """Write the squared distance of a place to each box."""
    for block in range(ways_mm2.size):
        dz = _gap(boxes_mm[0, block], boxes_mm[1, block], z_mm)
        dy = _gap(boxes_mm[2, block], boxes_mm[3, block], y_mm)
        dx = _gap(boxes_mm[4, block], boxes_mm[5, block], x_mm)
        ways_mm2[block] = dz * dz + dy * dy + dx * dx


@njit(inline="always")
def _columns_away(bits, bit):  # type: ignore[no-untyped-def]
    """Return how far the nearest set bit of a word is from a bit, which may lie outside the word."""
    if bit <= 0:
        return np.int64(trailing_zeros(bits)) - bit
    if bit >= 63:
        return bit - (63 - np.int64(leading_zeros(bits)))
    away = np.int64(1 << 40)
    ahead = bits >> np.uint64(bit)
    if ahead:
        away = np.int64(trailing_zeros(ahead))
    behind = bits << np.uint64(63 - bit)
    if behind:
        away = min(away, np.int64(leading_zeros(behind)))
    return away


@compiled
def _search_block(mask, place, columns_mm2, spacing_mm, z, y, x, best_mm2):  # type: ignore[no-untyped-def]
    """Return the squared distance to the nearest point in a block if it is smaller than the best so far.

    Planes, and lines in them, are taken from the nearest on, so that the first that is too far ends the search.
    `columns_mm2` is the square of the least that the way along a line can be.
    """
    column = x - 64 * place[4]
    nearest_plane = min(max(z, place[0]), place[1] - 1)
    nearest_line = min(max(y, place[2]), place[3] - 1)
    for down in (0, 1):
        plane, plane_step = (nearest_plane - 1, -1) if down else (nearest_plane, 1)
        while place[0] <= plane < place[1]:
            dz = (plane - z) * spacing_mm[0]
            if dz * dz + columns_mm2 >= best_mm2:
                break
            for left in (0, 1):
                line, line_step = (nearest_line - 1, -1) if left else (nearest_line, 1)
                while place[2] <= line < place[3]:
                    dy = (line - y) * spacing_mm[1]
                    row_mm2 = dz * dz + dy * dy
                    if row_mm2 + columns_mm2 >= best_mm2:
                        break
                    bits = mask[plane, line, place[4]]
                    if bits:
                        dx = _columns_away(bits, column) * spacing_mm[2]
                        best_mm2 = min(best_mm2, row_mm2 + dx * dx)
                    line += line_step
            plane += plane_step
    return best_mm2


@compiled
def resolve_far(own, other, places, boxes_mm, spacing_mm, distances):  # type: ignore[no-untyped-def]
    """Replace the distances that are negative by exact ones.

    Args:
        own: Points to start from: uint64, shape (D, H, words).
        other: Points to find, of the same shape.
        places: Of `other`, as made by `occupied_blocks`.
        boxes_mm: The same.
        spacing_mm: float64, shape (3,).
        distances: In mm, one for each point of `own` that isn't in `other`, in array order; written to.
    """
    planes, lines, n_words = own.shape
    numbers = np.empty((_SIDE * _SIDE * 64, 4), dtype=np.int64)
    together = np.empty_like(numbers)
    near = np.empty(len(places), dtype=np.int64)
    ways_mm2 = np.empty(len(places))
    guess = 0
    starts = np.empty((_SIDE, lines), dtype=np.int64)
    counted = 0
    for plane in range(0, planes, _SIDE):
        for z in range(plane, min(plane + _SIDE, planes)):
            for y in range(lines):
                starts[z - plane, y] = counted
                for word in range(n_words):
                    counted += np.int64(set_bits(own[z, y, word] & ~other[z, y, word]))
        for line in range(0, lines, _SIDE):
            for word in range(n_words):
                n_points = _far_points_of_block(own, other, plane, line, word, starts, distances, numbers)
                for window in range(_WINDOWS if n_points else 0):
                    n_together = 0
                    for position in range(n_points):
                        if (numbers[position, 2] & 63) * _WINDOWS >> 6 == window:
                            together[n_together] = numbers[position]
                            n_together += 1
                    if n_together:
                        guess = _resolve_together(
                            other, places, boxes_mm, spacing_mm, together[:n_together], guess, near, ways_mm2, distances
                        )


@njit(inline="always")
def _far_points_of_block(own, other, plane, line, word, starts, distances, numbers):  # type: ignore[no-untyped-def]
    """Write place and number of the points of a block whose distance is negative; return how many there are."""
    n_points = 0
    for z in range(plane, min(plane + _SIDE, own.shape[0])):
        for y in range(line, min(line + _SIDE, own.shape[1])):
            bits = own[z, y, word] & ~other[z, y, word]
            while bits:
                number = starts[z - plane, y]
                starts[z - plane, y] += 1
                if distances[number] < 0:
                    numbers[n_points, 0], numbers[n_points, 1] = z, y
                    numbers[n_points, 2] = 64 * word + np.int64(trailing_zeros(bits))
                    numbers[n_points, 3] = number
                    n_points += 1
                bits &= bits - ONE
    return n_points


@compiled
def _resolve_together(  # type: ignore[no-untyped-def]
    other, places, boxes_mm, spacing_mm, points, guess, near, ways_mm2, distances
):
    """Write the distances of points that lie together; return the block of the last one's nearest point.

    No point's nearest is farther away than the first one's guess, plus the way between the two; so its block is not
    farther from the first point than that plus this way once more.
    """
    z, y, x, number = points[0]
    best_mm2 = _search_block(other, places[guess], 0.0, spacing_mm, z, y, x, np.inf)
    extent_mm2 = 0.0
    for axis in range(3):
        extent_mm2 += ((points[:, axis].max() - points[:, axis].min()) * spacing_mm[axis]) ** 2
    limit_mm2 = (math.sqrt(best_mm2) + 2 * math.sqrt(extent_mm2)) ** 2 * (1 + 1e-9)
    _ways_to_boxes(boxes_mm, z * spacing_mm[0], y * spacing_mm[1], x * spacing_mm[2], ways_mm2)
    n_near = 0
    for block in range(ways_mm2.size):
        if ways_mm2[block] <= limit_mm2:
            near[n_near] = block
            n_near += 1
    for position in range(len(points)):
        z, y, x, number = points[position]
        z_mm, y_mm, x_mm = z * spacing_mm[0], y * spacing_mm[1], x * spacing_mm[2]
        dx = _gap(boxes_mm[4, guess], boxes_mm[5, guess], x_mm)
        best_mm2 = _search_block(other, places[guess], dx * dx, spacing_mm, z, y, x, np.inf)
        nearest = guess
        for candidate in range(n_near):
            block = near[candidate]
            dz = _gap(boxes_mm[0, block], boxes_mm[1, block], z_mm)
            dy = _gap(boxes_mm[2, block], boxes_mm[3, block], y_mm)
            dx = _gap(boxes_mm[4, block], boxes_mm[5, block], x_mm)
            if dz * dz + dy * dy + dx * dx < best_mm2:
                found_mm2 = _search_block(other, places[block], dx * dx, spacing_mm, z, y, x, best_mm2)
                if found_mm2 < best_mm2:
                    best_mm2, nearest = found_mm2, block
        guess = nearest
        distances[number] = math.sqrt(best_mm2)
    return guess
