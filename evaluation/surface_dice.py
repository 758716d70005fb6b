"""Normalised surface distance (NSD, surface Dice) with area-weighted surfaces on the dual grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from .contour_table import contour_lengths_mm, surface_areas_mm2
from .surface import SurfaceDistances, point_distances

_TOLERANCE_SLACK = 1e-9
"""Relative slack, so that three voxels of 0.1 mm lie within 0.3 mm whatever the rounding."""


@dataclass(frozen=True)
class WeightedDistances:
    """Distances between the surface elements of two masks, with the size of each element.

    Attributes:
        distances: Distance of each element to the nearest element of the other surface, in mm.
        reference_areas: Size of each element of the reference's surface, shape (n,): mm^2, in 2D mm.
        prediction_areas: The same for the prediction, shape (m,).
    """

    distances: SurfaceDistances
    reference_areas: np.ndarray
    prediction_areas: np.ndarray


def cell_codes(mask: np.ndarray) -> np.ndarray:
    """Return which corners of each dual-grid cell a mask holds; beyond the image there is no mask.

    Args:
        mask: Boolean, shape (D, H, W) or (H, W).

    Returns:
        uint8 array, one longer than the mask in each axis; the bit of corner (z, y, x) is 4*z + 2*y + x, that of
        corner (y, x) is 2*y + x.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros(tuple(n + 1 for n in mask.shape), dtype=np.uint8)
    for bit, corner in enumerate(product((0, 1), repeat=mask.ndim)):
        window = tuple(slice(offset, offset + n) for offset, n in zip(corner, codes.shape, strict=True))
        codes |= padded[window] << bit
    return codes


def weighted_distances(reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]) -> WeightedDistances:
    """Return the distances between the dual-grid surfaces of two masks.

    Args:
        reference: Boolean, shape (D, H, W) or (H, W).
        prediction: Boolean, same shape.
        spacing_mm: Voxel size in mm in array axis order, each > 0.

    Returns:
        Distances and element sizes.

    Source:
        Nikolov et al. 2018, arXiv:1809.04430, section 3.2.
    """
    sizes = (contour_lengths_mm if reference.ndim == 2 else surface_areas_mm2)(spacing_mm)
    codes = [cell_codes(mask) for mask in (reference, prediction)]
    surfaces = [(code != 0) & (code != len(sizes) - 1) for code in codes]
    areas = [sizes[code[surface]] for code, surface in zip(codes, surfaces, strict=True)]
    return WeightedDistances(point_distances(surfaces[0], surfaces[1], spacing_mm), areas[0], areas[1])


def surface_dice(weighted: WeightedDistances, tolerance_mm: float) -> float:
    """Return the share of both surfaces that lies within a tolerance.

    Args:
        weighted: Surface elements of one label, as made by `weighted_distances`.
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
    total = weighted.reference_areas.sum() + weighted.prediction_areas.sum()
    if total == 0:
        return float("nan")
    accepted_mm = tolerance_mm * (1 + _TOLERANCE_SLACK)
    accepted = weighted.reference_areas[weighted.distances.from_reference_mm <= accepted_mm].sum()
    accepted += weighted.prediction_areas[weighted.distances.from_prediction_mm <= accepted_mm].sum()
    return float(accepted / total)
