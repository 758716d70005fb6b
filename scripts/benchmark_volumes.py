"""Label maps of the size of CT scans for benchmarks: bumpy organs, and predictions a few millimetres off."""

import numpy as np
from scipy import ndimage

SPACING_MM = (2.5, 0.9766, 0.9766)
VOLUMES = {"abdomen": ((200, 512, 512), 5), "body": ((600, 512, 512), 31), "blob": None, "noise": None}
"""Shape and number of labels; `blob` and `noise` are `abdomen` with a far piece or 0.1 % wrong voxels predicted."""


def make_pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a reference and a prediction.

    Args:
        name: One of `VOLUMES`.

    Returns:
        uint8 arrays (D, H, W), the same ones at every call.
    """
    shape, n_labels = VOLUMES[name] or VOLUMES["abdomen"]
    rng = np.random.default_rng(0)
    reference, prediction = np.zeros((2, *shape), np.uint8)
    for label in range(1, n_labels + 1):
        radii = np.array((30, 50, 60)) * rng.uniform(0.25, 1) * rng.uniform(0.7, 1.3, 3)
        center = np.array([rng.integers(50, side - 50) for side in shape])
        _paint(reference, label, center, radii, np.random.default_rng(label))
        shift, growth = rng.integers(-1, 2, 3), rng.uniform(0.97, 1.03)
        _paint(prediction, label, center + shift, radii * growth, np.random.default_rng(label))
    if name == "blob":
        prediction[:20, :30, :30] = 1
    if name == "noise":
        places = rng.integers(0, prediction.size, prediction.size // 1000)
        prediction.reshape(-1)[places] = rng.integers(1, n_labels + 1, places.size)
    return reference, prediction


def _paint(label_map: np.ndarray, label: int, center: np.ndarray, radii: np.ndarray, rng: np.random.Generator) -> None:
    """Paint an ellipsoid with bumps, half-axes in voxels, as far as it lies in the image."""
    half = np.ceil(radii * 1.5).astype(int)
    bumps = ndimage.zoom(rng.standard_normal((6, 6, 6)), (2 * half + 1) / 6, order=1)
    grid = np.meshgrid(
        *((np.arange(-h, h + 1) / r) for h, r in zip(half, radii, strict=True)), indexing="ij", sparse=True
    )
    inside = np.sqrt(sum(axis**2 for axis in grid)) + 0.12 * bumps < 1
    first = np.maximum(center - half, 0)
    stop = np.minimum(center + half + 1, label_map.shape)
    place = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
    cut = tuple(slice(a, b) for a, b in zip(first - center + half, stop - center + half, strict=True))
    label_map[place][inside[cut]] = label
