"""Surface area of each way in which a mask can cut a cell of the dual grid.

The dual grid's nodes lie where 2x2x2 voxels (2x2 in 2D) meet. The eight voxel centres around a node are the corners of
a unit cell, and the mask tells which of them are inside. The surface in the cell follows from four rules:

1. It passes through the midpoint of each cell edge that has one corner inside and one outside.
2. The corners in the minority are the ones it wraps (with four and four, those inside the mask), so that a mask and
   its complement have the same surface.
3. On a face with two wrapped corners on a diagonal, each of them is wrapped on its own.
4. The polygons that this makes are cut into triangles such that their area in the unit cell is largest. Where several
   cuts are largest they are the same surface.

The result is a list of triangles for each of the 256 configurations; scaling by the voxel size comes after the cut.

Source:
    The dual-grid surface: Nikolov et al. 2018, arXiv:1809.04430; Lindblad 2005, Image and Vision Computing 23(2).
    The rules above are this module's own statement of it; the tests hold the areas against an independent table.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise, product

import numpy as np

Point = tuple[int, ...]
Segment = tuple[Point, Point]

MAX_TRIANGLES = 4


def contour_lengths_mm(spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the contour length in a 2D cell for each configuration of its corners.

    Args:
        spacing_mm: Pixel size (H, W) in mm, each > 0.

    Returns:
        Lengths in mm, shape (16,), indexed by the code of the cell: bit 2*y + x is set if corner (y, x) is inside.
    """
    return _contour_lengths_mm(*map(float, spacing_mm)).copy()


@cache  # asked for with each slice of a volume
def _contour_lengths_mm(height_mm: float, width_mm: float) -> np.ndarray:
    lengths = np.zeros(16)
    for code in range(16):
        for start, end in _face_segments(_square(), _wrapped_corners(code, ndim=2)):
            lengths[code] += np.linalg.norm((np.subtract(end, start)) / 2 * (height_mm, width_mm))
    return lengths


def surface_areas_mm2(spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the surface area in a 3D cell for each configuration of its corners.

    Args:
        spacing_mm: Voxel size (D, H, W) in mm, each > 0.

    Returns:
        Areas in mm^2, shape (256,), indexed by the code of the cell: bit 4*z + 2*y + x is set if corner (z, y, x) is
        inside.
    """
    d, h, w = spacing_mm
    return np.linalg.norm(_area_vectors() * (h * w, d * w, d * h), axis=-1).sum(axis=-1)


@cache
def _area_vectors() -> np.ndarray:
    """Return the area vectors of the triangles in the unit cell, shape (256, MAX_TRIANGLES, 3), zero where unused."""
    vectors = np.zeros((256, MAX_TRIANGLES, 3))
    for code in range(256):
        triangles = [t for polygon in _polygons(_wrapped_corners(code, ndim=3)) for t in _largest_cut(polygon)]
        vectors[code, : len(triangles)] = np.reshape(triangles, (-1, 3))
    return vectors


def _wrapped_corners(code: int, ndim: int) -> set[Point]:
    corners = list(product((0, 1), repeat=ndim))
    inside = {corner for bit, corner in enumerate(corners) if code >> bit & 1}
    return inside if 2 * len(inside) <= len(corners) else set(corners) - inside


def _square() -> list[Point]:
    return [(0, 0), (0, 1), (1, 1), (1, 0)]


def _cube_faces() -> Iterator[list[Point]]:
    for axis, side in product(range(3), (0, 1)):
        yield [(*corner[:axis], side, *corner[axis:]) for corner in _square()]


def _face_segments(face: list[Point], wrapped: set[Point]) -> list[Segment]:
    """Return the contour on a face, its points as the sum of two corners (twice an edge's midpoint)."""
    edges = list(pairwise([*face, face[0]]))
    crossings = [tuple(np.add(a, b).tolist()) for a, b in edges if (a in wrapped) != (b in wrapped)]
    if len(crossings) < 4:
        return [(crossings[0], crossings[1])] if crossings else []
    first_is_wrapped = face[0] in wrapped
    # Crossing i lies between corners i and i + 1: wrapping corner i links crossings i - 1 and i.
    starts = (-1, 1) if first_is_wrapped else (0, 2)
    return [(crossings[i], crossings[i + 1]) for i in starts]


def _polygons(wrapped: set[Point]) -> Iterator[np.ndarray]:
    """Yield the closed contours of a cell, each an array (n, 3) of points in the unit cell."""
    neighbours: dict[Point, list[Point]] = {}
    for face in _cube_faces():
        for start, end in _face_segments(face, wrapped):
            neighbours.setdefault(start, []).append(end)
            neighbours.setdefault(end, []).append(start)
    # An edge belongs to two faces, so every point has two neighbours and the contours are closed.
    while neighbours:
        point = next(iter(neighbours))
        polygon = []
        while point in neighbours:
            polygon.append(point)
            following = neighbours.pop(point)
            point = following[0] if following[0] in neighbours else following[1]
        yield np.array(polygon) / 2


def _largest_cut(polygon: np.ndarray) -> list[np.ndarray]:
    """Return the area vectors of the polygon's triangles, cut so that their total area is largest."""
    if len(polygon) < 3:
        return []
    best, best_area = [np.zeros(3)], -1.0
    first, last = polygon[0], polygon[-1]
    for apex in range(1, len(polygon) - 1):
        triangle = _cross(polygon[apex] - first, last - first) / 2
        cut = [triangle, *_largest_cut(polygon[: apex + 1]), *_largest_cut(polygon[apex:])]
        area = sum(math.hypot(*vector) for vector in cut)
        if area > best_area + 1e-12:
            best, best_area = cut, area
    return best


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
