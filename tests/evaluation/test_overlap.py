"""Overlap metrics: one exact confusion matrix."""

import numpy as np
import pytest

from evaluation import score
from evaluation.engine.flat_maps import FlatMap
from evaluation.engine.label_counts import count_labels
from evaluation.engine.label_index import LabelIndex
from evaluation.overlap import OverlapCounts, overlap_counts


def test_overlap_metrics_follow_their_formulas():
    counts = OverlapCounts(true_positives=6, false_positives=2, false_negatives=4, true_negatives=88)
    assert counts.dice == pytest.approx(2 * 6 / (2 * 6 + 2 + 4))
    assert counts.iou == pytest.approx(6 / (6 + 2 + 4))
    assert counts.precision == pytest.approx(6 / 8)
    assert counts.sensitivity == pytest.approx(6 / 10)
    assert counts.specificity == pytest.approx(88 / 90)
    assert counts.volumetric_similarity == pytest.approx(1 - abs(4 - 2) / (2 * 6 + 2 + 4))
    assert counts.relative_volume_difference == pytest.approx((2 - 4) / 10)
    assert counts.volumetric_overlap_error == pytest.approx(1 - 6 / 12)


def test_counts_of_a_volume_above_2_to_the_24_voxels_are_exact():
    # float32 can't hold 2**24 + 1; one voxel more or less must still show.
    reference = np.ones((2**24 + 3, 1), np.uint8)
    prediction = reference.copy()
    prediction[0] = 0
    counts = count_labels(FlatMap.of(reference), FlatMap.of(prediction), LabelIndex((0, 1)))
    assert overlap_counts(counts, [1]) == OverlapCounts(2**24 + 2, 0, 1, 0)
    assert overlap_counts(counts, [1]).dice == 2 * (2**24 + 2) / (2 * (2**24 + 2) + 1) < 1


def test_specificity_counts_the_whole_image():
    reference, prediction = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    reference[0, 0] = prediction[0, :2] = True
    assert score(reference, prediction, (1, 1)).specificity == pytest.approx(98 / 99)


def test_region_is_the_union_of_its_values():
    reference, prediction = np.array([[1, 2, 3, 0]]), np.array([[2, 1, 0, 0]])
    scores = score(reference, prediction, (1, 1), labels=[1, (1, 2), (1, 2, 3)])
    assert scores[1].dice == 0
    assert scores[1, 2].dice == 1
    assert scores[1, 2, 3].dice == pytest.approx(2 * 2 / (3 + 2))


def test_dice_of_each_label_matches_monai():
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_dice

    rng = np.random.default_rng(1)
    reference, prediction = rng.integers(0, 4, (2, 12, 13, 14))
    one_hot = [torch.stack([torch.tensor(m == k) for k in range(4)])[None].float() for m in (prediction, reference)]
    expected = compute_dice(one_hot[0], one_hot[1], include_background=False)[0].tolist()
    scores = score(reference, prediction, (1, 1, 1))
    assert [scores[k].dice for k in (1, 2, 3)] == pytest.approx(expected, abs=1e-6)
