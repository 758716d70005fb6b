"""Distances between two surfaces: Hausdorff and its percentiles, ASSD, MASD.

A surface is the set of border voxels of a mask: those that a 6-neighbour erosion (4-neighbour in 2D) removes. Voxels at
the edge of the image are border voxels. Distances are Euclidean, in mm, between voxel centres.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance of each point of one surface to the nearest point of the other, in both directions.

    Attributes:
        from_reference_mm: For each point of the reference's surface, shape (n,), >= 0; inf if the prediction has none.
        from_prediction_mm: For each point of the prediction's surface, shape (m,), >= 0; inf if the reference has none.
    """

    from_reference_mm: np.ndarray
    from_prediction_mm: np.ndarray

    @property
    def in_neither(self) -> bool:
        """Return whether neither map holds the label."""
        return not self.from_reference_mm.size and not self.from_prediction_mm.size

    @property
    def in_one_only(self) -> bool:
        """Return whether exactly one map holds the label."""
        return bool(self.from_reference_mm.size) != bool(self.from_prediction_mm.size)


def border_voxels(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of a mask that have a face neighbour outside it, or outside the image.

    Args:
        mask: Boolean, shape (D, H, W) or (H, W).

    Returns:
        Boolean mask of the same shape.
    """
    padded = np.pad(mask, 1)
    inside = (slice(1, -1),) * mask.ndim
    surrounded = mask.copy()
    for axis in range(mask.ndim):
        for shift in (slice(None, -2), slice(2, None)):
            surrounded &= padded[(*inside[:axis], shift, *inside[axis + 1 :])]
    return mask & ~surrounded


def point_distances(reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]) -> SurfaceDistances:
    """Return the distances between two sets of grid points.

    Args:
        reference: Boolean, shape (D, H, W) or (H, W), true at the points of the reference.
        prediction: Boolean, same shape, true at the points of the prediction.
        spacing_mm: Grid spacing in mm in array axis order, each > 0.

    Returns:
        Exact distances, points in array order.
    """
    points = [np.argwhere(mask) * np.asarray(spacing_mm, dtype=np.float64) for mask in (reference, prediction)]
    if not len(points[0]) or not len(points[1]):
        return SurfaceDistances(*(np.full(len(own), np.inf) for own in points))
    shared = reference & prediction
    directed = []
    for own, mask, other in ((points[0], reference, points[1]), (points[1], prediction, points[0])):
        distances = np.zeros(len(own))
        apart = ~shared[mask]
        if apart.any():
            # Points on a grid have many equal coordinates: the balanced tree sorts them at length for nothing.
            tree = cKDTree(other, balanced_tree=False, compact_nodes=False)
            distances[apart] = tree.query(own[apart])[0]
        directed.append(distances)
    return SurfaceDistances(*directed)


def surface_distances(reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]) -> SurfaceDistances:
    """Return the distances between the border voxels of two masks.

    Args:
        reference: Boolean, shape (D, H, W) or (H, W).
        prediction: Boolean, same shape.
        spacing_mm: Voxel size in mm in array axis order, each > 0.

    Returns:
        Exact distances.
    """
    return point_distances(border_voxels(reference), border_voxels(prediction), spacing_mm)


def hausdorff_mm(distances: SurfaceDistances, percentile: float = 100.0) -> float:
    """Return the larger of the two directed percentiles of the surface distance.

    Args:
        distances: Border distances of one label, as made by `surface_distances`.
        percentile: 100 for the Hausdorff distance, 95 for HD95; in [0, 100], linearly interpolated.

    Returns:
        Distance in mm; nan if the label is in neither map, inf if in one only.

    Raises:
        ValueError: If the percentile is outside [0, 100].

    Source:
        Huttenlocher et al. 1993 (Hausdorff distance); Maier-Hein et al. 2024, Metrics Reloaded (percentile variant).
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile must be in [0, 100], got {percentile}")
    if distances.in_neither:
        return float("nan")
    if distances.in_one_only:
        return float("inf")
    directed = (distances.from_reference_mm, distances.from_prediction_mm)
    return max(float(np.percentile(one_way, percentile)) for one_way in directed)


def assd_mm(distances: SurfaceDistances) -> float:
    """Return the average symmetric surface distance: the mean over the points of both surfaces together.

    Args:
        distances: Border distances of one label, as made by `surface_distances`.

    Returns:
        Distance in mm; nan if the label is in neither map, inf if in one only.

    Source:
        Heimann et al. 2009, IEEE TMI 28(8), section on surface distance metrics.
    """
    if distances.in_neither:
        return float("nan")
    n_points = distances.from_reference_mm.size + distances.from_prediction_mm.size
    return float((distances.from_reference_mm.sum() + distances.from_prediction_mm.sum()) / n_points)


def masd_mm(distances: SurfaceDistances) -> float:
    """Return the mean average surface distance: the mean of the two directed means.

    Args:
        distances: Border distances of one label, as made by `surface_distances`.

    Returns:
        Distance in mm; nan if the label is in neither map, inf if in one only.

    Source:
        Maier-Hein et al. 2024, Metrics Reloaded, Nature Methods 21 (MASD).
    """
    if distances.in_neither:
        return float("nan")
    if distances.in_one_only:
        return float("inf")
    return float((distances.from_reference_mm.mean() + distances.from_prediction_mm.mean()) / 2)
