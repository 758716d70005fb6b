"""Scores of single lesions: connected components found, missed and invented, and panoptic quality."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LesionScores:
    """How the connected components of two masks correspond.

    Attributes:
        true_positives: Reference components that the prediction touches.
        false_positives: Predicted components that touch no reference component.
        false_negatives: Reference components that the prediction doesn't touch.
        matched_iou: IoU of each pair of components that overlap by more than half of their union; each component has
            at most one such partner.
        n_reference: Components of the reference.
        n_prediction: Components of the prediction.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    matched_iou: tuple[float, ...]
    n_reference: int
    n_prediction: int

    @property
    def f1(self) -> float:
        """Return 2 TP / (2 TP + FP + FN), nan without any component."""
        return _ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)

    @property
    def recognition_quality(self) -> float:
        """Return the F1 of components matched by an IoU above 0.5, nan without any component."""
        return _ratio(2 * len(self.matched_iou), self.n_reference + self.n_prediction)

    @property
    def segmentation_quality(self) -> float:
        """Return the mean IoU of matched components, nan if there are none."""
        return _ratio(sum(self.matched_iou), len(self.matched_iou))

    @property
    def panoptic_quality(self) -> float:
        """Return recognition times segmentation quality, 0 if nothing matches, nan without any component."""
        return _ratio(2 * sum(self.matched_iou), self.n_reference + self.n_prediction)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")


def score_lesions(reference: np.ndarray, prediction: np.ndarray) -> LesionScores:
    """Compare the connected components of two masks; neighbours touch by faces, edges or corners.

    Args:
        reference: Boolean, shape (D, H, W) or (H, W).
        prediction: Boolean, same shape.

    Returns:
        The scores.

    Source:
        Hernandez Petzsche et al. 2022, Scientific Data 9:762 (lesion-wise F1 of ISLES 2022); Kirillov et al. 2019,
        arXiv:1801.00868 (panoptic quality).
    """
    from scipy import ndimage  # imported late because few runs need it

    neighbours = np.ones((3,) * reference.ndim)
    (found, n_reference), (predicted, n_prediction) = (
        ndimage.label(mask, neighbours) for mask in (reference, prediction)
    )
    both = reference & prediction
    pairs, overlaps = np.unique(np.stack([found[both], predicted[both]]), axis=1, return_counts=True)
    sizes = [np.bincount(components.ravel()) for components in (found, predicted)]
    iou = overlaps / (sizes[0][pairs[0]] + sizes[1][pairs[1]] - overlaps)
    n_found = len(np.unique(pairs[0]))
    return LesionScores(
        true_positives=n_found,
        false_positives=n_prediction - len(np.unique(pairs[1])),
        false_negatives=n_reference - n_found,
        matched_iou=tuple(iou[iou > 0.5].tolist()),
        n_reference=n_reference,
        n_prediction=n_prediction,
    )
