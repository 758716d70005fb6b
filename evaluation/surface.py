"""Distances between two surfaces: Hausdorff and its percentiles, ASSD, MASD, and the normalised surface distance.

Surfaces come in two kinds. `voxel`: the border voxels of a mask, those that a 6-neighbour erosion (4-neighbour in 2D)
removes, voxels at the edge of the image among them; all count alike, and distances are between voxel centres. `dual`:
the nodes of the dual grid, which lie where 2x2x2 voxels (2x2 in 2D) meet that a mask holds some of; each counts with
the area (in 2D the length) of the surface around it. Distances are Euclidean and in mm.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .contour_table import contour_lengths_mm, surface_areas_mm2
from .engine.bit_masks import count_bits
from .engine.distances import distances_to
from .engine.scratch import Scratch
from .engine.surfaces import border, node_sizes, nodes

_TOLERANCE_SLACK = 1e-9
"""Relative slack, so that three voxels of 0.1 mm lie within 0.3 mm whatever the rounding."""

_SHARE_SLACK = 1e-12
"""Slack of a share of a surface, so that exactly half of it is half in whatever order its elements are added."""


@dataclass(frozen=True)
class DirectedDistances:
    """Distance of each element of one surface to the nearest element of the other.

    Attributes:
        apart_mm: Those of elements that the other surface doesn't share, shape (n,), >= 0.
        n_shared: Number of elements that it shares; their distance is 0.
        apart_sizes: Sizes of the elements of `apart_mm`, shape (n,): mm^2, in 2D mm; None if all are 1.
        shared_size: Size of the shared elements together.
    """

    apart_mm: np.ndarray
    n_shared: int
    apart_sizes: np.ndarray | None
    shared_size: float

    @property
    def is_empty(self) -> bool:
        """Return whether the surface has no element."""
        return not self.n_shared and not self.apart_mm.size

    @property
    def size(self) -> float:
        """Return the size of the surface."""
        apart = self.apart_mm.size if self.apart_sizes is None else self.apart_sizes.sum()
        return float(self.shared_size + apart)

    @property
    def total_mm(self) -> float:
        """Return the sum of the distances, each times the size of its element."""
        return float(self.apart_mm.sum() if self.apart_sizes is None else self.apart_mm @ self.apart_sizes)

    def size_within(self, limit_mm: float) -> float:
        """Return the size of the part of the surface that is at most so far away."""
        near = self.apart_mm <= limit_mm
        return float(self.shared_size + (near.sum() if self.apart_sizes is None else self.apart_sizes[near].sum()))

    def joined(self, other: "DirectedDistances") -> "DirectedDistances":
        """Return the distances of the elements of both surfaces."""
        sizes = None
        if self.apart_sizes is not None and other.apart_sizes is not None:
            sizes = np.concatenate([self.apart_sizes, other.apart_sizes])
        apart_mm = np.concatenate([self.apart_mm, other.apart_mm])
        return DirectedDistances(apart_mm, self.n_shared + other.n_shared, sizes, self.shared_size + other.shared_size)

    def percentile_mm(self, percentile: float) -> float:
        """Return a percentile of the distances of a surface that isn't empty.

        Args:
            percentile: In [0, 100].

        Returns:
            Linearly interpolated between elements that all count alike; else the smallest distance such that elements
            no farther away make up that share of the surface.
        """
        if not self.apart_mm.size:
            return 0.0
        if percentile == 100:
            return float(self.apart_mm.max())
        if self.apart_sizes is None:
            return self._interpolated_mm(percentile / 100 * (self.n_shared + self.apart_mm.size - 1))
        wanted = percentile / 100 - _SHARE_SLACK
        if self.n_shared and self.shared_size / self.size >= wanted:
            return 0.0
        order = np.argsort(self.apart_mm)
        shares = (self.shared_size + np.cumsum(self.apart_sizes[order])) / self.size
        position = min(int(np.searchsorted(shares, wanted)), len(order) - 1)
        return float(self.apart_mm[order[position]])

    def _interpolated_mm(self, rank: float) -> float:
        below = int(rank)
        ranks = [number - self.n_shared for number in (below, below + 1)]
        wanted = sorted({min(number, self.apart_mm.size - 1) for number in ranks if number >= 0})
        if not wanted:
            return 0.0
        ordered = np.partition(self.apart_mm, wanted)
        low, high = (ordered[min(number, self.apart_mm.size - 1)] if number >= 0 else 0.0 for number in ranks)
        return float(low + (high - low) * (rank - below))


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces, in both directions.

    Attributes:
        from_reference: Distances of the reference's surface to the prediction's.
        from_prediction: Distances of the prediction's surface to the reference's.
    """

    from_reference: DirectedDistances
    from_prediction: DirectedDistances

    @property
    def in_neither(self) -> bool:
        """Return whether neither map holds the label."""
        return self.from_reference.is_empty and self.from_prediction.is_empty

    @property
    def in_one_only(self) -> bool:
        """Return whether exactly one map holds the label."""
        return self.from_reference.is_empty != self.from_prediction.is_empty

    @property
    def both(self) -> tuple[DirectedDistances, DirectedDistances]:
        """Return both directions."""
        return self.from_reference, self.from_prediction


def voxel_distances(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    limit_mm: float = math.inf,
    scratch: Scratch | None = None,
) -> SurfaceDistances:
    """Return the distances between the border voxels of two masks.

    Args:
        reference: Bit mask as made by `engine.bit_masks`.
        prediction: Bit mask of the same shape.
        spacing_mm: Voxel size in mm in array axis order; two numbers for a 2D image.
        limit_mm: Distances above it are of no interest, and given as inf; sizes within it stay right.
        scratch: Memory to use again; None for fresh one.

    Returns:
        Exact distances.
    """
    flat = len(spacing_mm) == 2
    borders = _surfaces(border, (reference, prediction), flat, scratch)
    directed = _both_ways([_planes(surface, flat) for surface in borders], spacing_mm, limit_mm)
    return SurfaceDistances(*(DirectedDistances(apart_mm, shared, None, shared) for apart_mm, shared in directed))


def dual_distances(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    limit_mm: float = math.inf,
    scratch: Scratch | None = None,
) -> SurfaceDistances:
    """Return the distances between the dual-grid surfaces of two masks.

    Args:
        reference: Bit mask as made by `engine.bit_masks`.
        prediction: Bit mask of the same shape.
        spacing_mm: Voxel size in mm in array axis order; two numbers for a 2D image.
        limit_mm: Distances above it are of no interest, and given as inf; sizes within it stay right.
        scratch: Memory to use again; None for fresh one.

    Returns:
        Exact distances, with the sizes of the elements.

    Source:
        Nikolov et al. 2018, arXiv:1809.04430, section 3.2.
    """
    flat = len(spacing_mm) == 2
    sizes = (contour_lengths_mm if flat else surface_areas_mm2)(spacing_mm)
    masks = (reference, prediction)
    surfaces = _surfaces(nodes, masks, flat, scratch)
    directed = []
    apart = _both_ways([_planes(surface, flat) for surface in surfaces], spacing_mm, limit_mm)
    for mask, own, other, (apart_mm, n_shared) in zip(masks, surfaces, surfaces[::-1], apart, strict=True):
        apart_sizes = np.empty(apart_mm.size)
        shared_size = node_sizes(mask, own, other, flat, sizes, apart_sizes)
        directed.append(DirectedDistances(apart_mm, n_shared, apart_sizes, shared_size))
    return SurfaceDistances(*directed)


BOUNDARIES = {"voxel": voxel_distances, "dual": dual_distances}


def _surfaces(
    find: Callable[[np.ndarray, bool, np.ndarray], None],
    masks: Sequence[np.ndarray],
    flat: bool,
    scratch: Scratch | None,
) -> list[np.ndarray]:
    scratch = scratch or Scratch()
    surfaces = [scratch.array(f"surface {number}", mask.shape) for number, mask in enumerate(masks)]
    for mask, surface in zip(masks, surfaces, strict=True):
        find(mask, flat, surface)
    return surfaces


def _planes(surface: np.ndarray, flat: bool) -> np.ndarray:
    return surface[1:2] if flat else surface


def _both_ways(
    surfaces: Sequence[np.ndarray], spacing_mm: Sequence[float], limit_mm: float
) -> list[tuple[np.ndarray, int]]:
    """Return for each surface the distances of the elements that the other doesn't share, and how many it shares."""
    spacing = spacing_mm if len(spacing_mm) == 3 else (1.0, *spacing_mm)
    counts = [count_bits(surface) for surface in surfaces]
    if not all(counts):
        return [(np.full(count, np.inf), 0) for count in counts]
    apart = [distances_to(own, other, spacing, limit_mm) for own, other in (surfaces, surfaces[::-1])]
    return [(one_way, count - one_way.size) for one_way, count in zip(apart, counts, strict=True)]


def hausdorff_mm(distances: SurfaceDistances, percentile: float = 100.0, directions: str = "max") -> float:
    """Return a percentile of the surface distance.

    Args:
        distances: Distances of one label.
        percentile: 100 for the Hausdorff distance, 95 for HD95; in [0, 100].
        directions: `max`: the larger of the two directed percentiles; `union`: that of both directions together.

    Returns:
        Distance in mm; nan if the label is in neither map, inf if in one only.

    Raises:
        ValueError: If the percentile is outside [0, 100], or `directions` is something else.

    Source:
        Huttenlocher et al. 1993 (Hausdorff distance); Maier-Hein et al. 2024, Metrics Reloaded (percentile variant).
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile must be in [0, 100], got {percentile}")
    if directions not in DIRECTIONS:
        raise ValueError(f"directions must be one of {', '.join(DIRECTIONS)}, got {directions!r}")
    if distances.in_neither:
        return float("nan")
    if distances.in_one_only:
        return float("inf")
    if directions == "union":
        return distances.from_reference.joined(distances.from_prediction).percentile_mm(percentile)
    return max(one_way.percentile_mm(percentile) for one_way in distances.both)


DIRECTIONS = ("max", "union")


def assd_mm(distances: SurfaceDistances) -> float:
    """Return the average symmetric surface distance: the mean over the elements of both surfaces together.

    Args:
        distances: Distances of one label.

    Returns:
        Distance in mm; nan if the label is in neither map, inf if in one only.

    Source:
        Heimann et al. 2009, IEEE TMI 28(8), section on surface distance metrics.
    """
    if distances.in_neither:
        return float("nan")
    return sum(one_way.total_mm for one_way in distances.both) / sum(one_way.size for one_way in distances.both)


def masd_mm(distances: SurfaceDistances) -> float:
    """Return the mean average surface distance: the mean of the two directed means.

    Args:
        distances: Distances of one label.

    Returns:
        Distance in mm; nan if the label is in neither map, inf if in one only.

    Source:
        Maier-Hein et al. 2024, Metrics Reloaded, Nature Methods 21 (MASD).
    """
    if distances.in_neither:
        return float("nan")
    if distances.in_one_only:
        return float("inf")
    return sum(one_way.total_mm / one_way.size for one_way in distances.both) / 2


def accepted_mm(tolerance_mm: float) -> float:
    """Return the largest distance that a tolerance accepts, rounding allowed for."""
    return tolerance_mm * (1 + _TOLERANCE_SLACK)


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Return the share of both surfaces that lies within a tolerance.

    Args:
        distances: Distances of one label.
        tolerance_mm: Accepted deviation in mm, >= 0.

    Returns:
        Share in [0, 1]; nan if the label is in neither map, 0 if in one only.

    Raises:
        ValueError: If the tolerance is negative or not finite.

    Source:
        Nikolov et al. 2018, arXiv:1809.04430, section 3.2.
    """
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ValueError(f"tolerance_mm must be a number >= 0, got {tolerance_mm}")
    if distances.in_neither:
        return float("nan")
    within = sum(one_way.size_within(accepted_mm(tolerance_mm)) for one_way in distances.both)
    return within / sum(one_way.size for one_way in distances.both)
