"""Label maps as arrays: checked, brought to a small integer type, cut to boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Box = tuple[slice, ...]

DENSE_VALUES = 1024
"""Label values below this are used as table indices as they are; larger ones are renumbered first."""


def as_label_map(array: np.ndarray, name: str) -> np.ndarray:
    """Return an array as a label map of integers >= 0.

    Args:
        array: Label values, any shape; boolean, integer, or floating point with integer values.
        name: What the array is, for the error message: a file, or an argument's name.

    Returns:
        The same values; a boolean array becomes uint8, 64-bit and floating point values become int32.

    Raises:
        ValueError: If the values aren't numbers, aren't integers, or lie outside [0, 2**31).
    """
    array = np.asarray(array)
    if array.dtype.names is not None:
        raise ValueError(f"{name}: labels must be one integer a voxel, got colours {array.dtype}; convert it to labels")
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: labels must be integers, got values of type {array.dtype}; convert it to labels")
    if array.size == 0:
        raise ValueError(f"{name}: a label map must hold at least one voxel, got shape {array.shape}")
    if array.dtype.kind == "f":
        odd = array != np.rint(array)  # nan differs from itself
        if odd.any() or np.isinf(array).any():
            example = array[odd | np.isinf(array)].flat[0]
            raise ValueError(f"{name}: label values must be integers, got {example:g}; threshold or round it first")
    if array.min() < 0 or array.max() > np.iinfo(np.int32).max:
        raise ValueError(
            f"{name}: label values must be in [0, 2147483647], got {array.min():g} to {array.max():g}; renumber them"
        )
    return array.astype(np.int32) if array.dtype.kind == "f" or array.dtype.itemsize > 4 else array


def foreground_values(*maps: np.ndarray) -> tuple[int, ...]:
    """Return the non-zero values that occur in any of some label maps, ascending.

    Args:
        maps: Label maps of integers >= 0, any shape.

    Returns:
        The values, without 0.
    """
    found: set[int] = set()
    for label_map in maps:
        foreground = label_map[label_map != 0]
        if foreground.size and int(foreground.max()) < DENSE_VALUES:
            found.update(np.flatnonzero(np.bincount(foreground)).tolist())
        else:
            found.update(np.unique(foreground).tolist())
    return tuple(sorted(found))


@dataclass(frozen=True)
class LabelMapPair:
    """Two label maps of one shape whose values are small enough to index tables with.

    Attributes:
        reference: Label map, shape (D, H, W) or (H, W).
        prediction: Label map of the same shape.
        values: Label value that each number in the maps stands for, ascending; None if they stand for themselves.
    """

    reference: np.ndarray
    prediction: np.ndarray
    values: tuple[int, ...] | None = None

    @classmethod
    def from_maps(cls, reference: np.ndarray, prediction: np.ndarray) -> "LabelMapPair":
        """Return the pair, renumbered if a value is too large to index a table with.

        Args:
            reference: Label map of integers >= 0.
            prediction: Label map of the same shape.

        Returns:
            The pair.
        """
        if max(int(reference.max()), int(prediction.max())) < DENSE_VALUES:
            return cls(reference, prediction)
        values = (0, *foreground_values(reference, prediction))
        renumbered = [np.searchsorted(values, label_map).astype(np.int32) for label_map in (reference, prediction)]
        return cls(renumbered[0], renumbered[1], values)

    def numbers(self, label: Sequence[int]) -> tuple[int, ...]:
        """Return the numbers in the maps that make up a label.

        Args:
            label: Label values, one or (for a region) several.

        Returns:
            Numbers in the maps; a value that occurs in neither map has none if the maps were renumbered.
        """
        if self.values is None:
            return tuple(label)
        return tuple(self.values.index(value) for value in label if value in self.values)


def value_boxes(label_map: np.ndarray) -> list[Box | None]:
    """Return the bounding box of each value of a label map.

    Args:
        label_map: Integers >= 0, shape (D, H, W) or (H, W).

    Returns:
        At index v the box of value v, None where it doesn't occur; index 0 is None too.
    """
    return [None, *ndimage.find_objects(label_map)]


def joint_box(boxes: Sequence[Sequence[Box | None]], values: Sequence[int]) -> Box | None:
    """Return the smallest box around some values in all maps.

    Args:
        boxes: For each map its boxes by value, as made by `value_boxes`.
        values: The values.

    Returns:
        The box, None if no value occurs in any map.
    """
    found = [box for by_value in boxes for v in values if v < len(by_value) and (box := by_value[v]) is not None]
    if not found:
        return None
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*found, strict=True))


def mask_of(label_map: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Return where a label map holds one of some values.

    Args:
        label_map: Integers >= 0, any shape.
        values: The values, at least one.

    Returns:
        Boolean mask of the same shape, C-contiguous.
    """
    mask = np.ascontiguousarray(label_map == values[0])
    for value in values[1:]:
        mask |= label_map == value
    return mask
