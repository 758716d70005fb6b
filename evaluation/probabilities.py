"""Label maps from the npz files that hold a network's probabilities or logits."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset_labels import DatasetLabels
from .errors import CaseError
from .geometry import Geometry, geometry_from_nifti, geometry_from_sitk
from .npz_slabs import Block, NpzArray, open_npz_array
from .pickles import load_plain_pickle

ARRAY_NAMES = ("probabilities", "logits")


@dataclass(frozen=True)
class ProbabilityFile:
    """An array of probabilities or logits on disk, and its grid.

    Attributes:
        array: The array, (K, D, H, W) or (K, H, W).
        name: `probabilities` or `logits`.
        geometry: Where the voxels lie; that of (H, W) if the array is (K, 1, H, W) and the image was 2D.
    """

    array: NpzArray
    name: str
    geometry: Geometry


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into a CaseError that names it.

    Args:
        path: The file.

    Raises:
        CaseError: If the block raises any error.
    """
    try:
        yield
    except CaseError:
        raise
    except Exception as error:  # zip, zlib and the npy header each have errors of their own
        raise CaseError(
            f"{path}: can't be read: {type(error).__name__}: {error}; write the prediction again"
        ) from error


def open_probabilities(path: Path, array_name: str | None, dataset: DatasetLabels | None) -> ProbabilityFile:
    """Find the probabilities or logits in a prediction, without reading them.

    Args:
        path: File with an array (K, D, H, W) or (K, H, W), its geometry in a .pkl file of the same name.
        array_name: `probabilities` or `logits`; None for the first that is there.
        dataset: Labels of dataset.json, None if there is none.

    Returns:
        Where they are.

    Raises:
        CaseError: If a file is missing or damaged, or doesn't fit dataset.json; names the file.
    """
    with errors_named(path), zipfile.ZipFile(path) as archive:
        name = _array_name(path, archive, array_name)
        array = open_npz_array(path, archive, name)
        if len(array.shape) not in (3, 4):
            raise CaseError(f"{path}: {name} must be (K, D, H, W) or (K, H, W), got shape {array.shape}")
        _check_channels(path, name, array.shape[0], dataset)
    return ProbabilityFile(array, name, read_pickled_geometry(path.with_suffix(".pkl"), array.shape[1:]))


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
    file = open_probabilities(path, array_name, dataset)
    regions = dataset.regions_class_order if dataset and dataset.has_regions else None
    threshold = 0.5 if file.name == "probabilities" else 0.0
    with errors_named(path):
        shape, blocks = file.array.shape, file.array.blocks()
        label_map = _largest(shape, blocks) if regions is None else _painted(shape, blocks, regions, threshold)
    if len(file.geometry.shape) < label_map.ndim:
        label_map = label_map[0]
    return label_map, file.geometry, file.name


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
