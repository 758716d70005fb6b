"""Decode each case once; slices are then read from memory-mapped arrays shared by all processes."""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..atomic import atomic_path, write_json
from ..errors import DatasetError
from .check import check_label_values
from .geometry import Geometry, to_canonical
from .image_io import read_channels, read_label
from .normalization import Statistics, crop_ratio, measure_image
from .raw_dataset import Case, RawDataset

FORMAT = 1
MAX_THREADS = 8
"""Cases decoded at once at most: each one is in memory as a whole."""
FOREGROUND_SAMPLES = 10_000
"""Labelled voxels drawn from each case for the CT statistics; the same number, so that every case counts alike."""


@dataclass(frozen=True)
class CachedVolume:
    """One decoded case, in the canonical axis order (slices to superior, rows to posterior, columns to left).

    Args:
        case: Name of the case.
        folder: Folder with the arrays.
        info: What is known of the case without reading the arrays.
    """

    case: str
    folder: Path
    info: dict[str, Any]

    @cached_property
    def image(self) -> np.ndarray:
        """Memory-mapped intensities, shape (C, S, P, L), not normalised."""
        return np.load(self.folder / "image.npy", mmap_mode="r")

    @cached_property
    def label(self) -> np.ndarray:
        """Memory-mapped label values, shape (S, P, L)."""
        return np.load(self.folder / "label.npy", mmap_mode="r")

    @cached_property
    def foreground_intensities(self) -> np.ndarray:
        """Intensities of labelled voxels drawn with replacement, shape (C, N); N = 0 if the label is empty."""
        return np.load(self.folder / "foreground.npy")

    @cached_property
    def statistics(self) -> list[dict[str, Statistics]]:
        """Intensity statistics of each channel, as `normalization.measure_image` gives them."""
        return [{key: Statistics(**value) for key, value in channel.items()} for channel in self.info["statistics"]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size (S, P, L) in voxels."""
        s, p, l = self.info["shape"]  # noqa: E741
        return s, p, l

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size (S, P, L) in mm."""
        s, p, l = self.info["spacing_mm"]  # noqa: E741
        return s, p, l

    def foreground_slices(self, axis: int) -> np.ndarray:
        """Return which slices hold foreground.

        Args:
            axis: Slice axis, 0 (axial), 1 (coronal) or 2 (sagittal).

        Returns:
            Sorted slice numbers; known from the cache's index, no array is read.
        """
        return np.asarray(self.info["foreground_slices"][axis], dtype=np.int64)

    def __getstate__(self) -> dict[str, Any]:
        """Leave open memory maps behind: worker processes map the files again."""
        return {"case": self.case, "folder": self.folder, "info": self.info}


def cache_volumes(
    dataset: RawDataset, cases: list[Case], cache_dir: str | os.PathLike, progress: bool = True
) -> list[CachedVolume]:
    """Decode cases into a cache folder, or take them from there.

    Args:
        dataset: The data set.
        cases: Cases to decode; one without a label gets an empty one.
        cache_dir: Folder for the arrays; each case is keyed by its files' paths, sizes and times, so a changed
            file is decoded again, and several runs and folds share one cache.
        progress: Whether to show a progress bar.

    Returns:
        The cases in the order given.

    Raises:
        DatasetError: If cases are unusable; it lists them all.
    """
    root = Path(cache_dir) / dataset.name
    load = partial(_collect, partial(_load_or_decode, dataset, root))
    # Each process of a distributed run begins with another case, and finds what the others have decoded.
    begin = len(cases) * int(os.environ.get("RANK", 0)) // int(os.environ.get("WORLD_SIZE", 1)) % max(1, len(cases))
    with ThreadPoolExecutor(max_workers=min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        order = pool.map(load, cases[begin:] + cases[:begin])
        turned = list(tqdm(order, total=len(cases), desc="cache", unit="case", disable=not progress))
    results = turned[len(cases) - begin :] + turned[: len(cases) - begin]
    errors = [result for result in results if isinstance(result, DatasetError)]
    if errors:
        listed = "\n  ".join(str(error) for error in errors[:20])
        raise DatasetError(f"{len(errors)} of {len(cases)} cases are unusable:\n  {listed}")
    return [result for result in results if isinstance(result, CachedVolume)]


def _collect(load: Callable[[Case], CachedVolume], case: Case) -> CachedVolume | DatasetError:
    try:
        return load(case)
    except DatasetError as error:
        return error


def _load_or_decode(dataset: RawDataset, root: Path, case: Case) -> CachedVolume:
    folder = root / f"{case.name}-{_signature(dataset, case)}"
    index = folder / "index.json"
    if not index.is_file():
        _decode(dataset, case, folder)
    return CachedVolume(case.name, folder, json.loads(index.read_text(encoding="utf-8")))


def _signature(dataset: RawDataset, case: Case) -> str:
    parts: list[Any] = [FORMAT, sorted(dataset.label_map.allowed_values)]
    for path in (*case.images, *([] if case.label is None else [case.label])):
        if not path.is_file():
            raise DatasetError(f"{path}: no such file")
        status = path.stat()
        parts.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _decode(dataset: RawDataset, case: Case, folder: Path) -> None:
    image, geometry = read_channels(list(case.images))
    if len(image) != dataset.num_channels:
        raise DatasetError(f"{case.images[0]}: need {dataset.num_channels} channels (channel_names), got {len(image)}")
    label = np.zeros(image.shape[1:], np.uint8) if case.label is None else _read_label(dataset, case, geometry)
    image = np.ascontiguousarray(to_canonical(_compact(image), geometry))
    label = np.ascontiguousarray(to_canonical(label, geometry))
    permutation, _ = geometry.axis_order()
    spacing = geometry.spacing_zyx_mm()
    for name, array in (
        ("image", image),
        ("label", label),
        ("foreground", _draw_foreground(image, label, case.name)),
    ):
        with atomic_path(folder / f"{name}.npy") as temporary:
            np.save(temporary, array)
    foreground = label > 0
    info = {
        "case": case.name,
        "shape": label.shape,
        "spacing_mm": [spacing[axis] for axis in permutation],
        "crop_ratio": crop_ratio(image),
        "statistics": [{k: asdict(v) for k, v in measure_image(channel).items()} for channel in image],
        "foreground_slices": [
            np.flatnonzero(foreground.any(axis=other)).tolist() for other in ((1, 2), (0, 2), (0, 1))
        ],
    }
    write_json(folder / "index.json", info)  # last: its presence says that the arrays are complete


def _read_label(dataset: RawDataset, case: Case, geometry: Geometry) -> np.ndarray:
    assert case.label is not None
    label, label_geometry = read_label(case.label)
    if difference := geometry.difference(label_geometry):
        raise DatasetError(f"{case.label}: label and image ({case.images[0].name}) must lie on one grid: {difference}")
    check_label_values(label, case.label, dataset)
    return label


def _compact(image: np.ndarray) -> np.ndarray:
    return image if image.dtype in (np.uint8, np.int8, np.int16, np.uint16) else image.astype(np.float32)


def _draw_foreground(image: np.ndarray, label: np.ndarray, name: str) -> np.ndarray:
    voxels = np.flatnonzero(label)
    if not voxels.size:
        return np.empty((len(image), 0), dtype=np.float32)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    chosen = np.random.default_rng(seed).choice(voxels, FOREGROUND_SAMPLES)
    return image.reshape(len(image), -1)[:, chosen].astype(np.float32)
