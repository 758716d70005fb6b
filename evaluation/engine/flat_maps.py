"""Label maps as the compiled functions take them: planes of uint8 or uint32 in C order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_SLAB_VALUES = 1 << 20


@dataclass(frozen=True)
class FlatMap:
    """A label map of three axes; a 2D map is one plane.

    Attributes:
        array: Integers in [0, 2**31), shape (D, H, W), any strides.
    """

    array: np.ndarray

    @classmethod
    def of(cls, label_map: np.ndarray) -> "FlatMap":
        """Take a label map; nothing is copied.

        Args:
            label_map: Boolean, or integers in [0, 2**31), shape (D, H, W) or (H, W).

        Returns:
            The same values.
        """
        if label_map.dtype.itemsize == 1:
            label_map = label_map.view(np.uint8)
        elif label_map.dtype.itemsize == 4 and label_map.dtype.isnative:
            label_map = label_map.view(np.uint32)
        return cls(label_map if label_map.ndim == 3 else label_map[None])

    @property
    def is_small(self) -> bool:
        """Return whether it is handed to compiled functions as uint8; else as uint32."""
        return self.array.dtype == np.uint8

    def slabs(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield some planes in pieces of one axis; a map of another type or order is copied piece by piece.

        Args:
            first: First plane.
            stop: Plane to stop before; None for the last.

        Yields:
            The piece's first plane and its values, uint8 or uint32, shape (planes * H * W,).
        """
        stop = self.array.shape[0] if stop is None else stop
        kind = np.uint8 if self.is_small else np.uint32
        for start, end in _pieces([self], kind, first, stop):
            yield start, self._piece(kind, start, end)

    def fits(self, kind: type) -> bool:
        """Return whether the whole map can be handed over as it is."""
        return bool(self.array.flags.c_contiguous and self.array.dtype == kind)

    def _piece(self, kind: type, start: int, end: int) -> np.ndarray:
        return np.ascontiguousarray(self.array[start:end], dtype=kind).reshape(-1)


def slabs_of_both(reference: FlatMap, prediction: FlatMap) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield all planes of two maps in the same pieces.

    Args:
        reference: Map.
        prediction: Map of the same shape.

    Yields:
        The pieces' first plane and their values, both uint8 or both uint32, shape (planes * H * W,) each.
    """
    kind = np.uint8 if reference.is_small and prediction.is_small else np.uint32
    for start, end in _pieces([reference, prediction], kind, 0, reference.array.shape[0]):
        yield start, reference._piece(kind, start, end), prediction._piece(kind, start, end)


def _pieces(maps: Sequence[FlatMap], kind: type, first: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield planes from first to before last: all at once where no map needs to be copied."""
    if all(label_map.fits(kind) for label_map in maps):
        yield first, stop
        return
    planes = max(1, _SLAB_VALUES // max(1, maps[0].array[0].size))
    for start in range(first, stop, planes):
        yield start, min(stop, start + planes)


def axes_by_stride(label_map: np.ndarray) -> Sequence[int]:
    """Return the order of a map's axes in which it is closest to C order.

    Args:
        label_map: Any array.

    Returns:
        Axes, the one with the longest stride first.
    """
    return sorted(range(label_map.ndim), key=lambda axis: -abs(label_map.strides[axis]))
