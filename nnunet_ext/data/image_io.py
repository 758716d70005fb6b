"""Read images and label maps with their geometry, and write label maps."""

import os
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813

from ..atomic import atomic_path
from ..errors import DatasetError
from .geometry import Geometry

NIFTI_ENDINGS = (".nii", ".nii.gz")
NATURAL_IMAGE_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
"""Photographs and microscopy: RGB is three channels here, and an error in medical formats."""


def read_geometry(path: str | os.PathLike) -> Geometry:
    """Read the grid of an image from its header only.

    Args:
        path: Image file.

    Raises:
        DatasetError: If the header cannot be read, or the file holds no 2D or 3D scalar image.
    """
    geometry, _ = _read_header(path)
    return geometry


def read_channels(paths: list[Path]) -> tuple[np.ndarray, Geometry]:
    """Read the channels of one case, a file each (an RGB photograph is three channels in one file).

    Args:
        paths: The files in channel order.

    Returns:
        Array of shape (C, Z, Y, X), Z = 1 for 2D files, in the files' own axis order, and their grid.

    Raises:
        DatasetError: If a file cannot be read, holds NaN or infinity, or lies on another grid than the first.
    """
    arrays: list[np.ndarray] = []
    first: Geometry | None = None
    for path in paths:
        array, geometry = _read(path)
        if first is None:
            first = geometry
        elif difference := first.difference(geometry):
            raise DatasetError(
                f"{path}: all channels of a case must lie on one grid, but {paths[0].name} and {path.name} have "
                f"{difference}; resample one onto the other"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DatasetError(f"{path}: image values must be finite, got NaN or infinity; repair or drop the case")
        arrays.append(array)
    assert first is not None
    return np.concatenate(arrays), first


def read_label(path: str | os.PathLike) -> tuple[np.ndarray, Geometry]:
    """Read a label map.

    Args:
        path: Label file; floats with integer values are accepted.

    Returns:
        Integer array (uint8 where the values fit) of shape (Z, Y, X) and its grid.

    Raises:
        DatasetError: If the file cannot be read, has several components, or holds non-integer or negative values.
    """
    array, geometry = _read(path)
    if len(array) != 1:
        raise DatasetError(f"{path}: a label map must have one component, got {len(array)} (RGB?)")
    label = array[0]
    if label.dtype.kind == "f":
        rounded = np.where(np.isfinite(label), np.rint(label), 0)
        if not np.array_equal(rounded, label):
            odd = np.unique(label[rounded != label])[:5]
            raise DatasetError(
                f"{path}: label values must be integers, got {odd.tolist()}; "
                "was the map resampled with interpolation? Use nearest neighbour"
            )
        label = rounded.astype(np.int32)
    if label.size and label.min() < 0:
        raise DatasetError(f"{path}: label values must be >= 0, got {int(label.min())}")
    largest = int(label.max()) if label.size else 0
    return label.astype(np.uint8 if largest < 256 else np.int32, copy=False), geometry


def write_label(path: str | os.PathLike, label_zyx: np.ndarray, geometry: Geometry) -> None:
    """Write a label map in a given geometry, compressed and atomically.

    Args:
        path: File to write; its ending chooses the format.
        label_zyx: Integer array of shape (Z, Y, X); Z = 1 for a 2D geometry.
        geometry: The grid of the image that the labels belong to.
    """
    image = sitk.GetImageFromArray(label_zyx[0] if geometry.dimension == 2 else np.ascontiguousarray(label_zyx))
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)
    with atomic_path(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def _read_header(path: str | os.PathLike) -> tuple[Geometry, int]:
    """Return the grid and the number of components of a file."""
    if not Path(path).is_file():
        raise DatasetError(f"{path}: no such file")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    components = reader.GetNumberOfComponents()
    _check_pixel_type(path, components, reader.GetDimension())
    geometry = Geometry(
        tuple(reader.GetSize()), tuple(reader.GetSpacing()), tuple(reader.GetOrigin()), tuple(reader.GetDirection())
    )
    return geometry, components


def _read(path: str | os.PathLike) -> tuple[np.ndarray, Geometry]:
    """Return components (C, Z, Y, X), Z = 1 for 2D files, and their grid."""
    geometry, components = _read_header(path)
    try:
        if str(path).lower().endswith(NIFTI_ENDINGS):
            array = _read_nifti(path, geometry.size)[None]
        else:
            array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            # of RGBA, alpha carries no intensity
            array = np.moveaxis(array, -1, 0)[:3] if components > 1 else array[None]
    except (RuntimeError, OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        raise _unreadable(path, error) from error
    return (array[:, None] if geometry.dimension == 2 else array), geometry


def _read_nifti(path: str | os.PathLike, size: tuple[int, ...]) -> np.ndarray:
    """Read voxels (Z, Y, X) with nibabel: SimpleITK fills up a truncated file with zeros and turns NaN into 0."""
    array = np.asanyarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
    return array.reshape(size, order="F").T  # drops trailing axes of length 1


def _check_pixel_type(path: str | os.PathLike, components: int, dimension: int) -> None:
    if dimension not in (2, 3):
        raise DatasetError(
            f"{path}: need a 2D or 3D image, got {dimension} axes; split a series into one file a channel"
        )
    if components > 1 and not str(path).lower().endswith(NATURAL_IMAGE_ENDINGS):
        raise DatasetError(
            f"{path}: need one scalar a voxel, got {components} components (RGB or vector image); "
            "export the original intensities, not a colour rendering"
        )


def _unreadable(path: str | os.PathLike, error: Exception) -> DatasetError:
    detail = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
    return DatasetError(f"{path}: cannot be read as an image ({detail}); is the file complete?")
