"""One array of an .npz file, read in pieces: channel after channel, or some rows of all channels at once."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import IO, Any

import numpy as np
from isal import isal_zlib

Block = tuple[int, slice, np.ndarray]
"""A channel, some of its rows along the next axis, and the values there."""

SMALL_BYTES = 1 << 26
"""Arrays up to this size are one slab."""

_SLAB_BYTES = 1 << 24
_BLOCK_BYTES = 1 << 22
_PIECE_BYTES = 1 << 18
_LOCAL_HEADER_BYTES = 30
_RAW_DEFLATE = -15


@dataclass(frozen=True)
class NpzArray:
    """Where an array (K, ...) lies in an .npz file.

    Attributes:
        path: The file.
        shape: Shape of the array, K first.
        dtype: Type of its numbers.
        fortran_order: Whether the first axis varies fastest in the file.
        member: The array's entry in the zip file.
        data_start: Position of that entry's (compressed) bytes in the file.
        header_bytes: Length of the npy header, uncompressed.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    member: zipfile.ZipInfo
    data_start: int
    header_bytes: int

    @property
    def channel_bytes(self) -> int:
        """Return the size of one channel."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def blocks(self) -> Iterator[Block]:
        """Yield blocks in the order of the file, channel after channel; each byte is inflated once.

        Yields:
            Channel, rows and values, a few MB each.

        Raises:
            EOFError: If the file is cut short.
            ValueError: If the checksum is wrong or a value is nan.
        """
        with self.path.open("rb") as file:
            inflater = self._inflater(file, fast=True)
            inflater.skip(self.header_bytes)
            if self.fortran_order:
                whole = _numbers(inflater, self.shape[::-1], self.dtype).T
                yield from ((channel, slice(None), whole[channel]) for channel in range(self.shape[0]))
            else:
                n_rows = self._n_rows(_BLOCK_BYTES, self.channel_bytes)
                for channel, start in product(range(self.shape[0]), range(0, self.shape[1], n_rows)):
                    rows = slice(start, min(start + n_rows, self.shape[1]))
                    yield channel, rows, _numbers(inflater, self._shape_of(rows), self.dtype)
            inflater.check_end(self.member.CRC)

    def slabs(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield some rows of all channels at once.

        An array that isn't small is inflated twice: once to find out where its channels start and whether the
        checksum is right, and once by an inflater for each channel.

        Yields:
            Rows along the second axis, and the values there, shape (K, rows, ...).

        Raises:
            EOFError: If the file is cut short.
            ValueError: If the checksum is wrong or a value is nan.
        """
        if self.fortran_order or self.channel_bytes * self.shape[0] <= SMALL_BYTES:
            whole = np.empty(self.shape, self.dtype)
            for channel, rows, block in self.blocks():
                whole[channel, rows] = block
            yield slice(0, self.shape[1]), whole
            return
        n_rows = self._n_rows(_SLAB_BYTES, self.channel_bytes * self.shape[0])
        with self.path.open("rb") as file:
            inflaters = [inflater.copy(file) for inflater in self._channel_starts]
            for start in range(0, self.shape[1], n_rows):
                rows = slice(start, min(start + n_rows, self.shape[1]))
                slab = np.empty((self.shape[0], *self._shape_of(rows)), self.dtype)
                for channel, inflater in enumerate(inflaters):
                    slab[channel] = _numbers(inflater, slab.shape[1:], self.dtype)
                yield rows, slab

    @cached_property
    def _channel_starts(self) -> "list[_Inflater]":
        with self.path.open("rb") as file:
            inflater = self._inflater(file, fast=False)
            inflater.skip(self.header_bytes)
            starts = []
            for _ in range(self.shape[0]):
                starts.append(inflater.copy(file))
                inflater.skip(self.channel_bytes)
            inflater.check_end(self.member.CRC)
        return starts

    def _inflater(self, file: IO[bytes], *, fast: bool) -> "_Inflater":
        """Return an inflater at the start of the entry: a fast one, or one that can be copied."""
        if self.member.compress_type == zipfile.ZIP_STORED:
            engine: Any = _Stored()
        else:
            engine = (isal_zlib if fast else zlib).decompressobj(_RAW_DEFLATE)
        return _Inflater(file, engine, self.data_start, self.data_start + self.member.compress_size)

    def _n_rows(self, most_bytes: int, bytes_of_all_rows: int) -> int:
        return max(1, most_bytes * self.shape[1] // bytes_of_all_rows)

    def _shape_of(self, rows: slice) -> tuple[int, ...]:
        return (rows.stop - rows.start, *self.shape[2:])


def open_npz_array(path: Path, archive: zipfile.ZipFile, name: str) -> NpzArray:
    """Find an array in an .npz file.

    Args:
        path: The file.
        archive: The same, opened.
        name: Name of the array.

    Returns:
        Where it lies; nothing but its header is read.

    Raises:
        ValueError: If it doesn't hold numbers, is empty, or is compressed in another way than by deflate.
    """
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"the array must be compressed by deflate, got method {member.compress_type}")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read_header(stream)
        header_bytes = stream.tell()
    if dtype.kind not in "fiu":
        raise ValueError(f"the array must hold numbers, got {dtype}")
    if 0 in shape:
        raise ValueError(f"the array must not be empty, got shape {shape}")
    with path.open("rb") as file:
        file.seek(member.header_offset)
        local = file.read(_LOCAL_HEADER_BYTES)
    lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")  # of name and extra field
    data_start = member.header_offset + _LOCAL_HEADER_BYTES + lengths
    return NpzArray(path, shape, dtype, fortran_order, member, data_start, header_bytes)


class _Stored:
    """Stands in for a decompressor where nothing is compressed."""

    unconsumed_tail = b""

    def decompress(self, data: bytes, most: int) -> bytes:
        self.unconsumed_tail = data[most:]
        return data[:most]

    def copy(self) -> "_Stored":
        return _Stored()


class _Inflater:
    """Reads an entry of a zip file from some position on; a copy goes on from the same place by itself."""

    def __init__(self, file: IO[bytes], engine: Any, position: int, stop: int, waiting: bytes = b"") -> None:
        self._file, self._engine, self._position, self._stop = file, engine, position, stop
        self._waiting = waiting
        self._checksum = 0

    def copy(self, file: IO[bytes]) -> "_Inflater":
        """Return an inflater that reads the same bytes from here on."""
        return _Inflater(file, self._engine.copy(), self._position, self._stop, self._waiting)

    def read_into(self, buffer: memoryview) -> None:
        """Fill a buffer with the next bytes."""
        read = 0
        while read < len(buffer):
            piece = self._inflated(len(buffer) - read)
            if not piece:
                raise EOFError(f"the array is cut short, {len(buffer) - read} bytes are missing")
            buffer[read : read + len(piece)] = piece
            read += len(piece)

    def skip(self, n_bytes: int) -> None:
        """Read some bytes and forget them."""
        while n_bytes:
            piece = self._inflated(min(n_bytes, _BLOCK_BYTES))
            if not piece:
                raise EOFError(f"the array is cut short, {n_bytes} bytes are missing")
            n_bytes -= len(piece)

    def check_end(self, checksum: int) -> None:
        """Raise an error if there is more, or if what was read since the start is damaged."""
        if self._inflated(1):
            raise ValueError("the array is followed by more than its shape says")
        if self._checksum != checksum:
            raise ValueError("the checksum is wrong, the file is damaged")

    def _inflated(self, most: int) -> bytes:
        while True:
            data = self._waiting or self._next()
            piece = self._engine.decompress(data, most)
            self._waiting = self._engine.unconsumed_tail
            if piece or not data:
                self._checksum = isal_zlib.crc32(piece, self._checksum)
                return piece

    def _next(self) -> bytes:
        self._file.seek(self._position)  # copies share the file
        data = self._file.read(min(_PIECE_BYTES, self._stop - self._position))
        self._position += len(data)
        return data


def _numbers(inflater: _Inflater, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    values = np.empty(shape, dtype)
    inflater.read_into(values.reshape(-1).view(np.uint8).data)
    if dtype.kind == "f" and np.isnan(values.max()):  # nan is the maximum of whatever holds one
        raise ValueError("it holds nan")
    return values
