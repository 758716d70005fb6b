"""Label maps from the npz files that hold a network's probabilities or logits."""

import math
import zipfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import IO

import numpy as np

from .dataset_labels import DatasetLabels
from .errors import CaseError
from .geometry import Geometry, geometry_from_nifti, geometry_from_sitk
from .pickles import load_plain_pickle

ARRAY_NAMES = ("probabilities", "logits")

Block = tuple[int, slice, np.ndarray]
"""A channel, some of its rows along the next axis, and the values there."""

_BLOCK_VOXELS = 1 << 22


def read_npz(path: Path, array_name: str | None, dataset: DatasetLabels | None) -> tuple[np.ndarray, Geometry, str]:
    """Read the label map that a prediction's probabilities or logits amount to.

    Without regions it is the channel with the largest value. With regions each channel is thresholded (probability
    0.5, logit 0) and painted in the order of `regions_class_order`, as nnU-Net does. The array is read in blocks: no
    more than one channel of it is in memory.

    Args:
        path: File with an array (K, D, H, W) or (K, H, W), its geometry in a .pkl file of the same name.
        array_name: `probabilities` or `logits`; None for the first that is there.
        dataset: Labels of dataset.json, None if there is none.

    Returns:
        Label map, its geometry, and the name of the array used.

    Raises:
        CaseError: If a file is missing or damaged, or doesn't fit dataset.json; names the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = _array_name(path, archive, array_name)
            with archive.open(f"{name}.npy") as stream:
                shape, blocks = _open_array(stream)
                if len(shape) not in (3, 4):
                    raise CaseError(f"{path}: {name} must be (K, D, H, W) or (K, H, W), got shape {shape}")
                _check_channels(path, name, shape[0], dataset)
                regions = dataset.regions_class_order if dataset and dataset.has_regions else None
                threshold = 0.5 if name == "probabilities" else 0.0
                label_map = _largest(shape, blocks) if regions is None else _painted(shape, blocks, regions, threshold)
    except CaseError:
        raise
    except Exception as error:  # zip, zlib and the npy header each have errors of their own
        raise CaseError(
            f"{path}: can't be read: {type(error).__name__}: {error}; write the prediction again"
        ) from error
    geometry = read_pickled_geometry(path.with_suffix(".pkl"), label_map.shape)
    if len(geometry.shape) < label_map.ndim:
        label_map = label_map[0]
    return label_map, geometry, name


def read_pickled_geometry(path: Path, shape: tuple[int, ...]) -> Geometry:
    """Read the geometry that nnU-Net writes beside probabilities.

    Args:
        path: The .pkl file; `sitk_stuff` or `nibabel_stuff` says where the image lies, else `spacing` its voxel size.
        shape: Shape of the array, (D, H, W) or (H, W).

    Returns:
        The geometry; that of (H, W) if the array is (1, H, W) and the image was 2D.

    Raises:
        CaseError: If the file is missing, unsafe, or holds no geometry.
    """
    try:
        properties = load_plain_pickle(path)
        if "sitk_stuff" in properties:
            sitk = properties["sitk_stuff"]
            if len(sitk["spacing"]) == 2:
                shape = shape[-2:]
            return geometry_from_sitk(shape, sitk["spacing"], sitk["origin"], sitk["direction"])
        if "nibabel_stuff" in properties:
            nibabel = properties["nibabel_stuff"]
            affine = np.asarray(nibabel.get("reoriented_affine", nibabel["original_affine"]), dtype=float)
            return geometry_from_nifti(shape, [affine], ())
        return Geometry(shape, tuple(float(size) for size in properties["spacing"])[-len(shape) :])
    except FileNotFoundError as error:
        raise CaseError(f"{path}: missing, so the geometry is unknown; copy it beside the .npz file") from error
    except (OSError, ValueError) as error:
        raise CaseError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise CaseError(f"{path}: needs sitk_stuff with spacing, origin, direction; {error!r} is missing") from error


def _array_name(path: Path, archive: zipfile.ZipFile, wanted: str | None) -> str:
    held = [name.removesuffix(".npy") for name in archive.namelist()]
    for name in ARRAY_NAMES if wanted is None else (wanted,):
        if name in held:
            return name
    raise CaseError(
        f"{path}: needs an array {wanted or 'probabilities or logits'}, got {', '.join(held) or 'none'}; "
        "choose another --source or save it when predicting"
    )


def _check_channels(path: Path, name: str, n_channels: int, dataset: DatasetLabels | None) -> None:
    if dataset is None:
        return
    foreground = [label for label in dataset.labels if not label.is_background]
    expected = len(foreground) if dataset.has_regions else len(foreground) + 1
    if n_channels != expected:
        raise CaseError(
            f"{path}: {name} must have {expected} channels for the labels of {dataset.path}, got {n_channels}; "
            "give the dataset.json that the model was trained with"
        )
    if dataset.has_regions and len(dataset.regions_class_order) != expected:
        raise CaseError(
            f"{dataset.path}: regions_class_order must have {expected} entries to turn {path.name} into labels, "
            f"got {list(dataset.regions_class_order)}; add it"
        )


def _open_array(stream: IO[bytes]) -> tuple[tuple[int, ...], Iterator[Block]]:
    """Return the shape of a .npy stream and an iterator over its blocks."""
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(stream)
    if dtype.kind not in "fiu":
        raise ValueError(f"the array must hold numbers, got {dtype}")
    if 0 in shape:
        raise ValueError(f"the array must not be empty, got shape {shape}")
    if fortran_order:
        whole = _read_exactly(stream, shape[::-1], dtype).T
        return shape, ((channel, slice(None), whole[channel]) for channel in range(shape[0]))
    return shape, _blocks(stream, shape, dtype)


def _blocks(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Block]:
    n_rows = max(1, _BLOCK_VOXELS // math.prod(shape[2:]))
    for channel, start in product(range(shape[0]), range(0, shape[1], n_rows)):
        rows = slice(start, min(start + n_rows, shape[1]))
        yield channel, rows, _read_exactly(stream, (rows.stop - rows.start, *shape[2:]), dtype)
    stream.read(1)  # reaches the end, where the checksum is compared


def _read_exactly(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    n_bytes = math.prod(shape) * dtype.itemsize
    data = stream.read(n_bytes)
    if len(data) < n_bytes:
        raise EOFError(f"the array is cut short, {n_bytes - len(data)} bytes are missing")
    values = np.frombuffer(data, dtype).reshape(shape)
    if np.isnan(values).any():
        raise ValueError("it holds nan")
    return values


def _largest(shape: tuple[int, ...], blocks: Iterator[Block]) -> np.ndarray:
    label_map = np.zeros(shape[1:], dtype=np.uint8 if shape[0] <= 256 else np.int32)
    best: np.ndarray | None = None
    for channel, rows, block in blocks:
        if best is None:
            best = np.empty(shape[1:], dtype=block.dtype)
        if channel == 0:
            best[rows] = block
        else:
            larger = block > best[rows]
            label_map[rows][larger] = channel
            np.copyto(best[rows], block, where=larger)
    return label_map


def _painted(shape: tuple[int, ...], blocks: Iterator[Block], order: tuple[int, ...], threshold: float) -> np.ndarray:
    label_map = np.zeros(shape[1:], dtype=np.uint8 if max(order) < 256 else np.int32)
    for channel, rows, block in blocks:
        label_map[rows][block > threshold] = order[channel]
    return label_map
