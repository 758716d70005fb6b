"""Where the voxels of an image lie in the patient, and how its axes are brought into one order."""

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np

TOLERANCE = 0.01
"""Corners may differ by this share of the smallest spacing before two geometries count as different."""

CANONICAL_CODES = ("L", "P", "S")
"""Directions in which x, y and z grow in memory: rows of an axial slice run to posterior, columns to left."""


@dataclass(frozen=True)
class Geometry:
    """Grid of an image in SimpleITK's convention (x, y, z; world axes L, P, S; mm).

    Args:
        size: Number of voxels (X, Y, Z) or (X, Y).
        spacing_mm: Voxel size (X, Y, Z) in mm, each > 0.
        origin_mm: Centre of the first voxel in mm.
        direction: Row-major direction cosines, 9 or 4 numbers.
    """

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    direction: tuple[float, ...]

    @property
    def dimension(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.size)

    def sitk_stuff(self) -> dict[str, Any]:
        """Return the entry that nnU-Net keeps in its property files."""
        return {"spacing": self.spacing_mm, "origin": self.origin_mm, "direction": self.direction}

    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Return the voxel size in array order (z, y, x); a 2D image gets a z spacing of 1 mm."""
        x, y, *z = self.spacing_mm
        return (z[0] if z else 1.0, y, x)

    def affine_lps(self) -> np.ndarray:
        """Return the voxel-to-world matrix, shape (d + 1, d + 1), world in L, P, S mm."""
        d = self.dimension
        affine = np.eye(d + 1)
        affine[:d, :d] = np.asarray(self.direction).reshape(d, d) * np.asarray(self.spacing_mm)
        affine[:d, d] = self.origin_mm
        return affine

    def corners_mm(self) -> np.ndarray:
        """Return the world positions of the outermost voxel centres, shape (2**d, d), in mm."""
        d = self.dimension
        grid = np.stack(np.meshgrid(*[(0, n - 1) for n in self.size], indexing="ij"), -1).reshape(-1, d)
        affine = self.affine_lps()
        return grid @ affine[:d, :d].T + affine[:d, d]

    def difference(self, other: "Geometry") -> str | None:
        """Say how another grid differs, or return None if it is the same within `TOLERANCE`.

        Args:
            other: The grid to compare with.
        """
        if self.size != other.size:
            return f"sizes {self.size} and {other.size}"
        distance = np.linalg.norm(self.corners_mm() - other.corners_mm(), axis=1).max()
        if distance > TOLERANCE * min(self.spacing_mm):
            return f"corners up to {distance:.3g} mm apart (spacing {self.spacing_mm} and {other.spacing_mm})"
        return None

    def axis_order(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Return how an array (z, y, x) of this grid is permuted, then flipped, to run along S, P, L.

        Returns:
            The permutation for `np.transpose` and, for each axis of its result, whether to flip it.
            An oblique grid gets the nearest such order. 2D images stay as they are.
        """
        if self.dimension == 2:
            return (0, 1, 2), (False, False, False)
        ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.affine_lps()
        orientation = nib.orientations.io_orientation(ras)
        wanted = nib.orientations.axcodes2ornt(CANONICAL_CODES)
        transform = nib.orientations.ornt_transform(orientation, wanted)  # row i: where axis i goes, and its flip
        source_of = np.argsort(transform[:, 0])
        permutation = tuple(2 - int(source_of[2 - axis]) for axis in range(3))
        flips = tuple(bool(transform[source_of[2 - axis], 1] < 0) for axis in range(3))
        return permutation, flips


def to_canonical(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Bring an array into the order S, P, L (slices, rows, columns).

    Args:
        array: Shape (..., Z, Y, X) in the image's own order.
        geometry: The image's grid.

    Returns:
        A view of shape (..., S, P, L).
    """
    permutation, flips = geometry.axis_order()
    return _flip(np.transpose(array, _trailing(array.ndim, permutation)), flips)


def from_canonical(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Undo `to_canonical`.

    Args:
        array: Shape (..., S, P, L).
        geometry: The grid of the image that the result shall overlay.

    Returns:
        A view of shape (..., Z, Y, X) in the image's own order.
    """
    permutation, flips = geometry.axis_order()
    inverse = tuple(int(i) for i in np.argsort(permutation))
    return np.transpose(_flip(array, flips), _trailing(array.ndim, inverse))


def _trailing(ndim: int, permutation: tuple[int, ...]) -> list[int]:
    lead = ndim - 3
    return [*range(lead), *(lead + axis for axis in permutation)]


def _flip(array: np.ndarray, flips: tuple[bool, ...]) -> np.ndarray:
    axes = tuple(array.ndim - 3 + axis for axis, flip in enumerate(flips) if flip)
    return np.flip(array, axes) if axes else array
