"""Draw implicit shapes into a volume, mixing the tissues of the voxels that a surface cuts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline

FAR_MM = np.float32(60)
"""Signed distance that tubes give to voxels beyond their neighbourhood."""


class Canvas:
    """A CT volume in the making and its label map, addressed in mm of the patient.

    Axes are x (to the patient's left), y (to posterior) and z (to superior). Shapes are functions that return signed
    distances in mm, negative inside; exact near the surface, where it matters. The body is bent by a smooth random
    displacement, so that no two cases hold the same shapes.

    Args:
        shape: Voxels (X, Y, Z).
        spacing_mm: Voxel size (X, Y, Z), each > 0.
        centre_mm: Patient position of the middle of the volume.
        scale: Size of the patient along each axis relative to the mean patient.
        bend_mm: Typical size of the displacement.
        rng: Source of the displacement.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        spacing_mm: Sequence[float],
        centre_mm: ArrayLike,
        scale: ArrayLike,
        bend_mm: float,
        rng: np.random.Generator,
    ) -> None:
        self.spacing_mm = tuple(float(step) for step in spacing_mm)
        self.axes = [
            ((np.arange(n) - (n - 1) / 2) * step / s + c)
            for n, step, c, s in zip(shape, self.spacing_mm, np.asarray(centre_mm), np.asarray(scale), strict=True)
        ]
        shifts = [_smooth_field(shape, (4, 4, 5), rng) * np.float32(bend_mm) for _ in range(3)]
        grid = np.meshgrid(*(axis.astype(np.float32) for axis in self.axes), indexing="ij", sparse=True)
        self.x, self.y, self.z = (axis + shift for axis, shift in zip(grid, shifts, strict=True))
        self._reach_mm = float(max(np.abs(shift).max() for shift in shifts))
        self._edge_mm = np.float32(max(2.5, *self.spacing_mm[:2]))
        self.hu = np.full(shape, -1000, np.float32)
        self.label = np.zeros(shape, np.uint8)

    def paint(self, distance_mm: np.ndarray, hu: float | np.ndarray, label: int | None = None) -> None:
        """Fill a shape; voxels at its border get a mixture of what was there and `hu`.

        Args:
            distance_mm: Signed distance to the shape's surface, shape (X, Y, Z).
            hu: Value of the tissue, a number or a map of shape (X, Y, Z).
            label: Label of the shape's voxels; None leaves the labels, also where they lie under the shape.
        """
        cut = np.flatnonzero(distance_mm < self._edge_mm / 2)
        distance = distance_mm.ravel()[cut]
        share = np.minimum(np.float32(0.5) - distance / self._edge_mm, 1)
        tissue = hu if np.isscalar(hu) else np.broadcast_to(hu, self.hu.shape).ravel()[cut]
        below = self.hu.ravel()[cut]
        self.hu.ravel()[cut] = below + share * (np.asarray(tissue, np.float32) - below)
        if label is not None:
            self.label.ravel()[cut[distance < 0]] = label

    def ellipsoid(self, centre: ArrayLike, radii: ArrayLike, turn_deg: float = 0) -> np.ndarray:
        """Return the signed distance to an ellipsoid, turned about the z axis (first order in the distance)."""
        distance = np.full(self.hu.shape, FAR_MM, np.float32)
        middle, half = np.asarray(centre, float), np.asarray(radii, float)
        widest = np.array([half[:2].max(), half[:2].max(), half[2]]) if turn_deg else half
        box = self._box(middle - widest, middle + widest)
        x, y, z = (axis[box] - np.float32(c) for axis, c in zip((self.x, self.y, self.z), middle, strict=True))
        if turn_deg:
            cos, sin = np.float32(np.cos(np.radians(turn_deg))), np.float32(np.sin(np.radians(turn_deg)))
            x, y = cos * x + sin * y, cos * y - sin * x
        rx, ry, rz = half.astype(np.float32)
        x, y, z = x / rx, y / ry, z / rz
        root = np.sqrt(x * x + y * y + z * z)
        slope = np.sqrt((x / rx) ** 2 + (y / ry) ** 2 + (z / rz) ** 2) + np.float32(1e-6)
        distance[box] = root * (root - 1) / slope
        return distance

    def tube(
        self,
        points: ArrayLike | Sequence[ArrayLike],
        radii_mm: ArrayLike,
        flat: float = 1.0,
        step_mm: float = 8,
    ) -> np.ndarray:
        """Return the signed distance to a tube along a smooth curve.

        Args:
            points: Points on the curve, shape (N, 3), N >= 2.
            radii_mm: Radius at each point, or everywhere.
            flat: Factor by which the cross-section is wider in x than in y.
            step_mm: Length of the straight pieces that stand for the curve.
        """
        distance = np.full(self.hu.shape, FAR_MM, np.float32)
        knots = np.asarray(points, float)
        radii = np.broadcast_to(np.asarray(radii_mm, float), len(knots))
        along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
        places = np.linspace(0, along[-1], max(2, int(along[-1] / step_mm) + 1))
        curve = CubicSpline(along, knots)(places) if len(knots) > 2 else _straight(along, knots, places)
        widths = np.interp(places, along, radii)
        for i in range(len(places) - 1):
            self._add_piece(distance, curve[i], curve[i + 1], widths[i], widths[i + 1], flat)
        return distance

    def _box(self, low_mm: np.ndarray, high_mm: np.ndarray) -> tuple[slice, ...]:
        """Return the part of the volume in which a shape with these bounds, and what surrounds it, can come to lie."""
        margin = self._reach_mm + 2 * float(self._edge_mm)
        ends = zip(self.axes, low_mm, high_mm, strict=True)
        return tuple(slice(*np.searchsorted(axis, (low - margin, high + margin)).tolist()) for axis, low, high in ends)

    def _add_piece(
        self, distance: np.ndarray, start: np.ndarray, end: np.ndarray, r0: float, r1: float, flat: float
    ) -> None:
        """Lower `distance` to that of one cone-shaped piece, in the piece's neighbourhood only."""
        reach = np.array([max(r0, r1) * max(flat, 1), max(r0, r1), max(r0, r1)])
        box = self._box(np.minimum(start, end) - reach, np.maximum(start, end) + reach)
        if any(part.stop <= part.start for part in box):
            return
        squash = np.array([1 / flat, 1, 1])
        piece = ((end - start) * squash).astype(np.float32)
        coordinates = (self.x[box], self.y[box], self.z[box])
        dx, dy, dz = (np.float32(q) * (c - np.float32(s)) for q, c, s in zip(squash, coordinates, start, strict=True))
        place = np.clip((dx * piece[0] + dy * piece[1] + dz * piece[2]) / max(float(piece @ piece), 1e-6), 0, 1)
        off = np.sqrt((dx - place * piece[0]) ** 2 + (dy - place * piece[1]) ** 2 + (dz - place * piece[2]) ** 2)
        np.minimum(distance[box], off - (np.float32(r0) + place * np.float32(r1 - r0)), out=distance[box])


def smooth_union(first: np.ndarray, second: np.ndarray, blend_mm: float) -> np.ndarray:
    """Return the signed distance to both shapes together, the crease between them filled over `blend_mm`."""
    share = np.clip(np.float32(0.5) + (second - first) / np.float32(2 * blend_mm), 0, 1)
    return second + (first - second) * share - np.float32(blend_mm) * share * (1 - share)


def _straight(along: np.ndarray, knots: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(places, along, knots[:, axis]) for axis in range(3)], axis=1)


def _smooth_field(shape: Sequence[int], knots: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Return a random field of unit scale, interpolated by cubic splines from a few knots along each axis."""
    field = rng.standard_normal(knots).clip(-2, 2)
    for axis, (size, count) in enumerate(zip(shape, knots, strict=True)):
        weights = CubicSpline(np.arange(count), np.eye(count), bc_type="natural")(np.linspace(0, count - 1, size))
        # einsum, not a BLAS product: its sums have one order whatever the number of threads.
        field = np.moveaxis(np.einsum("ij,j...->i...", weights, np.moveaxis(field, axis, 0)), 0, axis)
    return np.ascontiguousarray(field, np.float32)
