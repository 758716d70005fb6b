"""Where the voxels of a file lie in space, and whether two files agree about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from .errors import CaseError

RELATIVE_TOLERANCE = 0.01
"""Accepted distance between corresponding voxel corners, as a share of the smallest spacing."""

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Geometry:
    """The grid of an image.

    Attributes:
        shape: Number of voxels in array axis order: (D, H, W) or (H, W).
        spacing_mm: Voxel size in mm in array axis order, each > 0.
        affines: Every matrix (N+1, N+1) by which the file maps array indices to LPS world coordinates in mm. None if
            the file doesn't say where it lies (a PNG); two if a NIfTI header holds two.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    affines: tuple[np.ndarray, ...] = ()

    def without_first_axis(self) -> "Geometry":
        """Return the geometry of the only slice of a volume, (1, H, W) -> (H, W), its place in space unknown."""
        return Geometry(self.shape[1:], self.spacing_mm[1:])


def geometry_from_sitk(
    shape: Sequence[int], spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]
) -> Geometry:
    """Return a geometry from what SimpleITK calls spacing, origin and direction.

    Args:
        shape: Array shape, (D, H, W) or (H, W).
        spacing: Voxel size in mm, (x, y, z) or (x, y).
        origin: LPS position of the first voxel's centre in mm, same length.
        direction: Direction cosines, row by row.

    Returns:
        The geometry.

    Raises:
        ValueError: If the numbers don't fit the shape or a spacing isn't positive.
    """
    ndim = len(shape)
    if len(spacing) != ndim or len(origin) != ndim or len(direction) != ndim * ndim:
        raise ValueError(
            f"spacing, origin, direction must have {ndim}, {ndim}, {ndim * ndim} entries for shape {tuple(shape)}, "
            f"got {len(spacing)}, {len(origin)}, {len(direction)}"
        )
    affine = np.eye(ndim + 1)
    affine[:ndim, :ndim] = np.reshape(direction, (ndim, ndim)) * np.asarray(spacing, dtype=float)
    affine[:ndim, ndim] = origin
    return Geometry(tuple(shape), _positive(spacing)[::-1], (_in_array_order(affine),))


def geometry_from_nifti(shape: Sequence[int], affines_ras: Sequence[np.ndarray], zooms: Sequence[float]) -> Geometry:
    """Return a geometry from what a NIfTI header holds.

    Args:
        shape: Array shape after the axes were reversed: (D, H, W) or (H, W).
        affines_ras: Each (4, 4) matrix of the header that is declared valid, from (i, j, k) to RAS mm; the first one
            gives the spacing.
        zooms: Voxel size in mm, (x, y, z) or (x, y), used if no matrix is valid.

    Returns:
        The geometry.

    Raises:
        ValueError: If a spacing isn't positive.
    """
    ndim = len(shape)
    if not len(affines_ras):
        return Geometry(tuple(shape), _positive(zooms)[:ndim][::-1])
    spacing = np.linalg.norm(affines_ras[0][:3, :ndim], axis=0)
    kept = [*range(ndim), 3]
    affines = tuple(_in_array_order((_LPS_FROM_RAS @ affine)[np.ix_(kept, kept)]) for affine in affines_ras)
    return Geometry(tuple(shape), _positive(spacing)[::-1], affines)


def check_same_geometry(
    prediction: Geometry, reference: Geometry, prediction_file: Path, reference_file: Path, *, resamples: bool = True
) -> None:
    """Refuse two grids that aren't the same.

    They are if the shapes are equal and every voxel corner coincides within 1 % of the smallest spacing. Where a file
    doesn't say where it lies, shapes and spacings decide; where it says so twice, one of the two must fit.

    Args:
        prediction: Grid of the prediction.
        reference: Grid of the reference.
        prediction_file: File that the first was read from, for the message.
        reference_file: File that the second was read from, for the message.
        resamples: Whether `--resample` could help.

    Raises:
        CaseError: If the grids differ; names both files.
    """
    allowed_mm = RELATIVE_TOLERANCE * min(reference.spacing_mm)
    if prediction.shape != reference.shape:
        difference = f"shape {prediction.shape} against {reference.shape}"
    elif prediction.affines and reference.affines:
        apart_mm = min(
            _largest_corner_distance_mm(own, other, reference.shape)
            for own, other in product(prediction.affines, reference.affines)
        )
        if apart_mm <= allowed_mm:
            return
        difference = f"voxel corners up to {apart_mm:.4g} mm apart, at most {allowed_mm:.4g} mm accepted"
    else:
        size = np.asarray(reference.shape)
        apart_mm = float(np.max(np.abs(np.subtract(prediction.spacing_mm, reference.spacing_mm)) * size))
        if apart_mm <= allowed_mm:
            return
        difference = f"spacing {_text(prediction.spacing_mm)} mm against {_text(reference.spacing_mm)} mm"
    raise CaseError(
        f"{prediction_file} and {reference_file}: the geometries must be the same, got {difference}; "
        f"resample the prediction onto the grid of the reference{', or let --resample do it' * resamples}"
    )


def _largest_corner_distance_mm(own: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    # The difference of two affine maps is affine: it is largest at a corner of the whole image.
    corners = np.array([(*corner, 1.0) for corner in product(*((-0.5, n - 0.5) for n in shape))])
    return float(np.linalg.norm(corners @ (own - other).T, axis=1).max())


def _in_array_order(affine_xyz: np.ndarray) -> np.ndarray:
    """Reverse the index axes of an affine: (x, y, z) -> (z, y, x)."""
    ndim = affine_xyz.shape[0] - 1
    return affine_xyz[:, [*range(ndim)[::-1], ndim]]


def nifti_affine(geometry: Geometry) -> np.ndarray:
    """Return the matrix that a NIfTI file of a grid needs.

    Args:
        geometry: The grid.

    Returns:
        Matrix (4, 4) from (i, j, k) to RAS mm, for the array with its axes reversed; one at the origin if the grid
        doesn't say where it lies.
    """
    ndim = len(geometry.shape)
    affine = np.eye(4)
    if not geometry.affines:
        affine[:ndim, :ndim] = np.diag(geometry.spacing_mm[::-1])
        return affine
    own = _in_array_order(geometry.affines[0])  # reversing twice gives the order of the file
    n_world = own.shape[0] - 1
    affine[:n_world, :ndim], affine[:n_world, 3] = own[:n_world, :ndim], own[:n_world, -1]
    return _LPS_FROM_RAS @ affine


def _positive(spacing: Sequence[float]) -> tuple[float, ...]:
    if not all(np.isfinite(size) and size > 0 for size in spacing):
        raise ValueError(f"spacing must be > 0 in each axis, got {_text(spacing)}")
    return tuple(float(size) for size in spacing)


def _text(numbers: Sequence[float]) -> str:
    return "(" + ", ".join(f"{number:.6g}" for number in numbers) + ")"
