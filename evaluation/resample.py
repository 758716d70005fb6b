"""Bring a label map onto another grid, the nearest voxel's label each."""

import numpy as np

from .errors import CaseError
from .readers import LabelImage


def resampled_onto(prediction: LabelImage, reference: LabelImage) -> LabelImage:
    """Return a label map on the grid of another.

    Args:
        prediction: The label map.
        reference: Image whose grid is wanted.

    Returns:
        For each voxel of the grid the label at its centre, 0 beyond the prediction's image.

    Raises:
        CaseError: If a file doesn't say where it lies, or one has a dimension more than the other; names both.
    """
    from scipy import ndimage  # imported late because few runs need it

    own, wanted = prediction.geometry, reference.geometry
    if len(own.shape) != len(wanted.shape) or not own.affines or not wanted.affines:
        raise CaseError(
            f"{prediction.path} and {reference.path}: --resample needs two files of the same dimension that say where "
            f"they lie (origin and direction), got shapes {own.shape} and {wanted.shape}; convert them to NIfTI"
        )
    ndim = len(wanted.shape)
    place = np.linalg.inv(own.affines[0]) @ wanted.affines[0]
    label_map = ndimage.affine_transform(
        prediction.array,
        place[:ndim, :ndim],
        place[:ndim, ndim],
        output_shape=wanted.shape,
        order=0,
        mode="grid-constant",  # the image ends at the outer faces of its voxels, not at their centres
    )
    return LabelImage(label_map, wanted, prediction.path)
