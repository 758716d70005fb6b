"""Which metrics are computed, and how each that has a choice is defined."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .extra_metrics import EXTRA_METRICS
from .probability_scores import CALIBRATION_METRICS
from .surface import BOUNDARIES, DIRECTIONS

DEFAULT_TOLERANCE_MM = 2.0
OVERLAP_METRICS = ("dice", "iou", "precision", "sensitivity", "specificity", "vs", "voe")
CALIBRATION = "calibration"
"""Asks for the metrics of probabilities, which stand behind all others."""

ALSO = (*EXTRA_METRICS, CALIBRATION)
VOLUME_METRICS = ("rvd", "reference_ml", "prediction_ml")


@dataclass(frozen=True)
class MetricOptions:
    """Definitions of the metrics that have a choice.

    Attributes:
        hd_percentiles: Percentiles of the surface distance beside its maximum, each in (0, 100).
        hd_directions: `max`: the larger of the two directed percentiles; `union`: that of both directions together.
        boundary: Surface of the Hausdorff and mean distances: `voxel` or `dual`.
        nsd_boundary: Surface of the normalised surface distance.
        also: Groups of further metrics: `boundary_iou`, `cldice`, `lesions`; for files also `calibration`.
        boundary_width_mm: Width of the band along the border in which boundary IoU looks, >= 0.
    """

    hd_percentiles: tuple[float, ...] = (95.0,)
    hd_directions: str = "max"
    boundary: str = "voxel"
    nsd_boundary: str = "dual"
    also: tuple[str, ...] = ()
    boundary_width_mm: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hd_percentiles", tuple(dict.fromkeys(float(p) for p in self.hd_percentiles)))
        for percentile in self.hd_percentiles:
            if not 0 < percentile < 100:
                raise ValueError(
                    f"hd_percentiles must be > 0 and < 100, got {percentile:g}; the maximum is always there as hd_mm"
                )
        for name, value, known in (
            ("hd_directions", self.hd_directions, DIRECTIONS),
            ("boundary", self.boundary, BOUNDARIES),
            ("nsd_boundary", self.nsd_boundary, BOUNDARIES),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        object.__setattr__(self, "also", tuple(dict.fromkeys(self.also)))
        unknown = [name for name in self.also if name not in ALSO]
        if unknown:
            raise ValueError(f"also must name some of {', '.join(ALSO)}, got {unknown[0]!r}")
        object.__setattr__(self, "boundary_width_mm", float(self.boundary_width_mm))
        if not (np.isfinite(self.boundary_width_mm) and self.boundary_width_mm >= 0):
            raise ValueError(
                f"boundary_width_mm must be a number >= 0, got {self.boundary_width_mm:g}; usual values are 1 to 5"
            )

    def names(self, tolerances_mm: Sequence[float]) -> tuple[str, ...]:
        """Return the names of all metrics in the order of metrics.csv.

        Args:
            tolerances_mm: Tolerances of the normalised surface distance.

        Returns:
            The names.
        """
        distances = ("hd_mm", *map(hd_name, self.hd_percentiles), "assd_mm", "masd_mm")
        of_masks = (EXTRA_METRICS[group] for group in self.also if group in EXTRA_METRICS)
        extra = (name for group in of_masks for name in group.names(self.boundary_width_mm))
        calibration = CALIBRATION_METRICS if self.wants_calibration else ()
        return (*OVERLAP_METRICS, *distances, *map(nsd_name, tolerances_mm), *VOLUME_METRICS, *extra, *calibration)

    @property
    def wants_calibration(self) -> bool:
        """Return whether probabilities are scored too."""
        return CALIBRATION in self.also

    @property
    def of_masks(self) -> "MetricOptions":
        """Return the same without what needs probabilities."""
        return replace(self, also=tuple(group for group in self.also if group != CALIBRATION))


def hd_name(percentile: float) -> str:
    """Return the name of a percentile of the surface distance, for example `hd95_mm`."""
    return f"hd{percentile:.12g}_mm"


def nsd_name(tolerance_mm: float) -> str:
    """Return the name of the normalised surface distance at a tolerance.

    Args:
        tolerance_mm: Tolerance in mm, >= 0.

    Returns:
        The name, for example `nsd_2mm` or `nsd_1.5mm`.
    """
    return f"nsd_{tolerance_mm:.12g}mm"


def checked_tolerance(tolerance_mm: float) -> float:
    """Return a tolerance as a number, if it is one that makes sense.

    Args:
        tolerance_mm: Tolerance of the normalised surface distance in mm.

    Returns:
        The tolerance.

    Raises:
        ValueError: If it isn't a finite number >= 0.
    """
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ValueError(f"nsd_tolerance_mm must be a number >= 0, got {tolerance_mm}; usual values are 1 to 5")
    return float(tolerance_mm)
