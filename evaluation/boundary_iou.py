"""Boundary IoU: the overlap of two masks near their borders only."""

from collections.abc import Sequence

import numpy as np


def boundary_iou(reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], width_mm: float) -> float:
    """Return the IoU of the bands that two masks have along their borders.

    A mask's band is made of its voxels that are at most `width_mm` from one of its border voxels, between centres;
    border voxels have a face neighbour outside the mask, and the image's edge is outside.

    Args:
        reference: Boolean, shape (D, H, W) or (H, W).
        prediction: Boolean, same shape.
        spacing_mm: Voxel size in mm in array axis order, each > 0.
        width_mm: Width of the bands, >= 0.

    Returns:
        In [0, 1]; nan if both masks are empty, 0 if one is.

    Source:
        Cheng et al. 2021, arXiv:2103.16562 (there the width is a share of the image's diagonal, in pixels).
    """
    bands = [_band(mask, spacing_mm, width_mm) for mask in (reference, prediction)]
    union = np.count_nonzero(bands[0] | bands[1])
    return np.count_nonzero(bands[0] & bands[1]) / union if union else float("nan")


def _band(mask: np.ndarray, spacing_mm: Sequence[float], width_mm: float) -> np.ndarray:
    from scipy import ndimage  # imported late because few runs need it

    if not mask.any():
        return mask
    border = mask & ~ndimage.binary_erosion(mask)
    return mask & (ndimage.distance_transform_edt(~border, sampling=spacing_mm) <= width_mm * (1 + 1e-9))
