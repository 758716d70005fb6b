"""Surfaces and distances equal those that erosion, windows of 2x2x2 voxels and a distance transform give."""

from itertools import product

import numpy as np
import pytest
from numba import njit
from scipy import ndimage

from evaluation.engine import distances
from evaluation.engine.distances import distances_to
from evaluation.engine.surfaces import border, corner_words, node_code, nodes

SHAPES = [(9, 10, 11), (1, 7, 70), (5, 1, 129), (12, 3, 62), (40, 66)]


@njit
def _code(mask, flat, plane, line, column):
    corners = np.empty(4 if flat else 8, dtype=np.uint64)
    corner_words(mask, flat, plane, line, column >> 6, corners)
    return node_code(corners, np.uint64(column & 63))


def unpacked(mask, shape):
    """Return the first voxels of a bit mask as booleans, its rim included."""
    booleans = np.unpackbits(mask.view(np.uint8), axis=-1, bitorder="little").astype(bool)
    return booleans[tuple(slice(0, n + 2) for n in (1, *shape)[-3:])]


def found_by(find, mask, flat):
    """Return a surface in memory that held something else before."""
    result = np.full_like(mask, 7)
    find(mask, flat, result)
    return result


def padded(mask):
    return np.pad(mask if mask.ndim == 3 else mask[None], 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_border_is_the_mask_minus_its_erosion(bits, shape):
    mask = np.random.default_rng(1).random(shape) < 0.8
    expected = mask & ~ndimage.binary_erosion(mask)  # what lies outside the image is not in the mask
    assert (unpacked(found_by(border, bits(mask), mask.ndim == 2), shape) == padded(expected)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_nodes_are_where_the_voxels_around_differ_and_codes_tell_which_are_set(bits, shape):
    mask = np.random.default_rng(2).random(shape) < 0.3
    flat = mask.ndim == 2
    around = np.pad(mask, 1)
    corners = list(product((0, 1), repeat=mask.ndim))
    windows = [around[tuple(slice(o, o + n + 1) for o, n in zip(c, shape, strict=True))] for c in corners]
    codes = sum(window.astype(int) << bit for bit, window in enumerate(windows))
    expected = (codes > 0) & (codes < 2 ** len(corners) - 1)
    packed = bits(mask)
    found = unpacked(found_by(nodes, packed, flat), shape)
    if flat:
        codes, expected, first = codes[None], expected[None], 1
    else:
        first = 0
    place = tuple(slice(first if axis == 0 else 0, None) for axis in range(3))
    cut = found[place][tuple(slice(0, n) for n in expected.shape)]
    assert (cut == expected).all()
    assert found.sum() == expected.sum()
    for plane, line, column in np.argwhere(expected)[::7]:
        assert codes[plane, line, column] == _code(packed, flat, plane + first, line, column)


@pytest.mark.parametrize("shape", [(20, 30, 70), (3, 50, 130)])
@pytest.mark.parametrize("density", [0.3, 0.01, 0.0005])
@pytest.mark.parametrize("most_rows", [1024, 12])
def test_distances_are_those_of_the_distance_transform(bits, monkeypatch, shape, density, most_rows):
    monkeypatch.setattr(distances, "MOST_ROWS", most_rows)
    distances._row_order.cache_clear()
    rng = np.random.default_rng(int(density * 1e4))
    own, other = (rng.random(shape) < density for _ in range(2))
    other[0, 0, 0] = own[-1, -1, -1] = True
    spacing = (2.5, 0.8, 1.1)
    expected = ndimage.distance_transform_edt(~other, sampling=spacing)[own & ~other]
    assert distances_to(bits(own), bits(other), spacing) == pytest.approx(expected)
    distances._row_order.cache_clear()


@pytest.mark.parametrize("limit_mm", [0.8, 3.0, 500.0])
def test_distances_above_a_limit_are_inf_and_the_others_exact(bits, limit_mm):
    rng = np.random.default_rng(3)
    own, other = (rng.random((20, 30, 70)) < 0.01 for _ in range(2))
    spacing = (2.5, 0.8, 1.1)
    expected = ndimage.distance_transform_edt(~other, sampling=spacing)[own & ~other]
    expected[expected > limit_mm] = np.inf
    assert distances_to(bits(own), bits(other), spacing, limit_mm) == pytest.approx(expected)


def test_distances_of_far_objects_are_exact(bits):
    own, other = np.zeros((2, 60, 200, 200), bool)
    own[:20, :60, :60] = True
    other[50:, 180:, 180:] = True
    spacing = (1.0, 0.5, 0.5)
    expected = ndimage.distance_transform_edt(~other, sampling=spacing)[own]
    assert distances_to(bits(own), bits(other), spacing) == pytest.approx(expected)
