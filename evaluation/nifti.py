"""NIfTI files: read by nibabel's header and the fast inflate of ISA-L."""

from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from isal import igzip

from .errors import CaseError
from .geometry import Geometry, geometry_from_nifti

_PIECE_BYTES = 1 << 20


def read_nifti(path: Path) -> tuple[np.ndarray, Geometry]:
    """Read the array and the grid of a NIfTI file.

    Args:
        path: The file, `.nii` or `.nii.gz`.

    Returns:
        The values, axes in the order (z, y, x) or (y, x), and where they lie.

    Raises:
        CaseError: If it doesn't hold one volume or image.
    """
    with igzip.open(path) if path.name.endswith(".gz") else path.open("rb") as stream:
        header = _read_header(stream)
        array = _read_array(stream, header) if _is_plain(header) else None
    if array is None:
        image: Any = nib.load(path)
        array = np.asanyarray(image.dataobj)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3):
        raise CaseError(f"{path}: a label map must have 2 or 3 axes, got shape {array.shape}; save one volume a file")
    declared = [affine for affine, code in (header.get_sform(coded=True), header.get_qform(coded=True)) if code > 0]
    return array.T, geometry_from_nifti(array.shape[::-1], declared, header.get_zooms())


def _read_header(stream: IO[bytes]) -> Any:
    start = stream.read(4)
    if len(start) < 4:
        raise EOFError("the file is empty")
    stream.seek(0)
    kind = nib.Nifti2Header if start in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c") else nib.Nifti1Header
    return kind.from_fileobj(stream)


def _is_plain(header: Any) -> bool:
    """Return whether the stored numbers are the values."""
    slope, intercept = header.get_slope_inter()
    return slope in (None, 1) and intercept in (None, 0)


def _read_array(stream: IO[bytes], header: Any) -> np.ndarray:
    array = np.empty(header.get_data_shape(), dtype=header.get_data_dtype(), order="F")
    stream.seek(header.get_data_offset())
    buffer = memoryview(array.T.reshape(-1).view(np.uint8).data)
    read = 0
    while read < len(buffer):
        count = stream.readinto(buffer[read : read + _PIECE_BYTES])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"the array is cut short, {len(buffer) - read} bytes are missing")
        read += count
    while stream.read(_PIECE_BYTES):
        pass  # to the end, where the checksum is compared
    return array
