"""The two label maps of a case: read, and checked to lie on one grid."""

from dataclasses import dataclass

from .case_task import CaseTask
from .common_grid import on_common_grid
from .errors import CaseError
from .geometry import check_same_geometry
from .probabilities import read_npz
from .readers import LabelImage, read_label_image
from .resample import resampled_onto


@dataclass(frozen=True)
class CaseImages:
    """The two label maps of a case, on one grid.

    Attributes:
        reference: The reference.
        prediction: The prediction.
        source: What was read of it: `labels`, `probabilities` or `logits`.
        warnings: How it came onto the reference's grid, if it wasn't there.
    """

    reference: LabelImage
    prediction: LabelImage
    source: str
    warnings: tuple[str, ...]


def read_case(task: CaseTask) -> CaseImages:
    """Read the two files of a case.

    Args:
        task: The case.

    Returns:
        Its label maps.

    Raises:
        CaseError: If one can't be read or they don't fit; names the file.
    """
    reference = read_label_image(task.reference.label_file())
    prediction, source = _read_prediction(task)
    reference, prediction = _of_equal_dimension(reference, prediction)
    reference, prediction = on_common_grid(reference, prediction)
    prediction, resampled = _on_same_grid(prediction, reference, task.resample)
    return CaseImages(reference, prediction, source, resampled)


def _read_prediction(task: CaseTask) -> tuple[LabelImage, str]:
    path = task.prediction.chosen(task.source)
    if path == task.prediction.npz:
        array_name = None if task.source == "auto" else task.source
        array, geometry, source = read_npz(path, array_name, task.dataset)
        return LabelImage(array, geometry, path), source
    return read_label_image(path), "labels"


def _of_equal_dimension(reference: LabelImage, prediction: LabelImage) -> tuple[LabelImage, LabelImage]:
    """Drop the first axis of a one-slice volume whose counterpart is a 2D image."""
    if reference.array.ndim == 2 and prediction.array.ndim == 3 and prediction.array.shape[0] == 1:
        return reference, prediction.without_first_axis()
    if prediction.array.ndim == 2 and reference.array.ndim == 3 and reference.array.shape[0] == 1:
        return reference.without_first_axis(), prediction
    return reference, prediction


def _on_same_grid(prediction: LabelImage, reference: LabelImage, resample: bool) -> tuple[LabelImage, tuple[str, ...]]:
    """Return the prediction on the reference's grid, and what a reader should know about how it came there."""
    try:
        check_same_geometry(prediction.geometry, reference.geometry, prediction.path, reference.path)
    except CaseError:
        if not resample or reference.frames_only:  # the grid of a reference that leaves out slices may be too short
            raise
        shape = prediction.geometry.shape
        return resampled_onto(prediction, reference), (
            f"{prediction.path}: brought from its grid of {shape} voxels onto that of {reference.path}",
        )
    return prediction, ()
