"""Memory that is used again for every label: to be given fresh memory costs more than the work on it."""

import math

import numpy as np


class Scratch:
    """Arrays of 64-bit words by name; what an array holds is lost when its name is asked for again."""

    def __init__(self) -> None:
        self._words: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array.

        Args:
            name: Name of the memory.
            shape: Shape of the array.

        Returns:
            uint64 array of that shape in C order; what is in it isn't defined.
        """
        size = math.prod(shape)
        if name not in self._words or self._words[name].size < size:
            self._words[name] = np.empty(size, dtype=np.uint64)
        return self._words[name][:size].reshape(shape)
