"""Bring files that leave out empty slices, as DICOM segmentations do, onto the grid of their counterpart."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from .errors import CaseError
from .geometry import Geometry
from .readers import LabelImage


def on_common_grid(reference: LabelImage, prediction: LabelImage) -> tuple[LabelImage, LabelImage]:
    """Return two label maps on one grid, if that takes nothing but empty slices and another order of the voxels.

    Args:
        reference: Label map.
        prediction: Label map.

    Returns:
        Both, on the grid of the one that holds all slices; where neither does, on one of all slices that have a frame
        in either. Unchanged where both hold all slices, or where their voxels don't coincide.

    Raises:
        CaseError: If a label lies outside the counterpart's image; names both files.
    """
    if prediction.frames_only and reference.frames_only:
        grid = _spanning(reference.geometry, prediction.geometry)
        return placed_on(grid, reference, prediction.path), placed_on(grid, prediction, reference.path)
    if prediction.frames_only:
        return reference, placed_on(reference.geometry, prediction, reference.path)
    if reference.frames_only:
        return placed_on(prediction.geometry, reference, prediction.path), prediction
    return reference, prediction


def placed_on(grid: Geometry, image: LabelImage, grid_file: Path) -> LabelImage:
    """Return an image on a grid that has its voxels; unchanged if the grid is another one.

    Whether the voxels coincide exactly is left to `check_same_geometry`, which sees where they are afterwards.

    Args:
        grid: Grid of all slices.
        image: Label map that leaves out slices.
        grid_file: File that the grid is of, for the message.

    Returns:
        The label map, slices that it left out filled with 0.

    Raises:
        CaseError: If a label lies outside the grid; names both files.
    """
    for wanted in grid.affines:
        place = _index_map(image.geometry, wanted)
        if place is not None:
            break
    else:
        return image
    order = np.abs(place[:3, :3]).argmax(axis=1)  # own axis of each of the grid's
    moved = image.array.transpose(order)
    own, target = [], []
    for axis, (own_axis, n_voxels) in enumerate(zip(order, grid.shape, strict=True)):
        positions = (place[axis, own_axis] * np.arange(moved.shape[axis]) + place[axis, 3]).astype(int)
        within = (positions >= 0) & (positions < n_voxels)
        own.append(np.flatnonzero(within))
        target.append(positions[within])
    array = np.zeros(grid.shape, moved.dtype)
    array[np.ix_(*target)] = moved[np.ix_(*own)]
    if np.count_nonzero(array) < np.count_nonzero(moved):
        raise CaseError(
            f"{image.path} and {grid_file}: the labels of the first must lie in the image of the second, got "
            "some outside; compare it with a file of the whole image"
        )
    affine = _with_slice_step(image.geometry, wanted) @ np.linalg.inv(place)
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    return replace(image, array=array, geometry=Geometry(grid.shape, spacing, (affine,)))


def _index_map(own: Geometry, wanted: np.ndarray) -> np.ndarray | None:
    """Return the whole numbers that map array indices of a grid to those of another, (4, 4).

    None if axes of the one aren't axes of the other. Slices may be several of the other's slices apart.
    """
    if wanted.shape != (4, 4):
        return None
    place = np.rint(np.linalg.inv(wanted) @ _with_slice_step(own, wanted))
    steps = np.abs(place[:3, :3])
    one_to_one = (np.count_nonzero(steps, axis=0) == 1).all() and (np.count_nonzero(steps, axis=1) == 1).all()
    return place if one_to_one and (steps[:, 1:].sum(axis=0) == 1).all() else None


def _with_slice_step(own: Geometry, wanted: np.ndarray) -> np.ndarray:
    """Return a grid's affine; the distance of slices, unknown if there is one slice, is that of another affine."""
    affine = own.affines[0].copy()
    if own.shape[0] == 1:
        along = wanted[:3, :3].T @ affine[:3, 0] / np.linalg.norm(wanted[:3, :3], axis=0)
        axis = np.abs(along).argmax()
        affine[:3, 0] = np.sign(along[axis]) * wanted[:3, axis]
    return affine


def _spanning(first: Geometry, second: Geometry) -> Geometry:
    """Return the grid of the finer slices, long enough for the slices of both."""
    fine, coarse = sorted((first, second), key=lambda grid: (grid.shape[0] == 1, grid.spacing_mm[0]))
    place = _index_map(coarse, fine.affines[0])
    if place is None or place[0, 0] == 0:
        return fine
    ends = place[0, 0] * np.array([0, coarse.shape[0] - 1]) + place[0, 3]
    low, high = int(min(0, *ends)), int(max(fine.shape[0] - 1, *ends))
    affine = fine.affines[0].copy()
    affine[:, 3] += low * affine[:, 0]
    return Geometry((high - low + 1, *fine.shape[1:]), fine.spacing_mm, (affine,))
