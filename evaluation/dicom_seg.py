"""DICOM segmentations: the segments' frames as one label map of their numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CaseError
from .geometry import Geometry

_STORAGE_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_TYPES = ("BINARY", "LABELMAP")
_PLACE_TOLERANCE_MM = 0.01
_MOST_SLICES_APART = 20
_DISTANCE_TOLERANCE = 0.01


@dataclass(frozen=True)
class _Frame:
    """Where a frame lies.

    Attributes:
        segment: Number of its segment; None if its pixels are labels.
        position_mm: LPS position of the first pixel's centre.
    """

    segment: int | None
    position_mm: np.ndarray


def read_dicom_seg(path: Path) -> tuple[np.ndarray, Geometry, bool]:
    """Read a DICOM segmentation, of the binary or the label map type.

    Args:
        path: The file.

    Returns:
        The segments' numbers, shape (slices, rows, columns), from the first slice that has a frame to the last, 0 where
        no segment is; where they lie; and whether the slices' distance is known, not just their thickness.

    Raises:
        CaseError: If it is no such file, if its frames aren't parallel slices, or if two segments overlap.
    """
    try:
        from pydicom import dcmread  # imported late because it is optional
    except ImportError:
        raise CaseError(
            f"{path}: DICOM needs the package pydicom, which isn't installed; pip install pydicom"
        ) from None
    data = dcmread(path)
    kind = data.get("SegmentationType", "none")
    if data.get("SOPClassUID") not in _STORAGE_CLASSES or kind not in _TYPES:
        what = f"{data.get('Modality', 'none')}, type {kind}"
        raise CaseError(f"{path}: must be a DICOM segmentation of type {' or '.join(_TYPES)}, got modality {what}")
    frames = list(_frames(data, path))
    axes = _axes(data, path)
    heights = np.array([frame.position_mm @ axes[0] for frame in frames])
    first = frames[int(heights.argmin())].position_mm
    beside = [np.linalg.norm(np.cross(frame.position_mm - first, axes[0])) for frame in frames]
    if max(beside) > _PLACE_TOLERANCE_MM:
        raise CaseError(f"{path}: frames must lie above each other, got some {max(beside):.4g} mm beside; convert it")
    first_item, shared = data.PerFrameFunctionalGroupsSequence[0], data.SharedFunctionalGroupsSequence[0]
    measures = _group(first_item, shared, "PixelMeasuresSequence", path)
    step, is_known = _slice_distance(heights, measures, path)
    levels = np.rint((heights - heights.min()) / step).astype(int)
    array = _painted(data, frames, levels, path)
    spacing = (step, *(float(size) for size in measures.PixelSpacing))
    affine = np.eye(4)
    affine[:3, :3] = (axes * np.array(spacing)[:, None]).T
    affine[:3, 3] = first
    return array, Geometry(array.shape, spacing, (affine,)), is_known


def _frames(data: Any, path: Path) -> Iterator[_Frame]:
    shared = data.SharedFunctionalGroupsSequence[0]
    for item in data.PerFrameFunctionalGroupsSequence:
        position = _group(item, shared, "PlanePositionSequence", path).ImagePositionPatient
        segment = None
        if data.SegmentationType == "BINARY":
            segment = int(_group(item, shared, "SegmentIdentificationSequence", path).ReferencedSegmentNumber)
        yield _Frame(segment, np.array(position, dtype=float))


def _group(frame: Any, shared: Any, name: str, path: Path) -> Any:
    """Return what holds for a frame: its own, else what all frames share."""
    for item in (frame, shared):
        if item.get(name):
            return item[name][0]
    raise CaseError(f"{path}: a DICOM segmentation must have a {name} for each frame, got none; write it anew")


def _axes(data: Any, path: Path) -> np.ndarray:
    """Return the directions of slices, rows and columns in LPS, unit vectors, shape (3, 3)."""
    shared = data.SharedFunctionalGroupsSequence[0]
    orientations = {
        tuple(_group(item, shared, "PlaneOrientationSequence", path).ImageOrientationPatient)
        for item in data.PerFrameFunctionalGroupsSequence
    }
    if len(orientations) > 1:
        raise CaseError(f"{path}: frames must be parallel, got {len(orientations)} orientations; convert it")
    along_row, along_column = np.array(orientations.pop(), dtype=float).reshape(2, 3)
    return np.stack([np.cross(along_row, along_column), along_column, along_row])


def _slice_distance(heights: np.ndarray, measures: Any, path: Path) -> tuple[float, bool]:
    """Return the distance of slices, and whether it is known; slices without a segment have no frame.

    It is the one that the file states, else the largest of which all frames are multiples apart.
    """
    stated = float(measures.get("SpacingBetweenSlices") or 0)
    gaps = np.diff(np.unique(np.round(heights, 4)))
    gaps = gaps[gaps > _PLACE_TOLERANCE_MM]
    if not gaps.size:
        return stated or float(measures.get("SliceThickness") or 1), stated > 0
    if stated > 0:
        multiples = np.rint(gaps / stated)
        # of one slice's distance, and in wide gaps a little of what the stated number was rounded by
        allowed = np.minimum(_DISTANCE_TOLERANCE * multiples, 10 * _DISTANCE_TOLERANCE)
        if (np.abs(gaps / stated - multiples) < allowed).all():
            return float((heights.max() - heights.min()) / multiples.sum()), True
    for divisor in range(1, _MOST_SLICES_APART + 1):
        multiples = gaps / (gaps.min() / divisor)
        if np.abs(multiples - np.rint(multiples)).max() < _DISTANCE_TOLERANCE * divisor:
            return float((heights.max() - heights.min()) / np.rint(multiples).sum()), True
    raise CaseError(f"{path}: frames must be multiples of one distance apart, got {gaps.min():.4g} mm and others")


def _painted(data: Any, frames: Sequence[_Frame], levels: np.ndarray, path: Path) -> np.ndarray:
    """Return the label map, painted frame by frame: all frames at once may need gigabytes."""
    bits = max(8, data.BitsAllocated, *(np.min_scalar_type(frame.segment or 0).itemsize * 8 for frame in frames))
    array = np.zeros((levels.max() + 1, data.Rows, data.Columns), f"u{bits // 8}")
    for frame, level, values in zip(frames, levels, _pixels(data, path), strict=True):
        plane, inside = array[level], values > 0
        there = plane[inside]
        if frame.segment is not None and there.any():
            raise CaseError(
                f"{path}: a voxel must belong to one segment, got segments {there.max()} and {frame.segment} in one "
                "place; save them as two files"
            )
        plane[inside] = values[inside] if frame.segment is None else frame.segment
    return array


def _pixels(data: Any, path: Path) -> Iterator[np.ndarray]:
    """Yield the pixels of each frame, shape (rows, columns)."""
    syntax = data.file_meta.TransferSyntaxUID
    if data.BitsAllocated > 1 or syntax.is_encapsulated or not syntax.is_little_endian:
        from pydicom.pixels import iter_pixels

        yield from iter_pixels(data)
        return
    # pydicom 3.0 can't iterate over frames of single bits whose size mod 8 is 3, 5, 6 or 7
    packed = np.frombuffer(data.PixelData, np.uint8)
    n_pixels, n_frames = data.Rows * data.Columns, int(data.NumberOfFrames)
    if packed.size * 8 < n_pixels * n_frames:
        raise CaseError(
            f"{path}: {n_frames} frames of {data.Rows} x {data.Columns} pixels need {-(-n_pixels * n_frames // 8)} "
            f"bytes, got {packed.size}; the file is damaged"
        )
    for start in range(0, n_pixels * n_frames, n_pixels):
        bits = np.unpackbits(packed[start // 8 : -(-(start + n_pixels) // 8)], bitorder="little")
        yield bits[start % 8 :][:n_pixels].reshape(data.Rows, data.Columns)
