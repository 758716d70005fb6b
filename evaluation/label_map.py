"""Label maps as arrays: checked, and of an integer type."""

import numpy as np

from .engine.flat_maps import FlatMap, axes_by_stride
from .engine.label_index import distinct_values

_BLOCK_VALUES = 1 << 20
LARGEST_VALUE = 2**31 - 1


def as_label_map(array: np.ndarray, name: str) -> np.ndarray:
    """Return an array as a label map of integers >= 0.

    Args:
        array: Label values, any shape; boolean, integer, or floating point with integer values.
        name: What the array is, for the error message: a file, or an argument's name.

    Returns:
        The same values; a boolean array becomes uint8, a floating point one int32.

    Raises:
        ValueError: If the values aren't numbers, aren't integers, or lie outside [0, 2**31).
    """
    array = np.asarray(array)
    if array.dtype.names is not None:
        raise ValueError(f"{name}: labels must be one integer a voxel, got colours {array.dtype}; convert it to labels")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: labels must be integers, got values of type {array.dtype}; convert it to labels")
    if array.size == 0:
        raise ValueError(f"{name}: a label map must hold at least one voxel, got shape {array.shape}")
    if array.dtype.kind == "f":
        return _integers(array.reshape(array.shape or (1,)), name).reshape(array.shape)
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    if array.dtype not in (np.uint8, np.uint16):
        _check_range(array, name)
    return array


def _integers(array: np.ndarray, name: str) -> np.ndarray:
    """Return floating point values as int32, made in pieces: no second array of their size is needed."""
    result = np.empty_like(array, dtype=np.int32)
    planes = max(1, _BLOCK_VALUES // max(1, array[:1].size))
    for start in range(0, len(array), planes):
        piece = array[start : start + planes]
        odd = piece != np.rint(piece)  # nan differs from itself
        odd |= np.isinf(piece)
        if odd.any():
            example = piece[odd].flat[0]
            raise ValueError(f"{name}: label values must be integers, got {example:g}; threshold or round it first")
        _check_range(piece, name)
        result[start : start + planes] = piece
    return result


def _check_range(array: np.ndarray, name: str) -> None:
    low, high = array.min(), array.max()
    if low < 0 or high >= LARGEST_VALUE + 1:
        raise ValueError(
            f"{name}: label values must be in [0, {LARGEST_VALUE}], got {low:g} to {high:g}; renumber them"
        )


def foreground_values(*maps: np.ndarray) -> tuple[int, ...]:
    """Return the non-zero values that occur in any of some label maps, ascending.

    Args:
        maps: Label maps of integers >= 0, shape (D, H, W) or (H, W).

    Returns:
        The values, without 0.
    """
    found = {value for label_map in maps for value in distinct_values(_flat(label_map))}
    return tuple(sorted(found - {0}))


def _flat(label_map: np.ndarray) -> FlatMap:
    return FlatMap.of(label_map.transpose(axes_by_stride(label_map)))
