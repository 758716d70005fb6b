"""Score one case: read its two files, check that they fit, score the image or each of its slices."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .case_probabilities import labels_with_channel, open_for_case, score_file
from .common_grid import on_common_grid
from .dataset_labels import DatasetLabels, Label
from .errors import CaseError
from .geometry import check_same_geometry
from .label_map import foreground_values
from .label_score import LabelKey, Scores, label_key
from .metric_choice import MetricChoice
from .pairs import CaseFiles
from .probabilities import read_npz
from .probability_scores import CALIBRATION_METRICS, ProbabilityScores
from .readers import LabelImage, read_label_image
from .resample import resampled_onto
from .scoring import score
from .slices import slices


@dataclass(frozen=True)
class CaseTask:
    """What a worker has to know to score a case.

    Attributes:
        case: Its name.
        prediction: Files of the prediction.
        reference: File of the reference.
        source: Which of the prediction's files to use, one of `pairs.SOURCES`.
        labels: Labels to score; None for all non-zero values of the two files.
        include_background: Whether label 0 is scored where `labels` is None.
        dataset: Labels of dataset.json, None if there is none.
        metrics: Metrics of each label.
        axis: Array axis to cut slices along; None to score the whole image.
        resample: Whether a prediction on another grid is brought onto that of its reference.
        only_probabilities: Whether nothing but the probabilities is scored, and no label map read.
    """

    case: str
    prediction: CaseFiles
    reference: CaseFiles
    source: str
    labels: tuple[Label, ...] | None
    include_background: bool
    dataset: DatasetLabels | None
    metrics: MetricChoice
    axis: int | None
    resample: bool = False
    only_probabilities: bool = False


@dataclass(frozen=True)
class CaseScores:
    """Scores of a case. Arrays are indexed by image (one, or one a slice) first, then by label, then by metric.

    Attributes:
        case: Name of the case.
        prediction_file: File of the prediction.
        reference_file: File of the reference.
        source: What was read: `labels`, `probabilities` or `logits`.
        labels: Labels, length L.
        values: By label the metrics, an array (S, M) in the order of `MetricChoice.names`.
        missed: Whether only the reference holds the label, boolean (S, L).
        spurious: Whether only the prediction holds the label, boolean (S, L).
        diagonals_mm: Length of each image's diagonal in mm, shape (S,).
        axis: Array axis that slices were cut along; None for whole images.
        warnings: What a reader should know about the files.
        probabilities: Scores of the probabilities, where they were asked for.
    """

    case: str
    prediction_file: Path
    reference_file: Path
    source: str
    labels: tuple[Label, ...]
    values: Mapping[str, np.ndarray]
    missed: np.ndarray
    spurious: np.ndarray
    diagonals_mm: np.ndarray
    axis: int | None
    warnings: tuple[str, ...] = ()
    probabilities: ProbabilityScores | None = None

    def for_labels(self, labels: tuple[Label, ...], metrics: MetricChoice) -> "CaseScores":
        """Return the scores with labels added that occur in other cases only.

        Args:
            labels: All labels, those of this case among them.
            metrics: Metrics of each label.

        Returns:
            Scores of all labels; a label that was in neither file is nan throughout.
        """
        n_images = len(self.diagonals_mm)
        position = {label.key: i for i, label in enumerate(self.labels)}
        values, missed, spurious = {}, np.zeros((n_images, len(labels)), bool), np.zeros((n_images, len(labels)), bool)
        for i, label in enumerate(labels):
            if label.key in position:
                values[label.key] = self.values[label.key]
                missed[:, i] = self.missed[:, position[label.key]]
                spurious[:, i] = self.spurious[:, position[label.key]]
            else:
                values[label.key] = np.full((n_images, len(metrics.names(label))), np.nan)
        return replace(self, labels=labels, values=values, missed=missed, spurious=spurious)


@dataclass(frozen=True)
class CaseFailure:
    """A case that couldn't be scored.

    Attributes:
        case: Its name.
        message: What is wrong, with the file.
    """

    case: str
    message: str


def score_case(task: CaseTask) -> CaseScores | CaseFailure:
    """Score one case.

    Args:
        task: The case and how to score it.

    Returns:
        Its scores, or why there are none; no error of one case leaves this function.
    """
    try:
        return _score_case(task)
    except CaseError as error:
        return CaseFailure(task.case, str(error))
    except Exception as error:  # named and counted: one strange file must not end the others' run
        files = f"{task.prediction.npz or task.prediction.labels[0]} and {task.reference.labels[0]}"
        return CaseFailure(task.case, f"{files}: can't be scored: {type(error).__name__}: {error}")


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


def _score_case(task: CaseTask) -> CaseScores:
    if task.only_probabilities:
        return _score_probabilities(task, read_label_image(task.reference.label_file()))
    images = read_case(task)
    reference, prediction = images.reference, images.prediction
    labels = task.labels if task.labels is not None else _labels_in(reference, prediction, task.include_background)
    probabilities = None
    if task.metrics.options.wants_calibration:
        labels, probabilities = _probabilities(task, reference, labels)
    tolerances_mm = {label_key(label.values): task.metrics.tolerances_of(label) for label in labels}
    scores, diagonals_mm = [], []
    for reference_image, prediction_image, spacing in _images(reference, prediction, task.axis):
        scores.append(_score_image(task, tolerances_mm, reference_image, prediction_image, spacing))
        diagonals_mm.append(np.linalg.norm(np.multiply(reference_image.shape, spacing)))
    keys = {label.key: label_key(label.values) for label in labels}
    by_label = {name: [image[key] for image in scores] for name, key in keys.items()}
    return CaseScores(
        case=task.case,
        prediction_file=prediction.path,
        reference_file=reference.path,
        source=images.source,
        labels=labels,
        values={
            label.key: np.array([[*one.values.values(), *_calibration(probabilities, label)] for one in images])
            for label, images in zip(labels, by_label.values(), strict=True)
        },
        missed=_flags([[one.is_missed for one in images] for images in by_label.values()], len(scores)),
        spurious=_flags([[one.is_spurious for one in images] for images in by_label.values()], len(scores)),
        diagonals_mm=np.array(diagonals_mm),
        axis=task.axis if task.axis is None or reference.array.ndim == 3 else 0,
        warnings=(*images.warnings, *_warnings(task, reference, prediction)),
        probabilities=probabilities,
    )


def _score_probabilities(task: CaseTask, reference: LabelImage) -> CaseScores:
    labels, probabilities = _probabilities(task, reference, task.labels or ())
    assert task.prediction.npz is not None, "there were probabilities"
    return CaseScores(
        case=task.case,
        prediction_file=task.prediction.npz,
        reference_file=reference.path,
        source=probabilities.source,
        labels=labels,
        values={},
        missed=np.zeros((1, 0), bool),
        spurious=np.zeros((1, 0), bool),
        diagonals_mm=np.zeros(1),
        axis=None,
        probabilities=probabilities,
    )


def _probabilities(
    task: CaseTask, reference: LabelImage, labels: tuple[Label, ...]
) -> tuple[tuple[Label, ...], ProbabilityScores]:
    """Return the labels, which may be those of the channels too, and the scores of the probabilities."""
    some_file = task.prediction.npz or task.prediction.labels[0]
    file, channels = open_for_case(task.prediction.npz, some_file, task.source, task.dataset)
    if task.labels is None:
        labels = labels_with_channel(channels, labels)
    ignore_label = task.dataset.ignore_label if task.dataset else None
    return labels, score_file(file, channels, reference, labels, ignore_label)


def _calibration(scores: ProbabilityScores | None, label: Label) -> list[float]:
    if scores is None:
        return []
    own = scores.labels.get(label_key(label.values))
    return list(own.metrics().values()) if own else [float("nan")] * len(CALIBRATION_METRICS)


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


def _score_image(
    task: CaseTask,
    tolerances_mm: Mapping[LabelKey, tuple[float, ...]],
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: tuple[float, ...],
) -> Scores:
    return score(
        reference,
        prediction,
        spacing_mm,
        list(tolerances_mm),
        nsd_tolerance_mm=tolerances_mm,
        ignore_label=task.dataset.ignore_label if task.dataset else None,
        options=task.metrics.options.of_masks,
    )


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


def _images(
    reference: LabelImage, prediction: LabelImage, axis: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[float, ...]]]:
    spacing = reference.geometry.spacing_mm
    if axis is None or reference.array.ndim == 2:
        yield reference.array, prediction.array, spacing
        return
    in_plane = spacing[:axis] + spacing[axis + 1 :]
    for pair in zip(slices(reference.array, axis), slices(prediction.array, axis), strict=True):
        yield *pair, in_plane


def _labels_in(reference: LabelImage, prediction: LabelImage, include_background: bool) -> tuple[Label, ...]:
    background = (Label((0,), "background"),) if include_background else ()
    return background + tuple(Label((value,)) for value in foreground_values(reference.array, prediction.array))


def _flags(by_label: list[list[bool]], n_images: int) -> np.ndarray:
    return np.array(by_label, dtype=bool).reshape(-1, n_images).T


def _warnings(task: CaseTask, reference: LabelImage, prediction: LabelImage) -> Iterator[str]:
    if task.dataset is not None:
        for image in (reference, prediction):
            unknown = sorted(set(foreground_values(image.array)) - task.dataset.values)
            if unknown:
                listed = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
                yield f"{image.path}: values {listed} are not in {task.dataset.path} and are scored as no label"
    if not reference.geometry.affines and not prediction.geometry.affines:
        spacing = " x ".join(f"{size:g}" for size in reference.geometry.spacing_mm)
        yield f"{reference.path}: the file doesn't say where it lies; distances take its voxels as {spacing} mm"
    if reference.frames_only and prediction.frames_only:
        yield (
            f"{prediction.path} and {reference.path}: neither says how many slices without labels there are beside "
            "theirs; specificity and the image's diagonal leave those out"
        )
