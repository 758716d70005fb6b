"""Cut volumes into slices, without going through the whole memory for each."""

from collections.abc import Iterator

import numpy as np

_BLOCK_SLICES = 64
"""A cache line of single bytes."""


def slices(volume: np.ndarray, axis: int) -> Iterator[np.ndarray]:
    """Yield the slices of a volume.

    Args:
        volume: Array (D, H, W), any strides.
        axis: Axis to cut along.

    Yields:
        Arrays of the other two axes: views where a slice lies in one piece, else copied block by block.
    """
    along = np.moveaxis(volume, axis, 0)
    if abs(along.strides[0]) >= max(map(abs, along.strides)):
        yield from along
        return
    for start in range(0, len(along), _BLOCK_SLICES):
        block = along[start : start + _BLOCK_SLICES]
        copied = np.empty(block.shape, block.dtype)
        for line in range(block.shape[1]):  # so little at a time that it stays in the cache while it is turned
            copied[:, line] = block[:, line]
        yield from copied
