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
    if not reference.any() and not prediction.any():
        return float("nan")
    shares = []
    for mask, other in ((prediction, reference), (reference, prediction)):
        skeleton = center_lines(mask)
        length = np.count_nonzero(skeleton)
        shares.append(np.count_nonzero(skeleton & other) / length if length else 0.0)
    precision, sensitivity = shares
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def center_lines(mask: np.ndarray) -> np.ndarray:
    """Return the skeleton of a mask, with a part in each of its connected components.

    scikit-image leaves nothing of a tube that is two or four voxels wide (its issue 3757). Such a component has the
    skeleton of itself and one more layer of voxels, or its innermost voxel.

    Args:
        mask: Boolean, shape (D, H, W) or (H, W).

    Returns:
        Boolean, same shape, within the mask.
    """
    from scipy import ndimage  # imported late because few runs need it

    skeleton = _skeleton(mask)
    components, n_components = ndimage.label(mask, np.ones((3,) * mask.ndim))
    kept = np.bincount(components[skeleton], minlength=n_components + 1)
    boxes = ndimage.find_objects(components)
    for number in range(1, n_components + 1):
        if not kept[number]:
            box = boxes[number - 1]
            skeleton[box] |= _line_of_even_width(components[box] == number)
    return skeleton


def _line_of_even_width(component: np.ndarray) -> np.ndarray:
    from scipy import ndimage  # as above

    grown = np.pad(component, [(0, 1)] * component.ndim)
    for axis in range(component.ndim):
        grown |= np.roll(grown, 1, axis)
    line = _skeleton(grown)[tuple(map(slice, component.shape))] & component
    if not line.any():
        depth = ndimage.distance_transform_edt(np.pad(component, 1))[(slice(1, -1),) * component.ndim]
        line[np.unravel_index(depth.argmax(), depth.shape)] = True
    return line


def _skeleton(mask: np.ndarray) -> np.ndarray:
    from skimage.morphology import skeletonize  # imported late because few scores need it

    return skeletonize(mask) > 0
