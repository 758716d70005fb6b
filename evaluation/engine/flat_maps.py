"""Label maps as the compiled functions take them: planes of unsigned integers in C order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_SLAB_BYTES = 1 << 22


@dataclass(frozen=True)
class FlatMap:
    """A label map of three axes; a 2D map is one plane.

    Attributes:
        array: Unsigned integers, shape (D, H, W), any strides.
    """

    array: np.ndarray

    @classmethod
    def of(cls, label_map: np.ndarray) -> "FlatMap":
        """Take a label map; nothing is copied unless its bytes are in the order of another machine.

        Args:
            label_map: Boolean, or integers >= 0, shape (D, H, W) or (H, W).

        Returns:
            The same values.
        """
        if not label_map.dtype.isnative:
            label_map = label_map.astype(label_map.dtype.newbyteorder("="))
        unsigned = label_map.view(np.dtype(f"u{label_map.dtype.itemsize}"))
        return cls(unsigned if unsigned.ndim == 3 else unsigned[None])

    def slabs(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield some planes in pieces of one axis; a map that isn't in C order is copied piece by piece.

        Args:
            first: First plane.
            stop: Plane to stop before; None for the last.

        Yields:
            The piece's first plane and its values, shape (planes * H * W,).
        """
        stop = self.array.shape[0] if stop is None else stop
        if self.array.flags.c_contiguous:
            yield first, self.array[first:stop].reshape(-1)
            return
        for start, end in _pieces(self.array, first, stop):
            yield start, np.ascontiguousarray(self.array[start:end]).reshape(-1)


def slabs_of_both(reference: FlatMap, prediction: FlatMap) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield all planes of two maps in the same pieces.

    Args:
        reference: Map.
        prediction: Map of the same shape.

    Yields:
        The pieces' first plane and their values, shape (planes * H * W,) each.
    """
    n_planes = reference.array.shape[0]
    if reference.array.flags.c_contiguous and prediction.array.flags.c_contiguous:
        yield 0, reference.array.reshape(-1), prediction.array.reshape(-1)
        return
    larger = max((reference.array, prediction.array), key=lambda array: array.itemsize)
    for start, end in _pieces(larger, 0, n_planes):
        pieces = [np.ascontiguousarray(m.array[start:end]).reshape(-1) for m in (reference, prediction)]
        yield start, pieces[0], pieces[1]


def _pieces(array: np.ndarray, first: int, stop: int) -> Iterator[tuple[int, int]]:
    planes = max(1, _SLAB_BYTES // max(1, array[0].nbytes))
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
