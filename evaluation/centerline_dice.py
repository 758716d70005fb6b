"""clDice: how well the centre lines of two masks lie in the other, for vessels and other tubes."""

import numpy as np


def centerline_dice(reference: np.ndarray, prediction: np.ndarray) -> float:
    """Return the harmonic mean of the shares of each mask's skeleton that lie in the other mask.

    Args:
        reference: Boolean, shape (D, H, W) or (H, W).
        prediction: Boolean, same shape.

    Returns:
        In [0, 1]; nan if both masks are empty, 0 if one is.

    Source:
        Shit et al. 2021, arXiv:2003.07311; skeletons by scikit-image (Zhang 1984 in 2D, Lee 1994 in 3D).
    """
    from skimage.morphology import skeletonize  # imported late because few scores need it

    if not reference.any() and not prediction.any():
        return float("nan")
    shares = []
    for mask, other in ((prediction, reference), (reference, prediction)):
        skeleton = skeletonize(mask) > 0
        length = np.count_nonzero(skeleton)
        shares.append(np.count_nonzero(skeleton & other) / length if length else 0.0)
    precision, sensitivity = shares
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0
