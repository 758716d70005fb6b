"""A built-in data set: thorax CT phantoms with SegTHOR's labels, in nnU-Net's raw layout."""

import gzip
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from ..atomic import write_json
from ..errors import DatasetError
from .phantom_anatomy import LABELS, draw_patient, draw_thorax
from .phantom_canvas import Canvas

VERSION = 1
"""Raised whenever the same seed gives other voxels than before."""

SMALLEST_SHAPE = (32, 32, 16)
"""Fewer voxels leave nothing of the esophagus."""

_ORIENTATIONS = ("LPS", "RPS", "LPI", "RAS")
_ORIENTATION_SHARES = (0.7, 0.1, 0.1, 0.1)
_PARAMETERS_FILE = "phantom.json"


@dataclass(frozen=True)
class PhantomCase:
    """One phantom.

    Attributes:
        image_hu: CT values, int16, in HU.
        label: Label map of the same shape, uint8; values as in `LABELS`.
        affine: Voxel indices to world positions in mm, shape (4, 4), NIfTI's world axes (right, anterior, superior).
        spacing_mm: Voxel size in mm, in the order of the array's axes.
    """

    image_hu: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]


def generate_case(
    seed: int | Sequence[int], shape: tuple[int, int, int] = (128, 128, 64), orientation: str | None = None
) -> PhantomCase:
    """Draw one thorax CT phantom.

    The field of view is about 360 x 360 x 240 mm whatever the shape. Esophagus, heart and muscle have nearly the same
    value, trachea and lung too, and the aorta's overlaps with that of the heart's blood. A third of the volumes is
    oblique by a few degrees.

    Args:
        seed: Seed, or several numbers that together are one; the same seed gives the same bits.
        shape: Voxels from right to left, front to back, and bottom to top, at least (32, 32, 16).
        orientation: Directions in which the array's three axes grow, three of the letters R/L, A/P and S/I, such as
            "LPS"; None draws one, mostly "LPS", always with axial slices along the last axis.

    Returns:
        The phantom; all four organs are in it.

    Raises:
        ValueError: If the shape is too small or the orientation isn't one.
    """
    if len(shape) != 3 or any(n < least for n, least in zip(shape, SMALLEST_SHAPE, strict=True)):
        raise ValueError(f"shape must be at least {SMALLEST_SHAPE} voxels, got {tuple(shape)}")
    rng = np.random.default_rng(seed)
    in_plane_mm = rng.uniform(345, 375) / max(shape[:2])
    spacing_mm = (in_plane_mm, in_plane_mm, rng.uniform(190, 290) / shape[2])
    centre_mm = (*rng.normal(0, 4, 2), rng.uniform(-42, -20))
    canvas = Canvas(shape, spacing_mm, centre_mm, rng.uniform(0.95, 1.05, 3), bend_mm=4.5, rng=rng)
    draw_thorax(canvas, draw_patient(rng), rng)
    image = _acquire(canvas.hu, rng)
    drawn = str(rng.choice(_ORIENTATIONS, p=_ORIENTATION_SHARES))
    affine = _draw_affine(shape, spacing_mm, rng)
    return _reorient(image, canvas.label, affine, orientation or drawn)


def _acquire(tissue_hu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur and add noise that neighbouring pixels share, as a scanner does; return int16."""
    noise = gaussian_filter(rng.standard_normal(tissue_hu.shape, dtype=np.float32), (0.6, 0.6, 0))
    noise *= np.float32(rng.uniform(11, 19)) / noise.std()
    image = gaussian_filter(tissue_hu, (0.45, 0.45, 0.4)) + noise
    return np.rint(image).clip(-1024, 3071).astype(np.int16)


def _draw_affine(shape: Sequence[int], spacing_mm: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Return the affine of an array whose axes run to left, posterior and superior, oblique in a third of cases."""
    angles = np.radians(rng.normal(0, 4, 3)) * (rng.random() < 1 / 3)
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    turn = (
        np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1, -1, 1]) * np.asarray(spacing_mm)
    middle_mm = rng.uniform((-20, -40, -400), (20, 40, 400))
    affine[:3, 3] = middle_mm - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return affine


def _reorient(image: np.ndarray, label: np.ndarray, affine: np.ndarray, orientation: str) -> PhantomCase:
    """Flip and swap the axes of an LPS array and change the affine so that every voxel stays where it is."""
    if sorted("RLAPSI".find(letter) // 2 for letter in orientation) != [0, 1, 2]:
        raise ValueError(
            f"orientation must have one letter each of R/L, A/P and S/I, such as 'LPS', got {orientation!r}"
        )
    steps = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(orientation)
    )
    affine = affine @ nib.orientations.inv_ornt_aff(steps, image.shape)
    image, label = (np.ascontiguousarray(nib.orientations.apply_orientation(array, steps)) for array in (image, label))
    x, y, z = (float(step) for step in np.linalg.norm(affine[:3, :3], axis=0))
    return PhantomCase(image, label, affine, (x, y, z))


def write_phantom(
    dataset_dir: str | os.PathLike,
    num_training: int = 10,
    num_test: int = 2,
    shape: tuple[int, int, int] = (128, 128, 64),
    seed: int = 0,
) -> Path:
    """Write phantoms as an nnU-Net raw data set, or complete or reuse the one that is there.

    Files get their names only when they are whole and `dataset.json` comes last, so after an interruption the next
    call writes what is missing. `phantom.json` keeps the parameters.

    Args:
        dataset_dir: Folder to write, such as `runs/phantom/Dataset900_ThoraxPhantom`; made when missing.
        num_training: Cases in `imagesTr` and `labelsTr`, >= 1.
        num_test: Cases in `imagesTs` and `labelsTs`, >= 0.
        shape: Voxels of each case, as for `generate_case`.
        seed: Seed of the data set, >= 0.

    Returns:
        The folder.

    Raises:
        DatasetError: If the folder holds something else, or phantoms of other parameters.
        ValueError: If a parameter is out of range.
    """
    if num_training < 1 or num_test < 0 or seed < 0:
        raise ValueError(
            f"num_training must be >= 1, num_test and seed >= 0, got {num_training}, {num_test} and {seed}"
        )
    folder = Path(dataset_dir)
    parameters: dict[str, Any] = {
        "version": VERSION,
        "num_training": num_training,
        "num_test": num_test,
        "shape": [int(n) for n in shape],
        "seed": seed,
    }
    _claim(folder, parameters)
    for index, image_path, label_path in _case_files(folder, num_training, num_test):
        if not (image_path.is_file() and label_path.is_file()):
            case = generate_case((seed, index), shape)
            _write_nifti(folder, label_path, case.label, case.affine)
            _write_nifti(folder, image_path, case.image_hu, case.affine)
    if not (folder / "dataset.json").is_file():
        write_json(folder / "dataset.json", _dataset_json(num_training))
    return folder


def _claim(folder: Path, parameters: dict[str, Any]) -> None:
    """Check that the folder is ours or free, and leave the parameters in it."""
    record = folder / _PARAMETERS_FILE
    advice = "name another folder or remove this one"
    # Looked at before the record: a process that starts at the same time writes its record first of all.
    occupied = folder.exists() and (not folder.is_dir() or any(not p.name.startswith(".") for p in folder.iterdir()))
    if record.is_file():
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DatasetError(f"{record}: must be JSON, got {error}; {advice}") from error
        if found != parameters:
            raise DatasetError(f"{folder}: holds phantoms of the parameters {found}, asked for {parameters}; {advice}")
        return
    if occupied:
        raise DatasetError(
            f"{folder}: must be empty or hold phantoms ({_PARAMETERS_FILE}), holds something else; {advice}"
        )
    write_json(record, parameters)


def _case_files(folder: Path, num_training: int, num_test: int) -> Iterator[tuple[int, Path, Path]]:
    """Yield number, image and label map of each case; test cases are numbered on from the training cases."""
    for index in range(num_training + num_test):
        part = "Tr" if index < num_training else "Ts"
        name = f"thorax_{index:03d}"
        yield index, folder / f"images{part}" / f"{name}_0000.nii.gz", folder / f"labels{part}" / f"{name}.nii.gz"


def _write_nifti(folder: Path, path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not beside the file: what a killed run left there, nnU-Net would take for a case.
    temporary = folder / f".{os.getpid()}.tmp.{path.name}"
    try:
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _dataset_json(num_training: int) -> dict[str, Any]:
    return {
        "name": "ThoraxPhantom",
        "description": "Synthetic thorax CT with the labels of SegTHOR",
        "channel_names": {"0": "CT"},
        "labels": LABELS,
        "numTraining": num_training,
        "file_ending": ".nii.gz",
    }
