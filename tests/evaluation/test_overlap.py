"""Overlap metrics: one exact confusion matrix."""

import numpy as np
import pytest

from evaluation import score
from evaluation.overlap import OverlapCounts, confusion_matrix, overlap_counts


def test_confusion_matrix_counts_each_pair_of_values():
    reference = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
    prediction = np.array([[0, 1, 2], [2, 0, 1]], np.uint8)
    assert confusion_matrix(reference, prediction).tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]


@pytest.mark.parametrize("order", ["C", "F"])
def test_confusion_matrix_equals_a_count_by_hand_in_any_memory_order(order):
    rng = np.random.default_rng(0)
    reference, prediction = (np.asarray(rng.integers(0, 4, (9, 8, 7)), dtype=np.int16, order=order) for _ in range(2))
    matrix = confusion_matrix(reference, prediction)
    expected = [[int(((reference == r) & (prediction == p)).sum()) for p in range(4)] for r in range(4)]
    assert matrix.tolist() == expected
    assert matrix.dtype == np.int64


def test_overlap_metrics_follow_their_formulas():
    counts = OverlapCounts(true_positives=6, false_positives=2, false_negatives=4, true_negatives=88)
    assert counts.dice == pytest.approx(2 * 6 / (2 * 6 + 2 + 4))
    assert counts.iou == pytest.approx(6 / (6 + 2 + 4))
    assert counts.precision == pytest.approx(6 / 8)
    assert counts.sensitivity == pytest.approx(6 / 10)
    assert counts.specificity == pytest.approx(88 / 90)
    assert counts.volumetric_similarity == pytest.approx(1 - abs(4 - 2) / (2 * 6 + 2 + 4))
    assert counts.volumetric_overlap_error == pytest.approx(1 - 6 / 12)


def test_counts_above_2_to_the_24_are_exact():
    # float32 can't hold 2**24 + 1; one voxel more or less must still show.
    n = 2**24 + 1
    counts = overlap_counts(np.array([[5, 1], [0, n]], np.int64), [1])
    assert counts == OverlapCounts(true_positives=n, false_positives=1, false_negatives=0, true_negatives=5)
    assert counts.dice == 2 * n / (2 * n + 1) < 1


def test_confusion_matrix_of_a_volume_above_2_to_the_24_voxels_is_exact():
    reference = np.ones((2**24 + 3, 1), np.uint8)
    prediction = reference.copy()
    prediction[0] = 0
    assert confusion_matrix(reference, prediction).tolist() == [[0, 0], [1, 2**24 + 2]]


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
