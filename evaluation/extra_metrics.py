"""Metrics that are computed when asked for: near the border, along centre lines, lesion by lesion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .boundary_iou import boundary_iou
from .centerline_dice import centerline_dice
from .lesions import score_lesions

LESION_METRICS = ("lesion_tp", "lesion_fp", "lesion_fn", "lesion_f1", "pq", "sq", "rq")


@dataclass(frozen=True)
class ExtraMetrics:
    """A group of metrics.

    Attributes:
        names: Their names in metrics.csv, for a width of the band along the border in mm.
        values: Their values, for two boolean masks, the voxel size and that width.
    """

    names: Callable[[float], tuple[str, ...]]
    values: Callable[[np.ndarray, np.ndarray, Sequence[float], float], tuple[float, ...]]


def _lesion_values(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], width_mm: float
) -> tuple[float, ...]:
    del spacing_mm, width_mm
    scores = score_lesions(reference, prediction)
    counts = (scores.true_positives, scores.false_positives, scores.false_negatives)
    return (
        *(float(count) for count in counts),
        scores.f1,
        scores.panoptic_quality,
        scores.segmentation_quality,
        scores.recognition_quality,
    )


EXTRA_METRICS = {
    "boundary_iou": ExtraMetrics(
        lambda width_mm: (f"boundary_iou_{width_mm:.12g}mm",),
        lambda reference, prediction, spacing_mm, width_mm: (
            boundary_iou(reference, prediction, spacing_mm, width_mm),
        ),
    ),
    "cldice": ExtraMetrics(
        lambda width_mm: ("cldice",),
        lambda reference, prediction, spacing_mm, width_mm: (centerline_dice(reference, prediction),),
    ),
    "lesions": ExtraMetrics(lambda width_mm: LESION_METRICS, _lesion_values),
}
"""Groups of metrics by the name that asks for them."""
