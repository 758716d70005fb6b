"""Volumes cut into slices, and averages over many of them."""

import math

import numpy as np
import pytest

from evaluation.aggregate import _means_of_finite, _means_of_numbers
from evaluation.slices import slices


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_slices_are_those_of_the_axis_however_the_volume_lies_in_memory(axis, order):
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 1000, (70, 5, 130)).astype(np.uint16).transpose(order)
    for turned in (volume, volume[::-1, :, ::-1]):
        cut = list(slices(turned, axis))
        assert len(cut) == turned.shape[axis]
        assert all(np.array_equal(piece, turned.take(index, axis)) for index, piece in enumerate(cut))


def test_slices_that_lie_in_one_piece_are_not_copied():
    volume = np.zeros((4, 5, 6))
    assert all(np.shares_memory(piece, volume) for piece in slices(volume, 0))


def test_means_of_rows_leave_out_what_is_no_number():
    inf, nan = math.inf, math.nan
    rows = np.array([[0.1, 0.2, 0.4], [0.1, nan, 0.3], [0.1, nan, inf], [nan, nan, inf], [nan, nan, nan]])
    assert _means_of_finite(rows).tolist() == pytest.approx([0.7 / 3, 0.2, 0.1, inf, nan], nan_ok=True)
    assert _means_of_numbers(rows).tolist() == pytest.approx([0.7 / 3, 0.2, inf, inf, nan], nan_ok=True)
    assert _means_of_finite(rows[:0]).shape == (0,)
    for row, mean in zip(rows, _means_of_finite(rows), strict=True):
        assert _means_of_finite(row[None]).tolist() == pytest.approx([mean], nan_ok=True)
