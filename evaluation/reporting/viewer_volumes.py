"""Volumes that travel inside the page: small NIfTI files as base64 text."""

import base64
import gzip
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from .slices import find_cuts
from .style import label_color
from .worst_cases import WorstCase

_MOST_VOXELS = 1 << 22
_FACES = ndimage.generate_binary_structure(3, 1)


def encode_case(case: WorstCase, labels: Sequence[str], names: Mapping[str, str]) -> dict[str, Any]:
    """Pack a case for the viewer.

    Args:
        case: A case in 3D.
        labels: Keys of its labels, in the order of their colours.
        names: Their names.

    Returns:
        Plain JSON values: `case`, `cross` (where most is wrong), `image`, `outlines` of the reference's labels,
        `predictions` by method, and `colormap` of the label maps, 1 the first label.
        Each volume is a gzipped NIfTI as base64.
    """
    step = _step(case.reference.shape)
    spacing_mm = [size * every for size, every in zip(case.spacing_mm, step, strict=True)]
    every = tuple(slice(None, None, n) for n in step)
    shown = [label for label in labels if label != "0"][:255]
    values = [[int(value) for value in label.split("+")] for label in shown]

    def numbered(label_map: np.ndarray) -> np.ndarray:
        numbers = np.zeros(label_map[every].shape, np.uint8)
        for number, own in enumerate(values):
            numbers[np.isin(label_map[every], own)] = number + 1
        return numbers

    cuts = [index for _, index in find_cuts(case, dict(zip(shown, values, strict=True)))]
    share = [(index + 0.5) / size for index, size in zip(cuts, case.reference.shape, strict=True)]
    image = np.zeros(case.reference[every].shape, np.uint8) if case.image is None else _grey(case.image[every])
    return {
        "case": case.case,
        "cross": [1 - share[2], 1 - share[1], share[0]],  # of the way to the right, front and top
        "image": _nifti(image, spacing_mm),
        "outlines": _nifti(_outlines(numbered(case.reference)), spacing_mm),
        "predictions": {name: _nifti(numbered(own), spacing_mm) for name, own in case.predictions.items()},
        "colormap": _colormap([names[label] for label in shown]),
    }


def _step(shape: Sequence[int]) -> tuple[int, ...]:
    """Return every how many voxels of each axis are kept: more where there are more, until the volume is small."""
    step = [1] * len(shape)
    while np.prod([-(-size // n) for size, n in zip(shape, step, strict=True)]) > _MOST_VOXELS:
        step[int(np.argmax([size / n for size, n in zip(shape, step, strict=True)]))] += 1
    return tuple(step)


def _grey(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image[np.isfinite(image)], (1, 99))
    scaled = np.clip((np.nan_to_num(image) - low) / max(high - low, 1e-6), 0, 1)
    return (scaled * 255).round().astype(np.uint8)


def _outlines(label_map: np.ndarray) -> np.ndarray:
    """Return the voxels that have a face neighbour of another label."""
    inside = (ndimage.minimum_filter(label_map, footprint=_FACES) == label_map) & (
        ndimage.maximum_filter(label_map, footprint=_FACES) == label_map
    )
    return np.where(inside, 0, label_map)


def _nifti(array: np.ndarray, spacing_mm: Sequence[float]) -> str:
    """Return an array with axes (S, P, L) as NIfTI, its axes (L, P, S)."""
    affine = np.diag([-spacing_mm[2], -spacing_mm[1], spacing_mm[0], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(array.shape[::-1]) - 1) / 2)
    data = nib.Nifti1Image(array.T, affine).to_bytes()
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def _colormap(names: Sequence[str]) -> dict[str, list[Any]]:
    colors = [label_color(number) for number in range(len(names))]
    channels = [[0, *(int(color[start : start + 2], 16) for color in colors)] for start in (1, 3, 5)]
    return {
        "R": channels[0],
        "G": channels[1],
        "B": channels[2],
        "A": [0] + [255] * len(names),
        "I": list(range(len(names) + 1)),
        "labels": ["", *names],
    }
