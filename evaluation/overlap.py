"""Overlap metrics from one confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BLOCK_VOXELS = 1 << 21


@dataclass(frozen=True)
class OverlapCounts:
    """Voxels of one label, counted exactly; every overlap metric follows from them.

    A ratio whose denominator is zero is nan, and so is every metric of a label that is in neither map.

    Attributes:
        true_positives: Voxels that both maps give the label.
        false_positives: Voxels that only the prediction gives the label.
        false_negatives: Voxels that only the reference gives the label.
        true_negatives: Voxels that neither map gives the label.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def reference_voxels(self) -> int:
        """Return the number of voxels of the label in the reference."""
        return self.true_positives + self.false_negatives

    @property
    def prediction_voxels(self) -> int:
        """Return the number of voxels of the label in the prediction."""
        return self.true_positives + self.false_positives

    @property
    def in_neither(self) -> bool:
        """Return whether neither map holds the label."""
        return self.reference_voxels == 0 and self.prediction_voxels == 0

    @property
    def dice(self) -> float:
        """Return 2 TP / (2 TP + FP + FN): Dice 1945."""
        return _ratio(2 * self.true_positives, self.reference_voxels + self.prediction_voxels)

    @property
    def iou(self) -> float:
        """Return TP / (TP + FP + FN): the Jaccard index."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives + self.false_negatives)

    @property
    def precision(self) -> float:
        """Return TP / (TP + FP), nan if nothing was predicted."""
        return _ratio(self.true_positives, self.prediction_voxels)

    @property
    def sensitivity(self) -> float:
        """Return TP / (TP + FN), nan if there is nothing to find."""
        return _ratio(self.true_positives, self.reference_voxels)

    @property
    def specificity(self) -> float:
        """Return TN / (TN + FP), nan if the label fills the reference or is in neither map."""
        if self.in_neither:
            return float("nan")
        return _ratio(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def volumetric_similarity(self) -> float:
        """Return 1 - |FN - FP| / (2 TP + FP + FN): Taha and Hanbury 2015, table 1."""
        total = self.reference_voxels + self.prediction_voxels
        return _ratio(total - abs(self.false_negatives - self.false_positives), total)

    @property
    def volumetric_overlap_error(self) -> float:
        """Return 1 - IoU."""
        return 1.0 - self.iou


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")


def confusion_matrix(reference: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Count how often each pair of values meets in two label maps.

    Voxels that are 0 in both maps are counted without being looked up; the maps are read in blocks, so that the
    memory needed doesn't grow with them.

    Args:
        reference: Integers >= 0, shape (D, H, W) or (H, W), the largest about 1000.
        prediction: Integers >= 0 of the same shape.

    Returns:
        int64 array (K, K), K = largest value + 1; entry [r, p] counts voxels of value r in the reference and p in the
        prediction.
    """
    size = max(int(reference.max()), int(prediction.max())) + 1
    matrix = np.zeros(size * size, dtype=np.int64)
    rows = max(1, _BLOCK_VOXELS // max(1, reference[0].size))
    for start in range(0, reference.shape[0], rows):
        reference_block = reference[start : start + rows].ravel()
        prediction_block = prediction[start : start + rows].ravel()
        foreground = np.flatnonzero((reference_block != 0) | (prediction_block != 0))
        pairs = reference_block[foreground].astype(np.int64) * size + prediction_block[foreground]
        matrix += np.bincount(pairs, minlength=size * size)
    matrix[0] = reference.size - matrix[1:].sum()
    return matrix.reshape(size, size)


def overlap_counts(matrix: np.ndarray, values: Sequence[int]) -> OverlapCounts:
    """Read the counts of one label off a confusion matrix.

    Args:
        matrix: int64 array (K, K), reference by prediction, as made by `confusion_matrix`.
        values: Values of the label, each once; several form a region. Values beyond the matrix don't occur.

    Returns:
        The counts.
    """
    inside = [value for value in values if value < matrix.shape[0]]
    both = int(matrix[np.ix_(inside, inside)].sum())
    in_reference = int(matrix[inside].sum())
    in_prediction = int(matrix[:, inside].sum())
    return OverlapCounts(
        true_positives=both,
        false_positives=in_prediction - both,
        false_negatives=in_reference - both,
        true_negatives=int(matrix.sum()) - in_reference - in_prediction + both,
    )
