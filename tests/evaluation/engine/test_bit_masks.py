"""Bit masks hold what a comparison of the label map gives, for every type, width and part."""

import numpy as np
import pytest

from evaluation.engine.bit_masks import count_bits, fill_mask, mask_shape, remove_bits
from evaluation.engine.flat_maps import FlatMap
from evaluation.engine.label_index import LabelIndex, distinct_values


def box_mask(label_map, box, index, numbers):
    """Return a mask in memory that held something else before."""
    return fill_mask(np.full(mask_shape(box), 7, np.uint64), label_map, box, index, numbers)


def unpacked(mask):
    """Return a bit mask as booleans, filling and padding included."""
    return np.unpackbits(mask.view(np.uint8), axis=-1, bitorder="little").astype(bool)


@pytest.mark.parametrize("width", [1, 7, 61, 62, 63, 64, 65, 126, 127, 200])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
def test_mask_of_a_box_is_the_comparison_with_a_rim_of_zeros(width, dtype):
    rng = np.random.default_rng(width)
    label_map = np.repeat(rng.integers(0, 4, (5, 6, width)), 3, axis=2).astype(dtype)  # runs of three
    box = ((1, 4), (0, 5), (1, 3 * width - 1)) if width > 1 else ((1, 4), (0, 5), (0, 3))
    mask = unpacked(box_mask(FlatMap.of(label_map), box, LabelIndex((0, 2, 3)), [1, 2]))
    expected = np.isin(label_map[tuple(slice(*side) for side in box)], (2, 3))
    inside = tuple(slice(1, 1 + n) for n in expected.shape)
    assert (mask[inside] == expected).all()
    mask[inside] = False
    assert not mask.any()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint64])
def test_values_beyond_the_table_are_found(dtype):
    large = 60_000 if dtype == np.uint16 else 2_000_000_000
    label_map = np.array([[[0, 5, large, large, 7]]], dtype)
    flat = FlatMap.of(label_map)
    assert distinct_values(flat) == (0, 5, 7, large)
    mask = box_mask(flat, ((0, 1), (0, 1), (0, 5)), LabelIndex((0, 5, large)), [2])
    assert unpacked(mask)[1, 1, :7].tolist() == [False, False, False, True, True, False, False]


def test_many_large_values_are_all_found():
    values = np.arange(70_000, 90_000, dtype=np.int32).reshape(2, 100, 100)
    assert distinct_values(FlatMap.of(values)) == tuple(range(70_000, 90_000))


def test_bits_are_counted_and_removed():
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 2**63, (3, 4, 5)).astype(np.uint64) for _ in range(2))
    assert count_bits(one) == unpacked(one).sum()
    expected = unpacked(one) & ~unpacked(other)
    remove_bits(one, other)
    assert (unpacked(one) == expected).all()
