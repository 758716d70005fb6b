"""Counts and boxes equal those of NumPy and SciPy, for every type, width and memory order."""

import numpy as np
import pytest
from scipy import ndimage

from evaluation.engine.flat_maps import FlatMap
from evaluation.engine.label_counts import count_labels
from evaluation.engine.label_index import LabelIndex


def runs(rng, shape, dtype):
    """Return a label map of runs of one to twenty voxels, a third of them background."""
    lengths = rng.integers(1, 20, np.prod(shape))
    values = rng.choice([0, 0, 1, 2, 3, 4], lengths.size)
    return np.repeat(values, lengths)[: np.prod(shape)].reshape(shape).astype(dtype)


@pytest.mark.parametrize("shape", [(3, 5, 1), (4, 6, 7), (2, 9, 64), (3, 4, 131), (1, 1, 513)])
@pytest.mark.parametrize("dtypes", [(np.uint8, np.uint8), (np.int16, np.int16), (np.int32, np.uint8), (np.int64,) * 2])
@pytest.mark.parametrize("orders", ["CC", "CF", "FF"])
def test_counts_and_boxes_are_those_of_a_count_by_hand(shape, dtypes, orders):
    rng = np.random.default_rng(np.prod(shape))
    maps = [np.asarray(runs(rng, shape, dtype), order=order) for dtype, order in zip(dtypes, orders, strict=True)]
    counts = count_labels(FlatMap.of(maps[0]), FlatMap.of(maps[1]), LabelIndex((0, 1, 2, 3)))
    known = [np.where(label_map < 4, label_map, 4).astype(int) for label_map in maps]  # 4 has no number of its own
    expected = np.zeros((5, 5), int)
    np.add.at(expected, (known[0].ravel(), known[1].ravel()), 1)
    assert counts.matrix.tolist() == expected.tolist()
    assert counts.in_both.tolist() == expected.diagonal().tolist()
    assert counts.n_voxels == maps[0].size
    for label in (1, 2, 3):
        found = ndimage.find_objects(((maps[0] == label) | (maps[1] == label)).astype(int))
        box = tuple((side.start, side.stop) for side in found[0]) if found else None
        assert counts.joint_box((label,)) == box


def test_ignored_voxels_are_in_no_count_and_no_box():
    reference = np.array([[[0, 9, 9, 1]]], np.uint8)
    prediction = np.array([[[0, 2, 1, 1]]], np.uint8)
    counts = count_labels(FlatMap.of(reference), FlatMap.of(prediction), LabelIndex((0, 1, 2, 9)), ignored_value=9)
    assert counts.n_voxels == 2
    assert counts.joint_box((1,)) == ((0, 1), (0, 1), (3, 4))
    assert counts.joint_box((2,)) is None
