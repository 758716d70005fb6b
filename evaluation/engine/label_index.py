"""Numbers that stand for label values, small enough to index tables with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from .compiled import compiled
from .flat_maps import FlatMap
from .runs import run_end

TABLE_SIZE = 1 << 16
"""Values below this are looked up in a table, larger ones are searched."""


@dataclass(frozen=True)
class LabelIndex:
    """A number for each of some label values; all other values share the last number, `other`.

    Attributes:
        values: Label values, ascending and each once, 0 among them.
    """

    values: tuple[int, ...]

    @property
    def other(self) -> int:
        """Return the number of the values that aren't in `values`."""
        return len(self.values)

    @cached_property
    def table(self) -> np.ndarray:
        """Return the number of each value below the table's length, int32."""
        small = [value for value in self.values if value < TABLE_SIZE]
        table = np.full(max(256, small[-1] + 1), self.other, dtype=np.int32)
        table[small] = np.arange(len(small))
        return table

    @cached_property
    def large(self) -> np.ndarray:
        """Return the values that aren't in the table, ascending, uint64."""
        return np.array([value for value in self.values if value >= TABLE_SIZE], dtype=np.uint64)

    def numbers(self, values: Sequence[int]) -> tuple[int, ...]:
        """Return the numbers of some values; those that have none are left out.

        Args:
            values: Label values.

        Returns:
            Their numbers.
        """
        return tuple(self._position[value] for value in values if value in self._position)

    @cached_property
    def _position(self) -> dict[int, int]:
        return {value: number for number, value in enumerate(self.values)}


@njit(inline="always")
def number_of(value, table, large, other):  # type: ignore[no-untyped-def]
    """Return the number of a label value.

    Args:
        value: Label value.
        table: `LabelIndex.table`.
        large: `LabelIndex.large`.
        other: `LabelIndex.other`.
    """
    if value < table.size:
        return table[value]
    if large.size == 0:
        return other
    position = np.searchsorted(large, value)
    if position < large.size and large[position] == value:
        return other - large.size + position
    return other


def distinct_values(label_map: FlatMap) -> tuple[int, ...]:
    """Return the values that occur in a label map, ascending.

    Args:
        label_map: The map.

    Returns:
        The values, 0 among them if it occurs.
    """
    seen = np.zeros(TABLE_SIZE, dtype=bool)
    large: set[int] = set()
    buffer = np.empty(4096, dtype=np.uint64)
    for _, piece in label_map.slabs():
        position = 0
        while position < piece.size:
            position, n_large = _note_values(piece, position, seen, buffer)
            large.update(buffer[:n_large].tolist())
    return (*np.flatnonzero(seen).tolist(), *sorted(large))


@compiled
def _note_values(piece, position, seen, buffer):  # type: ignore[no-untyped-def]
    """Mark the values of a piece as seen until the buffer of large ones is full; return where it stopped."""
    n_large = 0
    while position < piece.size:
        value = piece[position]
        if value < seen.size:
            seen[value] = True
        else:
            if n_large == buffer.size:
                return position, n_large
            if n_large == 0 or buffer[n_large - 1] != value:
                buffer[n_large] = value
                n_large += 1
        position = run_end(piece, position, piece.size)
    return position, n_large
