"""Overlap metrics from counts of voxels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .engine.label_counts import MOST_LABELS_IN_MATRIX, LabelCounts


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

    @property
    def relative_volume_difference(self) -> float:
        """Return (FP - FN) / (TP + FN): how much too large the prediction is; nan if there is nothing to find."""
        return _ratio(self.false_positives - self.false_negatives, self.reference_voxels)


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")


def overlap_counts(counts: LabelCounts, numbers: Sequence[int]) -> OverlapCounts:
    """Read the counts of one label off those of all.

    Args:
        counts: Counts of all labels.
        numbers: Numbers of the label, each once; several form a region.

    Returns:
        The counts.

    Raises:
        ValueError: If it is a region, and there are too many labels to count how often each pair meets.
    """
    inside = list(numbers)
    in_reference = int(counts.in_reference[inside].sum())
    in_prediction = int(counts.in_prediction[inside].sum())
    if len(inside) <= 1:
        both = int(counts.in_both[inside].sum())
    elif counts.matrix is not None:
        both = int(counts.matrix[np.ix_(inside, inside)].sum())
    else:
        raise ValueError(
            f"regions need at most {MOST_LABELS_IN_MATRIX - 2} label values, got more; score them in parts"
        )
    return OverlapCounts(
        true_positives=both,
        false_positives=in_prediction - both,
        false_negatives=in_reference - both,
        true_negatives=counts.n_voxels - in_reference - in_prediction + both,
    )
