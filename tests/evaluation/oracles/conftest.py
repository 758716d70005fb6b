"""Pairs of masks to compare packages on: random, anatomical, and two real predictions of one scan."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


def read(path):
    """Return a label map and its voxel size, axes as in the file."""
    image = nib.load(path)
    return np.asarray(image.dataobj).astype(np.uint8), tuple(map(float, image.header.get_zooms()))


def spoiled(label_map, seed):
    """Return what a poor network might make of a label map: moved, a part lost, stray voxels of every label."""
    rng = np.random.default_rng(seed)
    result = np.roll(label_map, (1, -2, 1), axis=(0, 1, 2))
    lost = np.argwhere(result)[rng.integers(np.count_nonzero(result))]
    result[tuple(slice(max(0, at - 3), at + 4) for at in lost)] = 0
    for label in np.unique(label_map)[1:]:
        for at in rng.integers(0, label_map.shape, (3, 3)):
            result[tuple(at)] = label
    return result


def pairs_of_one(label_map, spacing_mm, seed):
    """Yield the mask pair of each label against the spoiled map."""
    prediction = spoiled(label_map, seed)
    for label in np.unique(label_map)[1:]:
        yield label_map == label, prediction == label, spacing_mm


def first(folder: Path, count):
    """Return the first label files of a data set."""
    return sorted((folder / "labelsTr").glob("*.nii.gz"))[:count]


@pytest.fixture(params=["blobs", "sparse", "dense", "far", "touching"])
def random_pair(request, blobs):
    """Return a maker of two random masks of one kind, neither of them empty."""
    kind = request.param

    def make(shape, seed=0):
        rng = np.random.default_rng(seed)
        if kind == "blobs":
            return blobs(seed, shape)
        if kind == "touching":  # both reach the edge of the image on every side
            return tuple(rng.random(shape) < 0.9 for _ in range(2))
        if kind == "far":
            masks = np.zeros((2, *shape), bool)
            masks[0][(slice(1, 4),) * len(shape)] = masks[1][(slice(-4, -1),) * len(shape)] = True
            return masks[0], masks[1]
        return tuple(rng.random(shape) < {"sparse": 0.02, "dense": 0.6}[kind] for _ in range(2))

    return make


@pytest.fixture(params=["hippocampus", "head and neck", "other patient", "two predictions"])
def real_pairs(request, real_data):
    """Return the mask pairs of one kind of real data: (reference, prediction, voxel size in mm)."""
    return list(organs(request.param, real_data))


def organs(name, real_data):
    """Yield the mask pairs of one kind of real data."""
    if name == "hippocampus":
        for seed, path in enumerate(first(real_data / "Dataset004_Hippocampus", 3)):
            yield from pairs_of_one(read(path)[0], (1.0, 1.3, 2.4), seed)
    if name == "head and neck":
        for seed, path in enumerate(first(real_data / "Dataset101_OpenKBPHeadNeck", 2)):
            yield from pairs_of_one(*read(path), seed)
    if name == "other patient":
        (reference, spacing), (prediction, _) = map(read, first(real_data / "Dataset101_OpenKBPHeadNeck", 2))
        for label in range(1, 6):
            yield reference == label, prediction == label, spacing
    if name == "two predictions":
        folder = real_data / "ts_example_ct"
        (reference, spacing), (prediction, _) = (
            read(folder / f"{file}.nii.gz") for file in ("example_seg", "example_seg_fast")
        )
        for label in sorted(set(np.unique(reference)) & set(np.unique(prediction)) - {0}):
            yield reference == label, prediction == label, spacing
