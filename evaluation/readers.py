"""Label maps from image files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dicom_seg import read_dicom_seg
from .errors import CaseError
from .geometry import Geometry, geometry_from_sitk
from .label_map import as_label_map
from .nifti import read_nifti

NIFTI_ENDINGS = (".nii.gz", ".nii")
LABEL_ENDINGS = (NIFTI_ENDINGS, (".mha",), (".nrrd",), (".png",), (".bmp",), (".tif", ".tiff"), (".dcm",))
"""Endings of label files, by format; a folder's label files are those of the first format that it holds."""

_UNPLACED_ENDINGS = (".png", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class LabelImage:
    """A label map and its grid.

    Attributes:
        array: Integers >= 0, shape (D, H, W) or (H, W).
        geometry: Where the voxels lie.
        path: File that it was read from.
        frames_only: Whether slices without a label are left out before the first and after the last.
        distance_known: Whether the file says how far slices are apart, not just how thick they are.
    """

    array: np.ndarray
    geometry: Geometry
    path: Path
    frames_only: bool = False
    distance_known: bool = True

    def without_first_axis(self) -> "LabelImage":
        """Return the only slice of a volume of shape (1, H, W)."""
        return LabelImage(self.array[0], self.geometry.without_first_axis(), self.path)


def read_label_image(path: Path) -> LabelImage:
    """Read a label file: NIfTI, MetaImage, NRRD, PNG, BMP, TIFF or a DICOM segmentation.

    Args:
        path: The file; floating point values are accepted if they are integers.

    Returns:
        Its labels, axes in the order (z, y, x), as nnU-Net has them.

    Raises:
        CaseError: If it can't be read or holds no label map; names the file.
    """
    try:
        if path.suffix == ".dcm":
            array, geometry, is_known = read_dicom_seg(path)
            return LabelImage(as_label_map(array, str(path)), geometry, path, frames_only=True, distance_known=is_known)
        array, geometry = read_nifti(path) if path.name.endswith(NIFTI_ENDINGS) else _read_with_sitk(path)
        return LabelImage(as_label_map(array, str(path)), geometry, path)
    except CaseError:
        raise
    except ValueError as error:
        raise CaseError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except Exception as error:  # nibabel, SimpleITK, pydicom, gzip and zlib each have errors of their own
        message = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {message[-1] if message else 'no details'}"
        raise CaseError(f"{path}: can't be read: {reason}; the file is missing or damaged") from error


def read_intensities(path: Path) -> tuple[np.ndarray, Geometry]:
    """Read the grey values of an image file.

    Args:
        path: The file, of any format that label files have.

    Returns:
        Values, axes in the order (z, y, x), colours last, and where they lie.

    Raises:
        CaseError: If it can't be read; names the file.
    """
    try:
        return read_nifti(path) if path.name.endswith(NIFTI_ENDINGS) else _read_with_sitk(path, colors=True)
    except CaseError:
        raise
    except Exception as error:  # as above
        raise CaseError(f"{path}: can't be read: {type(error).__name__}: {error}") from error


def _read_with_sitk(path: Path, *, colors: bool = False) -> tuple[np.ndarray, Geometry]:
    import SimpleITK as sitk  # noqa: N813 - imported late because NIfTI doesn't need it

    image = sitk.ReadImage(str(path))
    if image.GetNumberOfComponentsPerPixel() > 1 and not colors:
        n_components = image.GetNumberOfComponentsPerPixel()
        raise CaseError(f"{path}: labels must be one integer a pixel, got {n_components} colours; convert it to labels")
    array, shape = sitk.GetArrayFromImage(image), image.GetSize()[::-1]
    if path.suffix in _UNPLACED_ENDINGS:
        return array, Geometry(shape, (1.0,) * len(shape))
    return array, geometry_from_sitk(shape, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
